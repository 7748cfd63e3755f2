"""A backfill from outside: killed again and again, and beside a scheduled run."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lookup.store import Store
from schemas.run import FEATURES, PREDICTIONS, PRIORS, QUARANTINE
from tests.e2e.conftest import BIN, Command, run_program

pytestmark = [pytest.mark.spark, pytest.mark.e2e]

JOBS = Path(__file__).parent.parent.parent / "jobs"
PIPELINE = "flight_delay"
SECONDS = 180.0


def start(team: Path, environ: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    kept = {name: value for name, value in environ.items() if not name.startswith("COVERAGE_")}
    command = [str(BIN / "almanac"), *arguments]
    return subprocess.Popen(
        command, cwd=team, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def kill_when_there(process: "subprocess.Popen[str]", folder: Path, pattern: str) -> None:
    """SIGKILL, at the moment when such a file is first seen."""
    deadline = time.monotonic() + SECONDS
    while not next(folder.glob(pattern), None):
        assert process.poll() is None, f"it ended before there was {pattern}: {process.communicate()[0]}"
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def released(store: Store) -> list[tuple[int, str]]:
    return [(release.number, release.run_id) for release in store.releases()]


def finished(process: "subprocess.Popen[str]") -> str:
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, out
    return out


def test_a_backfill_that_is_killed_at_every_stage_ends_with_the_same_releases(
    trained_team: Path, environ: dict[str, str], almanac: Command
) -> None:
    store = Store(trained_team / ".almanac", PIPELINE)
    asked = ("backfill", PIPELINE, "--from", "2013-01-04", "--to", "2013-01-07")
    planned = [one["run_id"] for one in almanac(*asked, "--dry-run", "--json").json["dates"]]
    moments: Sequence[str] = (
        "runs/.staging-2013-01-04-*",  # while the first date is scored
        "runs/2013-01-04-*/manifest.json",  # when it is staged: it is verified, while the second is scored
        "runs/2013-01-05-*/report.json",  # when the second is verified, and not archived yet
        "releases/00000003.json",  # when the third is archived
    )
    for moment in moments:
        kill_when_there(start(trained_team, environ, *asked), store.folder, moment)

    # To its end by spark-submit: it is the same program.
    arguments = ("--pipeline", PIPELINE, *asked[2:], "--json")
    ended = run_program("spark-submit", str(JOBS / "backfill.py"), *arguments, cwd=trained_team, environ=environ)

    assert ended.code == 0, ended.err
    document = json.loads(ended.out.splitlines()[-1])  # spark-submit puts what a job logs before it
    dates = [(one["run_id"], one["release"]) for one in document["dates"]]
    assert dates == list(zip(planned, range(1, 5), strict=True))
    assert released(store) == list(enumerate(planned, start=1))
    for run_id in planned:
        assert store.damage(store.verified(run_id), PREDICTIONS, FEATURES, QUARANTINE, PRIORS) == []
    assert store.live() is None


def test_a_backfill_beside_a_scheduled_run_of_the_same_night_are_both_right(
    trained_team: Path, environ: dict[str, str], almanac: Command
) -> None:
    store = Store(trained_team / ".almanac", PIPELINE)
    dates = ("--from", "2013-01-05", "--to", "2013-01-07")
    planned = {one["run_id"] for one in almanac("backfill", PIPELINE, *dates, "--dry-run", "--json").json["dates"]}

    # The run is of the newest date, and so stages and publishes the same run as the backfill does.
    both = [
        start(trained_team, environ, "backfill", PIPELINE, *dates, "--publish-latest"),
        start(trained_team, environ, "run", PIPELINE, "--date", "2013-01-07"),
    ]
    pages = [finished(process) for process in both]

    assert sorted(run_id for _, run_id in released(store)) == sorted(planned)
    live = store.live()
    assert live is not None
    assert live.run_id == max(planned)
    assert re.search(r"2013-01-06 +2013-01-06-[0-9a-f]{12} .*archived", pages[0])
    row = almanac("lookup", PIPELINE, _some_flight(store, live.run_id), "--json").json[0]
    assert (row["status"], row["release"]) == ("exact", live.release)
    assert [path.name for path in (store.folder / "runs").glob(".*")] == []


def _some_flight(store: Store, run_id: str) -> str:
    return str(pq.read_table(store.run_folder(run_id) / PREDICTIONS, columns=["entity_id"])[0][0])


def test_a_job_that_cannot_start_says_why_and_exits_with_2(trained_team: Path, environ: dict[str, str]) -> None:
    arguments = ("--pipeline", PIPELINE, "--from", "2013-01-05", "--to", "13-1-6")
    ended = run_program("python", str(JOBS / "backfill.py"), *arguments, cwd=trained_team, environ=environ)
    assert ended.code == 2
    assert "--to: '13-1-6'; expected a day as YYYY-MM-DD [CLI_DATE]" in ended.err
    assert "Traceback" not in ended.err
