"""The DAGs, loaded and run by a real Airflow in a home of its own."""

import datetime as dt
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.stages import check_inputs, score
from jobs.verification import verify
from lookup.connect import connect
from lookup.store import Store
from lookup.table import RedisTable
from schemas.settings import Settings
from tests.e2e.conftest import BIN, run_program
from tests.flights import rewrite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.airflow

DAGS = Path(__file__).parent.parent.parent / "dags"
GOLDEN = Path(__file__).parent.parent / "golden"
FLIGHTS = "almanac_flight_delay"
_SHAPE = """
import json, sys
import airflow.sdk
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.dag_processing.dagbag import DagBag
before = set(sys.modules)
bag = DagBag(dag_folder=sys.argv[1])
heavy = {"pyspark", "sklearn", "great_expectations", "lightgbm", "pandas", "sqlglot", "jobs"}
dag = bag.dags[sys.argv[2]]
def when(schedule):
    if schedule is None or isinstance(schedule, str):
        return schedule
    return {"assets": [one.name for one in schedule.asset_condition.objects], "or_at": schedule.timetable.expression}
def late(alert):
    told = {"calls": alert.callback.path, "with": alert.callback.kwargs}
    return {"of": type(alert.reference).__name__, "after": str(alert.interval), **told}
tasks = {
    task.task_id: {
        "operator": task.task_type,
        "downstream": sorted(task.downstream_task_ids),
        "retries": task.retries,
        "delay": [str(task.retry_delay), task.retry_exponential_backoff, str(task.max_retry_delay)],
        "pool": task.pool,
        "one_at_a_time": task.max_active_tis_per_dag == 1,
        "timeout": str(task.execution_timeout),
        "inlets": [asset.name for asset in task.inlets],
        "outlets": [asset.name for asset in task.outlets],
        "connection": getattr(task, "_conn_id", None),
        "arguments": getattr(task, "application_args", None),
    }
    for task in dag.tasks
}
print(json.dumps({
    "errors": bag.import_errors,
    "heavy": sorted(heavy & (set(sys.modules) - before)),
    "ids": sorted(bag.dags),
    "doc": dag.doc_md,
    "environment": [task.env_vars for task in dag.tasks if hasattr(task, "env_vars")],
    "dag": {
        "schedule": when(dag.schedule), "owner": dag.owner, "tags": sorted(dag.tags),
        "max_active_runs": dag.max_active_runs,
        "catchup": dag.catchup, "start_date": str(dag.start_date), "end_date": str(dag.end_date),
        "deadline": [late(one) for one in dag.deadline or ()], "params": list(dag.params), "tasks": tasks,
    },
}))
"""


# One task's function as Airflow calls it, outside of a run; what it raises decides what Airflow does next.
_TASK = """
import json, sys
sys.path.insert(0, "dags")
import scoring
try:
    getattr(scoring, sys.argv[1]).function(**json.loads(sys.argv[2]))
except Exception as err:
    print(type(err).__name__ + ": " + str(err).splitlines()[0])
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an Airflow with its own home and a database in it."""
    home = tmp_path_factory.mktemp("airflow")
    environ = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    migrated = run_program("airflow", "db", "migrate", cwd=home, environ=environ)
    assert migrated.code == 0, migrated.err
    return environ


def shape(environ: dict[str, str], folder: Path, dag: str = FLIGHTS) -> dict[str, object]:
    ended = run_program("python", "-c", _SHAPE, str(folder), dag, cwd=folder, environ=environ)
    assert ended.code == 0, ended.err
    found: dict[str, object] = json.loads(ended.out.splitlines()[-1])
    return found


def test_the_dag_has_its_golden_shape_and_loads_nothing_heavy(airflow: dict[str, str]) -> None:
    found = shape(airflow, DAGS)
    assert found["errors"] == {}
    assert found["heavy"] == []
    compare_with_golden("dag.json", found["dag"])


def compare_with_golden(name: str, found: object) -> None:
    text = json.dumps(found, indent=2) + "\n"
    if os.environ.get("ALMANAC_GOLDEN") == "write":
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


_EXTRAS = """
airflow:
  conn_id: spark_cluster
  pool: night
  retries: 4
  retry_delay_minutes: 0.5
  execution_timeout_minutes: 45
  deadline_minutes: 90
  end_date: 2030-12-31
  assets: {flights: raw_flights, weather: raw_weather}
  after: [flight_delay]
"""


def test_a_dag_with_everything_that_can_be_declared_has_its_golden_shape(
    airflow: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(DAGS, tmp_path / "dags")
    shutil.copytree(tmp_path / "dags/flight_delay", tmp_path / "dags/night_delay")
    path = tmp_path / "dags/night_delay/pipeline.yaml"
    rewrite(path, ("pipeline: flight_delay", "pipeline: night_delay"), ('schedule: "@daily"', 'schedule: "30 2 * * *"'))
    path.write_text(path.read_text().partition("\nairflow:")[0] + _EXTRAS)
    environ = airflow | {"ALMANAC_PIPELINES": str(tmp_path / "dags"), "ALMANAC_ON_LATE": "pager.call"}

    found = shape(environ, tmp_path / "dags", "almanac_night_delay")

    assert (found["errors"], found["heavy"]) == ({}, [])
    compare_with_golden("dag-extras.json", found["dag"])


def test_a_broken_declaration_is_a_failing_dag_and_no_harm_to_the_others(
    airflow: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(DAGS, tmp_path / "dags")
    shutil.copytree(tmp_path / "dags/flight_delay", tmp_path / "dags/other")
    rewrite(tmp_path / "dags/other/pipeline.yaml", ("pipeline: flight_delay", "pipeline: other"))
    rewrite(tmp_path / "dags/flight_delay/pipeline.yaml", ("bundle: latest", "bundel: latest"))
    found = shape(airflow | {"ALMANAC_PIPELINES": str(tmp_path / "dags")}, tmp_path / "dags")
    assert found["errors"] == {}
    assert found["ids"] == ["almanac_flight_delay", "almanac_other"]
    assert "models.champion.bundel: unknown key; did you mean 'bundle'?" in str(found["doc"])


def release_events(airflow: dict[str, str]) -> list[dict[str, object]]:
    """What the runs told downstream DAGs, from Airflow's own database."""
    with closing(sqlite3.connect(Path(airflow["AIRFLOW_HOME"]) / "airflow.db")) as database:
        return [json.loads(extra) for (extra,) in database.execute("SELECT extra FROM asset_event ORDER BY id")]


def test_the_password_of_redis_is_in_no_task(airflow: dict[str, str]) -> None:
    found = shape(airflow | {"ALMANAC_REDIS_URL": "redis://almanac:s3cret@127.0.0.1/0"}, DAGS)
    assert "s3cret" not in str(found)
    assert "ALMANAC_STORE" in str(found["environment"])


def verified_run(team: Path, date: str, spark: "SparkSession") -> str:
    settings = Settings(pipelines=team / "dags", store=team / "store")
    plan = check_inputs(settings, "flight_delay", dt.date.fromisoformat(date))
    manifest = score(plan, spark.newSession)
    verify(plan, manifest, spark.newSession)
    return manifest.run_id


@pytest.mark.spark
def test_a_dag_run_publishes_an_older_one_is_skipped_and_a_blocked_one_fails_for_good(
    airflow: dict[str, str], trained_workspace: Path, tmp_path: Path, redis_url: str, spark: "SparkSession"
) -> None:
    team = tmp_path / "team"
    shutil.copytree(trained_workspace, team)
    shutil.copy(DAGS / "scoring.py", team / "dags")
    environ = airflow | {
        "AIRFLOW__CORE__DAGS_FOLDER": str(team / "dags"),
        "ALMANAC_STORE": str(team / "store"),
        "ALMANAC_REDIS_URL": redis_url,
    }

    def call_task(name: str, **arguments: object) -> str:
        ended = run_program("python", "-c", _TASK, name, json.dumps(arguments), cwd=team, environ=environ)
        assert ended.code == 0, ended.err
        return ended.out.splitlines()[-1]

    ended = run_program("airflow", "dags", "test", "almanac_flight_delay", "2013-01-05", cwd=team, environ=environ)
    assert ended.code == 0, ended.out + ended.err
    store = Store(team / "store", "flight_delay")
    live = store.live()
    assert live is not None, ended.out + ended.err
    assert str(live.date) == "2013-01-05"
    with connect(redis_url) as client:
        head = RedisTable(client, "flight_delay").head()
        assert head is not None
        assert head.run_id == live.run_id

        (told,) = release_events(airflow)
        assert (told["run_id"], told["release"], told["entities"]) == (live.run_id, 1, 420)
        assert (told["verdict"], told["date"]) == ("PASS", "2013-01-05")

        older = verified_run(team, "2013-01-04", spark)
        late = {"pipeline": "flight_delay", "run": older, "verdict": "PASS", "outlet_events": {}}
        said = call_task("publish", **late, params={"dry_run": True})
        assert said == f"AirflowSkipException: dry run: {older} passed with PASS, and is not published"
        said = call_task("publish", **late, params={"dry_run": False})
        assert said == "AirflowSkipException: release 2 is older than the live one: kept, not served"

        rewrite(team / "dags/flight_delay/features.sql", ("  s.distance,", "  s.distance * 1609 AS distance,"))
        blocked = verified_run(team, "2013-01-06", spark)
        said = call_task("gate", pipeline="flight_delay", run=blocked, params={"override_checks": []})
        assert said == f"AirflowFailException: flight_delay run {blocked} is blocked"
        said = call_task("gate", pipeline="flight_delay", run="2013-01-06-000000000000", params={"override_checks": []})
        assert said.startswith("AirflowFailException: no readable report at")
        assert store.live() == live
        assert RedisTable(client, "flight_delay").head() == head


def test_a_run_by_hand_with_a_misspelt_parameter_is_refused_before_it_does_anything(
    airflow: dict[str, str], tmp_path: Path
) -> None:
    environ = airflow | {"AIRFLOW__CORE__DAGS_FOLDER": str(DAGS), "ALMANAC_STORE": str(tmp_path / "store")}
    # Airflow takes it among the parameters without a word, and with it the run would be published.
    options = ("almanac_flight_delay", "2013-07-01", "--conf", '{"dry-run": true}')

    ended = run_program("airflow", "dags", "test", *options, cwd=tmp_path, environ=environ)

    said = ended.out + ended.err
    assert "parameter 'dry-run': unknown; did you mean 'dry_run'?; expected one of date, dry_run" in said
    assert not (tmp_path / "store").exists()
