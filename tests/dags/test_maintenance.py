"""The DAG that maintains all pipelines, loaded and run by a real Airflow."""

import datetime as dt
import os
import shutil
from pathlib import Path

import pytest

from lookup.store import Store
from schemas.jobcall import Ended
from tests.dags.conftest import DAGS, compare_with_golden, dag_shape
from tests.e2e.conftest import run_program
from tests.flights import rewrite
from tests.lookup.conftest import Staging

pytestmark = pytest.mark.airflow

OLD = dt.datetime.now(dt.UTC).timestamp() - 30 * 86_400


def test_the_dag_has_its_golden_shape_with_a_task_for_each_pipeline(airflow: dict[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(DAGS, tmp_path / "dags")
    shutil.copytree(folder / "flight_delay", folder / "broken")
    rewrite(folder / "broken/pipeline.yaml", ("bundle: latest", "bundel: latest"))
    found = dag_shape(airflow, folder, "almanac_maintenance")
    assert (found["errors"], found["heavy"]) == ({}, [])
    compare_with_golden("maintenance-dag.json", found["dag"])


def test_a_dry_run_changes_nothing_a_run_removes_what_is_old_and_a_misspelt_parameter_is_refused(
    airflow: dict[str, str], tmp_path: Path, redis_url: str
) -> None:
    folder = tmp_path / "dags"
    shutil.copytree(DAGS / "flight_delay", folder / "flights")
    rewrite(folder / "flights/pipeline.yaml", ("pipeline: flight_delay", "pipeline: flights"))
    shutil.copy(DAGS / "maintenance.py", folder)
    staging = Staging(tmp_path / "store")
    waiting = staging.run(dt.date(2013, 7, 9), {"UA:1": 0.5})
    run_folder = staging.store.run_folder(waiting)
    for path in (run_folder, *run_folder.glob("*")):
        os.utime(path, (OLD, OLD))
    environ = airflow | {
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "ALMANAC_STORE": str(tmp_path / "store"),
        "ALMANAC_REDIS_URL": redis_url,
    }

    def run(day: str, conf: str) -> str:
        command = ("dags", "test", "almanac_maintenance", day, "--conf", conf)
        ended = run_program("airflow", *command, cwd=tmp_path, environ=environ)
        return ended.out + ended.err

    said = run("2026-01-01", '{"dry-run": true}')
    assert "parameter 'dry-run': unknown; did you mean 'dry_run'?; expected one of dry_run" in said
    assert run_folder.exists()
    said = run("2026-01-02", '{"dry_run": true}')
    assert f'"name": "{waiting}"' in said
    assert run_folder.exists()
    run("2026-01-03", "{}")
    assert not run_folder.exists()
    removed = Store(tmp_path / "store", "flights").removed(waiting)
    assert removed is not None
    assert removed.why.startswith("never committed")


def test_a_job_that_failed_is_retried_only_where_that_may_help() -> None:
    assert Ended("maintain", 0, "{}").result(final=ValueError, retried=OSError) == "{}"
    with pytest.raises(ValueError, match="exit code 2"):
        Ended("maintain", 2, "").result(final=ValueError, retried=OSError)
    with pytest.raises(OSError, match="exit code 1"):
        Ended("maintain", 1, "").result(final=ValueError, retried=OSError)
