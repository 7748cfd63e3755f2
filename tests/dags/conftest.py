"""An Airflow of the tests' own, and what it makes of a folder of DAGs."""

import json
import os
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, run_program

DAGS = Path(__file__).parent.parent.parent / "dags"
GOLDEN = Path(__file__).parent.parent / "golden"
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


@pytest.fixture(scope="session")
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


def dag_shape(environ: dict[str, str], folder: Path, dag: str = "almanac_flight_delay") -> dict[str, object]:
    """What Airflow makes of a folder, and of one DAG in it; what it loads beside Airflow."""
    ended = run_program("python", "-c", _SHAPE, str(folder), dag, cwd=folder, environ=environ)
    assert ended.code == 0, ended.err
    found: dict[str, object] = json.loads(ended.out.splitlines()[-1])
    return found


def compare_with_golden(name: str, found: object) -> None:
    text = json.dumps(found, indent=2) + "\n"
    if os.environ.get("ALMANAC_GOLDEN") == "write":
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()
