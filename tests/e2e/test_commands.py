"""The command line in a team's own folder, which holds nothing but declarations and data."""

import csv
import json
import random
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookup.embedded import free_port
from tests.e2e.conftest import BIN, Command
from tests.flights import rewrite

pytestmark = [pytest.mark.spark, pytest.mark.e2e]


def test_run_look_up_block_and_roll_back(trained_team: Path, almanac: Command) -> None:
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
    assert almanac("rollback", "flight_delay", "--reason", "test").code == 0
    assert [(r["number"], r["state"]) for r in almanac("releases", "flight_delay", "--json").json] == [
        (1, "LIVE"),
        (2, "ROLLED_BACK"),
    ]
    again = almanac("rollback", "flight_delay")
    assert again.code == 2
    assert "no earlier release was live" in again.err


def test_the_server_answers_from_the_live_release(
    trained_team: Path, almanac: Command, environ: dict[str, str]
) -> None:
    assert almanac("run", "flight_delay", "--date", "2013-01-05").code == 0
    (run,) = (trained_team / ".almanac/flight_delay/runs").glob("*/predictions/part-00000.parquet")
    row = pq.read_table(run).slice(0, 1).to_pylist()[0]
    port = free_port()
    server = subprocess.Popen(
        [BIN / "almanac", "serve", "--port", str(port)], cwd=trained_team, env=environ, stdout=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}/v1/flight_delay/{row['entity_id']}"
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5) as response:
                    answer = json.load(response)
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    assert (answer["outputs"], answer["model"]) == ({"score": row["score"]}, row["model"])


def _customers() -> list[dict[str, object]]:
    draw = random.Random(5)  # noqa: S311  # data, not a secret
    rows: list[dict[str, object]] = []
    for number in range(600):
        tenure = draw.randrange(0, 72)
        plan = draw.choice(["basic", "plus", "pro", None])
        chance = 0.7 - 0.008 * tenure + (0.2 if plan == "basic" else 0)
        rows.append(
            {
                "region": draw.choice(["north", "south", "Zürich"]),
                "account": number % 300,
                "plan name": plan,
                "tenure": tenure,
                "total charges": f" {tenure * 20.5:.2f} " if tenure else " ",
                "note": f"called {number} times",
                "churned": "Yes" if draw.random() < chance else "No",
            }
        )
    return [{**row, "region": f"{row['region']}-{index // 300}"} for index, row in enumerate(rows)]


def _write_csv(path: Path) -> None:
    rows = _customers()
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(_customers()), path)


@pytest.mark.parametrize(("name", "write"), [("customers.csv", _write_csv), ("customers.parquet", _write_parquet)])
def test_a_pipeline_for_an_own_table_works_as_written(team: Path, almanac: Command, name: str, write: object) -> None:
    write(team / name)  # type: ignore[operator]
    for command in (
        ("new", "churn", "--from", name, "--key", "region,account", "--target", "churned"),
        ("validate", "churn"),
        ("train", "churn"),
        ("run", "churn", "--date", "2026-01-31"),
    ):
        ended = almanac(*command)
        assert ended.code == 0, (command, ended.out, ended.err)
    row = _customers()[0]
    answers = almanac("lookup", "churn", f"{row['region']}:{row['account']}", "nobody:0", "--json").json
    assert [answer["status"] for answer in answers] == ["exact", "unknown"]
    assert 0 < answers[0]["outputs"]["score"] < 1
    assert almanac("down").out == "stopped\n"
