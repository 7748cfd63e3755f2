"""The command line in a team's own folder, which holds nothing but declarations and data."""

import csv
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from lookup.embedded import free_port
from tests.customers import customers
from tests.e2e.conftest import BIN, Command
from tests.flights import rewrite

pytestmark = [pytest.mark.spark, pytest.mark.e2e]


@contextmanager
def serving(team: Path, environ: dict[str, str]) -> Iterator[str]:
    """`almanac serve` in the team's folder, and where it listens; it must end well when it is asked to."""
    port = free_port()
    command = [BIN / "almanac", "serve", "--port", str(port)]
    server = subprocess.Popen(command, cwd=team, env=environ, stdout=subprocess.DEVNULL)
    base, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 20
    try:
        while True:
            try:
                ask(f"{base}/readyz")
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield base
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def ask(url: str) -> Any:
    return httpx.get(url, timeout=5).raise_for_status().json()


def test_run_serve_look_up_block_and_roll_back(trained_team: Path, almanac: Command, environ: dict[str, str]) -> None:
    assert almanac("validate").code == 0
    for date in ("2013-01-05", "2013-01-06"):
        ended = almanac("run", "flight_delay", "--date", date, "--json")
        assert ended.code == 0, ended.err
        assert ended.json["counts"]["scored"] == 420
    rewrite(trained_team / "dags/flight_delay/features.sql", ("  s.distance,", "  s.distance * 1609 AS distance,"))
    blocked = almanac("run", "flight_delay", "--date", "2013-01-07", "--json")
    assert blocked.code == 3
    assert "distance" in blocked.json["problems"][0]["where"]
    # the file's row order is the predictions' own: any id of the live release will do
    (run,) = (trained_team / ".almanac/flight_delay/runs").glob("2013-01-06-*/predictions/part-00000.parquet")
    entity = pq.read_table(run).column("entity_id")[0].as_py()
    (answer,) = almanac("lookup", "flight_delay", entity, "--json").json
    assert (answer["status"], answer["release"]) == ("exact", 2)
    with serving(trained_team, environ) as base:
        assert ask(f"{base}/v1/flight_delay/{entity}")["outputs"] == answer["outputs"]
        assert almanac("rollback", "flight_delay", "--reason", "test").code == 0
        assert ask(f"{base}/v1/flight_delay/{entity}")["release"] == 1
    assert [(r["number"], r["state"]) for r in almanac("releases", "flight_delay", "--json").json] == [
        (1, "LIVE"),
        (2, "ROLLED_BACK"),
    ]
    again = almanac("rollback", "flight_delay")
    assert again.code == 2
    assert "no earlier release was live" in again.err


def _write_csv(path: Path) -> None:
    rows = customers()
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_a_pipeline_for_an_own_table_works_as_written(team: Path, almanac: Command) -> None:
    _write_csv(team / "customers.csv")
    for command in (
        ("new", "churn", "--from", "customers.csv", "--key", "region,account", "--target", "churned"),
        ("validate", "churn"),
        ("train", "churn"),
        ("run", "churn", "--date", "2026-01-31"),
    ):
        ended = almanac(*command)
        assert ended.code == 0, (command, ended.out, ended.err)
    row = customers()[0]
    answers = almanac("lookup", "churn", f"{row['region']}:{row['account']}", "nobody:0", "--json").json
    assert [answer["status"] for answer in answers] == ["exact", "unknown"]
    assert 0 < answers[0]["outputs"]["score"] < 1
    assert almanac("down").out == "stopped\n"
