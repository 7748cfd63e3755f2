"""A pool that Airflow does not have is refused before anything runs: Airflow would wait for it without a word."""

import shutil
from pathlib import Path

import pytest

from jobs.airflow_pools import check_pools, known_pools, pool_problems
from schemas.errors import DeclarationError, UnavailableError
from tests.dags.conftest import DAGS, airflow  # noqa: F401  # a fixture
from tests.e2e.conftest import run_program
from tests.flights import rewrite

JOB = DAGS.parent / "jobs" / "airflow_pools.py"
NOT_THERE = (
    "flight_delay/pipeline.yaml: airflow.pool: Airflow has no 'night'; expected one of default_pool; or make it: "
    "airflow pools set night SLOTS WHY [CFG_POOL]"
)


@pytest.fixture
def pooled(tmp_path: Path) -> Path:
    """A folder of two pipelines, of which one has a pool of its own."""
    for name in ("flight_delay", "other"):
        shutil.copytree(DAGS / "flight_delay", tmp_path / "dags" / name)
    rewrite(tmp_path / "dags/other/pipeline.yaml", ("pipeline: flight_delay", "pipeline: other"))
    rewrite(tmp_path / "dags/flight_delay/pipeline.yaml", ("\nairflow:\n", "\nairflow:\n  pool: night\n"))
    return tmp_path / "dags"


@pytest.mark.airflow
def test_a_pool_that_is_not_there_is_refused_with_the_command_that_makes_it(
    airflow: dict[str, str],  # noqa: F811
    pooled: Path,
) -> None:
    environ = airflow | {"ALMANAC_PIPELINES": str(pooled)}

    refused = run_program("python", str(JOB), cwd=pooled, environ=environ)
    made = run_program("airflow", "pools", "set", "night", "2", "of the night", cwd=pooled, environ=environ)
    taken = run_program("python", str(JOB), cwd=pooled, environ=environ)

    assert refused.code == 2
    assert NOT_THERE in refused.err
    assert "Traceback" not in refused.err
    assert made.code == 0, made.err
    assert (taken.code, taken.err) == (0, "")


def test_pipelines_without_a_pool_of_their_own_need_no_airflow(pooled: Path) -> None:
    shutil.rmtree(pooled / "flight_delay")

    check_pools({"ALMANAC_PIPELINES": str(pooled), "PATH": "/nowhere"})


def test_without_airflow_a_pool_cannot_be_looked_for(pooled: Path) -> None:
    with pytest.raises(DeclarationError, match=r"PATH: no airflow; expected the extra almanac\[airflow\]"):
        check_pools({"ALMANAC_PIPELINES": str(pooled), "PATH": "/nowhere"})


def test_an_airflow_that_does_not_say_is_told_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "airflow").write_text("#!/bin/sh\necho warning >&2; echo no database >&2; exit 1\n")
    (tmp_path / "airflow").chmod(0o755)

    with pytest.raises(UnavailableError, match=r"airflow pools list --output json: no database; expected the pools"):
        known_pools({"PATH": str(tmp_path)})


def test_every_pipeline_without_its_pool_is_told() -> None:
    problems = pool_problems({"a": "nihgt", "b": "night", "c": "day"}, ["default_pool", "night"])

    assert [problem.where for problem in problems] == [f"{name}/pipeline.yaml: airflow.pool" for name in "ac"]
    assert "did you mean 'night'?" in problems[0].found
