"""The DAGs, loaded and run by a real Airflow in a home of its own."""

import datetime as dt
import json
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
from tests.dags.conftest import DAGS, compare_with_golden, dag_shape
from tests.e2e.conftest import run_program
from tests.flights import rewrite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.airflow

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


def test_the_dag_has_its_golden_shape_and_loads_nothing_heavy(airflow: dict[str, str]) -> None:
    found = dag_shape(airflow, DAGS)
    assert found["errors"] == {}
    assert found["heavy"] == []
    compare_with_golden("dag.json", found["dag"])


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

    found = dag_shape(environ, tmp_path / "dags", "almanac_night_delay")

    assert (found["errors"], found["heavy"]) == ({}, [])
    compare_with_golden("dag-extras.json", found["dag"])


def test_a_broken_declaration_is_a_failing_dag_and_no_harm_to_the_others(
    airflow: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(DAGS, tmp_path / "dags")
    shutil.copytree(tmp_path / "dags/flight_delay", tmp_path / "dags/other")
    rewrite(tmp_path / "dags/other/pipeline.yaml", ("pipeline: flight_delay", "pipeline: other"))
    rewrite(tmp_path / "dags/flight_delay/pipeline.yaml", ("bundle: latest", "bundel: latest"))
    found = dag_shape(airflow | {"ALMANAC_PIPELINES": str(tmp_path / "dags")}, tmp_path / "dags")
    assert found["errors"] == {}
    assert found["ids"] == ["almanac_flight_delay", "almanac_maintenance", "almanac_other"]
    assert "models.champion.bundel: unknown key; did you mean 'bundle'?" in str(found["doc"])


def release_events(airflow: dict[str, str]) -> list[dict[str, object]]:
    """What the runs told downstream DAGs, from Airflow's own database."""
    with closing(sqlite3.connect(Path(airflow["AIRFLOW_HOME"]) / "airflow.db")) as database:
        return [json.loads(extra) for (extra,) in database.execute("SELECT extra FROM asset_event ORDER BY id")]


def test_the_password_of_redis_is_in_no_task(airflow: dict[str, str]) -> None:
    found = dag_shape(airflow | {"ALMANAC_REDIS_URL": "redis://almanac:s3cret@127.0.0.1/0"}, DAGS)
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
