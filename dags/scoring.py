"""One Airflow DAG a declared pipeline: check_inputs >> score >> verify >> gate >> publish >> smoke."""

import datetime as dt
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import DAG, Asset, Param, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from schemas.declared import DeclaredPipeline, pipeline_folders, read_folder
from schemas.errors import AlmanacError
from schemas.report import Report, Verdict
from schemas.run import REPORT_FILE
from schemas.settings import Settings, spark_conf_file

# Found, not imported: this file must load in a moment, and the jobs bring Spark with them.
_JOBS = Path(str(find_spec("jobs").submodule_search_locations[0]))  # type: ignore[union-attr,index]
_DATE = "{{ params.date or ds }}"
_RUN_ID = "{{ ti.xcom_pull(task_ids='check_inputs') }}"
_NO_RETRY = (2, 3)  # a wrong declaration or input, a failed gate: the next try would see the same


def _settings() -> Settings:
    environ = {"ALMANAC_PIPELINES": str(Path(__file__).parent), **os.environ}
    return Settings.from_environment(environ)


def _environment() -> dict[str, str]:
    """What the jobs need to find the same pipelines and store as this file did."""
    settings = _settings()
    found = {"ALMANAC_PIPELINES": str(settings.pipelines), "ALMANAC_STORE": str(settings.store)}
    return found | {name: value for name, value in os.environ.items() if name.startswith("ALMANAC_")}


def _run_job(name: str, *arguments: str) -> str:
    """Run a job that needs no Spark and return the last line it printed.

    Raises:
        AirflowFailException: a retry would end the same way.
        AirflowException: a retry may help.
    """
    command = [sys.executable, str(_JOBS / f"{name}.py"), *arguments]
    ended = subprocess.run(
        command, env={**os.environ, **_environment()}, stdout=subprocess.PIPE, text=True, check=False
    )
    if ended.returncode == 0:
        return ended.stdout.strip().rpartition("\n")[2]
    kind = AirflowFailException if ended.returncode in _NO_RETRY else AirflowException
    raise kind(f"{name} ended with exit code {ended.returncode}; its reasons are in the log above")


def scoring_dag(declared: DeclaredPipeline) -> DAG:
    """The DAG of one pipeline."""
    pipeline = declared.pipeline
    release = Asset(name=f"almanac_{declared.name}", uri=f"almanac://release/{declared.name}")
    stage = ["--pipeline", declared.name, "--date", _DATE, "--run-id", _RUN_ID]

    with DAG(
        dag_id=f"almanac_{declared.name}",
        description=pipeline.description,
        doc_md=f"## {declared.name}\n\n{pipeline.description}\n\nOwner: {pipeline.owner}",
        schedule=pipeline.schedule,
        start_date=dt.datetime.combine(pipeline.start, dt.time(), dt.UTC),
        catchup=False,
        max_active_runs=1,
        tags={"almanac", *pipeline.tags},
        default_args={
            "owner": pipeline.owner,
            "retries": 2,
            "retry_delay": dt.timedelta(minutes=2),
            "retry_exponential_backoff": True,
        },
        params={
            "date": Param(
                None,
                type=["null", "string"],
                pattern=r"^\d{4}-\d{2}-\d{2}$",
                description="Run for another logical date.",
            )
        },
    ) as dag:

        @task
        def check_inputs(date: str) -> str:
            """The run id, which pins what every later stage works on."""
            return _run_job("check", "--pipeline", declared.name, "--date", date)

        @task(retries=0)
        def gate(run: str) -> str:
            """Stop a run that failed: SparkSubmitOperator cannot tell a verdict from a crash, so this task does."""
            path = _settings().store / declared.name / "runs" / run / REPORT_FILE
            try:
                report = Report.model_validate_json(path.read_bytes())
            except (OSError, ValueError) as err:
                raise AirflowFailException(f"no readable report at {path}: {err}") from err
            if report.run_id != run or report.verdict is Verdict.FAIL:
                failed = [f"{check.name}: {check.observed}; expected {check.expected}" for check in report.failures]
                raise AirflowFailException("\n".join([f"{declared.name} run {run} is blocked", *failed[:10]]))
            return str(report.verdict)

        @task(outlets=[release])
        def publish(run: str, date: str, *, outlet_events: Any = None) -> None:
            """Make the run the live release, and tell downstream DAGs which one it is."""
            _run_job("publish", "--pipeline", declared.name, "--date", date, "--run-id", run)
            outlet_events[release].extra = {"pipeline": declared.name, "run_id": run, "date": date}

        @task
        def smoke(run: str, date: str) -> None:
            """Read the release back as a service does."""
            _run_job("smoke", "--pipeline", declared.name, "--date", date, "--run-id", run)

        spark: dict[str, Any] = {
            "application_args": stage,
            "conn_id": "spark_default",
            "env_vars": _environment(),
            "properties_file": str(spark_conf_file()),
        }
        score = SparkSubmitOperator(
            task_id="score", application=str(_JOBS / "score.py"), name=f"score {declared.name}", **spark
        )
        verify = SparkSubmitOperator(
            task_id="verify", application=str(_JOBS / "verify.py"), name=f"verify {declared.name}", **spark
        )

        checked = check_inputs(_DATE)
        checked >> score >> verify >> gate(_RUN_ID) >> publish(_RUN_ID, _DATE) >> smoke(_RUN_ID, _DATE)
    return dag


def broken_dag(name: str, error: AlmanacError) -> DAG:
    """A DAG that fails with what is wrong: a folder that cannot be read must not take the others' DAGs with it."""
    with DAG(
        dag_id=f"almanac_{name}",
        schedule="@daily",
        start_date=dt.datetime(2000, 1, 1, tzinfo=dt.UTC),
        catchup=False,
        tags={"almanac", "broken"},
        doc_md=f"## {name}\n\nThe declaration cannot be read:\n\n```\n{error}\n```",
    ) as dag:

        @task
        def read_declaration() -> None:
            raise AirflowFailException(str(error))

        read_declaration()
    return dag


def _dag(folder: Path) -> DAG:
    try:
        return scoring_dag(read_folder(folder))
    except AlmanacError as err:
        return broken_dag(folder.name, err)


for _folder in pipeline_folders(_settings()):
    globals()[f"almanac_{_folder.name}"] = _dag(_folder)
