"""One Airflow DAG a declared pipeline: check_inputs >> score >> verify >> gate >> publish >> smoke."""

import datetime as dt
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import DAG, Asset, Param, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from schemas.declared import DeclaredPipeline, pipeline_folders, read_folder
from schemas.errors import AlmanacError, bounded
from schemas.report import Override, Report
from schemas.run import OVERRIDE_FILE, REPORT_FILE
from schemas.settings import Settings, spark_conf_file

# Found, not imported: this file must load in a moment, and the jobs bring Spark with them.
_JOBS = Path(str(find_spec("jobs").submodule_search_locations[0]))  # type: ignore[union-attr,index]
_DATE = "{{ params.date or ds }}"
_RUN_ID = "{{ ti.xcom_pull(task_ids='check_inputs') }}"
_RETRIES = {"retries": 2, "retry_delay": dt.timedelta(minutes=2), "retry_exponential_backoff": True}
_NO_RETRY = (2, 3)  # a wrong declaration or input, a failed gate: the next try would see the same


def _settings() -> Settings:
    environ = {"ALMANAC_PIPELINES": str(Path(__file__).parent), **os.environ}
    return Settings.from_environment(environ)


def _environment() -> dict[str, str]:
    """What the jobs need to find the same pipelines, store and sources as this file did.

    Not the address of Redis: Airflow shows a task's variables, it may hold a password, and Spark has no use for it.
    """
    settings = _settings()
    found = {"ALMANAC_PIPELINES": str(settings.pipelines), "ALMANAC_STORE": str(settings.store)}
    ours = {name: value for name, value in os.environ.items() if name.startswith("ALMANAC_")}
    return {name: value for name, value in (found | ours).items() if name != "ALMANAC_REDIS_URL"}


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


def _release(pipeline: str) -> Asset:
    """The asset that downstream DAGs are triggered by."""
    return Asset(name=f"almanac_{pipeline}", uri=f"almanac://release/{pipeline}")


def _stage(pipeline: str, run: str, date: str) -> list[str]:
    return ["--pipeline", pipeline, "--date", date, "--run-id", run]


@task
def check_inputs(pipeline: str, date: str) -> str:
    """The run id, which pins what every later stage works on."""
    return _run_job("check", "--pipeline", pipeline, "--date", date)


@task(retries=0)
def gate(pipeline: str, run: str) -> str:
    """Stop a run that failed: SparkSubmitOperator cannot tell a verdict from a crash, so this task does."""
    path = _settings().store / pipeline / "runs" / run / REPORT_FILE
    try:
        report = Report.model_validate_json(path.read_bytes())
        kept = path.with_name(OVERRIDE_FILE)
        override = Override.model_validate_json(kept.read_bytes()) if kept.is_file() else None
    except (OSError, ValueError) as err:
        raise AirflowFailException(f"no readable report at {path}: {err}") from err
    if report.run_id != run or not report.lets_through(override):
        failed = [f"{check.name}: {check.observed}; expected {check.expected}" for check in report.failures]
        raise AirflowFailException("\n".join(bounded([f"{pipeline} run {run} is blocked", *failed])))
    return str(report.verdict)


@task
def publish(pipeline: str, run: str, date: str, verdict: str, *, outlet_events: Any = None) -> None:
    """Make the run the live release, and tell downstream DAGs which one it is.

    A run that is older than the live release is kept and not served: then nothing was published, and nobody is told.
    """
    published = json.loads(_run_job("publish", *_stage(pipeline, run, date)))
    if published["outcome"] == "archived":
        raise AirflowSkipException(f"release {published['release']} is older than the live one: kept, not served")
    told = {
        "pipeline": pipeline,
        "date": date,
        "verdict": verdict,
        "path": str(_settings().store / pipeline / "runs" / run),
    }
    outlet_events[_release(pipeline)].extra = {**told, **published}


@task
def smoke(pipeline: str, run: str, date: str) -> None:
    """Read the release back as a service does."""
    _run_job("smoke", *_stage(pipeline, run, date))


def _spark_task(declared: DeclaredPipeline, stage: str) -> SparkSubmitOperator:
    return SparkSubmitOperator(
        task_id=stage,
        application=str(_JOBS / f"{stage}.py"),
        name=f"{stage} {declared.name}",
        application_args=_stage(declared.name, _RUN_ID, _DATE),
        conn_id="spark_default",
        env_vars=_environment(),
        properties_file=str(spark_conf_file()),
    )


def scoring_dag(declared: DeclaredPipeline) -> DAG:
    """The DAG of one pipeline."""
    pipeline, name = declared.pipeline, declared.name
    day = Param(
        None, type=["null", "string"], pattern=r"^\d{4}-\d{2}-\d{2}$", description="Run for another logical date."
    )
    with DAG(
        dag_id=f"almanac_{name}",
        description=pipeline.description,
        doc_md=f"## {name}\n\n{pipeline.description}\n\nOwner: {pipeline.owner}",
        schedule=pipeline.schedule,
        start_date=dt.datetime.combine(pipeline.start, dt.time(), dt.UTC),
        catchup=False,
        max_active_runs=1,
        tags={"almanac", *pipeline.tags},
        default_args={"owner": pipeline.owner, **_RETRIES},
        params={"date": day},
    ) as dag:
        checked = check_inputs(name, _DATE)
        score, verify = (_spark_task(declared, stage) for stage in ("score", "verify"))
        passed: Any = gate(name, _RUN_ID)
        published = publish.override(outlets=[_release(name)])(name, _RUN_ID, _DATE, passed)
        checked >> score >> verify >> passed >> published >> smoke(name, _RUN_ID, _DATE)
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
