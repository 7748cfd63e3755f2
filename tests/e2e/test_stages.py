"""The stages as separate programs, as a scheduler or an engineer runs them."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Command, Ended, run_program

pytestmark = [pytest.mark.spark, pytest.mark.e2e]

JOBS = Path(__file__).parent.parent.parent / "jobs"
STAGE = ("--pipeline", "flight_delay", "--date", "2013-01-05")


def test_each_stage_runs_by_spark_submit_and_signs_its_lines_in_driver_and_workers(
    trained_team: Path, environ: dict[str, str], almanac: Command
) -> None:
    environ["ALMANAC_LOG_FORMAT"] = "json"

    def submit(job: str, *arguments: str) -> Ended:
        return run_program("spark-submit", str(JOBS / f"{job}.py"), *arguments, cwd=trained_team, environ=environ)

    told: dict[str, list[dict[str, str]]] = {}
    for job, *options in (("score",), ("verify",), ("publish", "--spark")):
        ended = submit(job, *STAGE, *options)
        assert ended.code == 0, ended.err
        # spark-submit puts what the driver's Python says on its standard output, be it an error or not.
        lines = (ended.out + ended.err).splitlines()
        told[job] = [json.loads(line) for line in lines if line.startswith('{"time"')]
    (answer,) = almanac("releases", "flight_delay", "--json").json
    assert (answer["state"], answer["date"]) == ("LIVE", "2013-01-05")
    signed = {(job, line["logger"], line["run_id"]) for job, lines in told.items() for line in lines}
    assert signed >= {
        ("score", "jobs.tasks", answer["run_id"]),  # a Python worker of Spark
        ("score", "jobs.stages", answer["run_id"]),
        ("verify", "jobs.verification", answer["run_id"]),
        ("publish", "lookup.publisher", answer["run_id"]),
    }
    smoke = run_program("python", str(JOBS / "smoke.py"), *STAGE, cwd=trained_team, environ=environ)
    assert smoke.code == 0, smoke.err
    assert "20 entities read back" in smoke.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pipeline", "flight_dely", "--date", "2013-01-05"), "did you mean 'flight_delay'"),
        (("--pipeline", "flight_delay", "--date", "2013-01-32"), "expected a day as YYYY-MM-DD"),
        (("--pipeline", "flight_delay", "--date", "2013-02-28"), "no partition date=2013-02-28"),
        ((*STAGE, "--run-id", "2013-01-05-000000000000"), "start again at check_inputs"),
    ],
)
def test_a_stage_that_cannot_start_says_why_and_exits_with_2(
    trained_team: Path, environ: dict[str, str], arguments: tuple[str, ...], message: str
) -> None:
    ended = run_program("python", str(JOBS / "score.py"), *arguments, cwd=trained_team, environ=environ)
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err
