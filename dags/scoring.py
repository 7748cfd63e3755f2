"""One Airflow DAG a declared pipeline: check_inputs >> score >> verify >> gate >> publish >> smoke."""

import datetime as dt
import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import (  # type: ignore[attr-defined]  # they are there at run time, and not in its stub
    DAG,
    Asset,
    AssetOrTimeSchedule,
    BaseHook,
    CronTriggerTimetable,
    DeadlineAlert,
    DeadlineReference,
    Param,
    SyncCallback,
    task,
)
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from schemas.asking import logical_date, parameter_forms, parameter_problem, parameters_argument
from schemas.declared import PIPELINE_FILE, DeclaredPipeline
from schemas.dependencies import read_pipelines
from schemas.describing import described
from schemas.errors import AlmanacError, DeclarationError, Problem, bounded
from schemas.jobcall import NO_RETRY, call_job, job_environment, job_file
from schemas.pipeline import Pipeline
from schemas.run import OVERRIDE_FILE, REPORT_FILE
from schemas.settings import Settings, spark_conf_file

if TYPE_CHECKING:
    from schemas.report import Override, Report

logger = logging.getLogger(__name__)

_RUN_ID = "{{ ti.xcom_pull(task_ids='check_inputs') }}"
_DATE = "{{ ti.xcom_pull(task_ids='check_inputs')[:10] }}"  # a run id begins with its date
_MAX_RETRY_DELAY = dt.timedelta(minutes=30)
_MASTER = re.compile(r"local(\[.+\])?|spark://[^,]+:\d+(,.+)*|yarn|k8s://.+")
_EXIT_CODE = re.compile(r"Error code is: (\d+)")  # the one trace that the Spark provider leaves of it
_PARAMS = {
    "date": Param(
        None, type=["null", "string"], pattern=r"^\d{4}-\d{2}-\d{2}$", description="Run for another logical date."
    ),
    "dry_run": Param(False, type="boolean", description="Score and verify, and publish nothing."),
    "override_checks": Param(
        [], type="array", items={"type": "string"}, description="Names of all checks that failed, to let the run pass."
    ),
    "override_reason": Param(None, type=["null", "string"], description="Why the run is right all the same; kept."),
}


def _settings() -> Settings:
    environ = {"ALMANAC_PIPELINES": str(Path(__file__).parent), **os.environ}
    return Settings.from_environment(environ)


def _run_job(name: str, *arguments: str) -> str:
    """Run a job that needs no Spark and return the last line it printed.

    Raises:
        AirflowFailException: a retry would end the same way.
        AirflowException: a retry may help.
    """
    ended = call_job(_settings(), name, *arguments, log=logger.info)
    return ended.result(final=AirflowFailException, retried=AirflowException)


def _release(pipeline: str) -> Asset:
    """The asset that downstream DAGs are triggered by."""
    return Asset(name=f"almanac_{pipeline}", uri=f"almanac://release/{pipeline}")


def _stage(pipeline: str, run: str, date: str, names: Iterable[str] = ()) -> list[str]:
    return ["--pipeline", pipeline, "--date", date, "--run-id", run, *parameters_argument(names)]


@task
def check_inputs(
    pipeline: str,
    own: Sequence[str] = (),
    *,
    params: Any = None,
    dag_run: Any = None,
    triggering_asset_events: Any = None,
) -> str:
    """The run id, which pins what every later stage works on, and begins with its date."""
    # Of the DAG's own names: Airflow puts those that it does not know among `params` too.
    if problem := parameter_problem(dag_run.conf or {}, {name: params[name] for name in (*_PARAMS, *own)}):
        raise AirflowFailException(problem)
    updates = [event.extra for events in (triggering_asset_events or {}).values() for event in events]
    date = logical_date(params["date"], updates, dag_run.logical_date or dag_run.run_after)
    given = [f"--parameters={json.dumps({name: params[name] for name in own})}"] if own else []
    return _run_job("check", "--pipeline", pipeline, "--date", date, *given)


def _verdict(pipeline: str, run: str) -> "tuple[Report, Override | None]":
    from schemas.report import Override, Report  # for this task alone: the file is parsed again and again

    path = _settings().store / pipeline / "runs" / run / REPORT_FILE
    try:
        report = Report.model_validate_json(path.read_bytes())
        kept = path.with_name(OVERRIDE_FILE)
        return report, Override.model_validate_json(kept.read_bytes()) if kept.is_file() else None
    except (OSError, ValueError) as err:
        raise AirflowFailException(f"no readable report at {path}: {err}") from err


@task
def gate(pipeline: str, run: str, *, params: Any = None, dag_run: Any = None) -> str:
    """Stop a run that failed: SparkSubmitOperator cannot tell a verdict from a crash, so this task does.

    A verdict is never retried; a gate whose worker was lost is.
    """
    report, override = _verdict(pipeline, run)
    if params["override_checks"] and not report.lets_through(override):
        by = getattr(dag_run, "triggering_user_name", None) or "nobody named"
        reason = f"{params['override_reason'].strip()} (Airflow run {dag_run.run_id}, triggered by {by})"
        checks = [f"--check={name}" for name in params["override_checks"]]
        _run_job("override", "--pipeline", pipeline, "--run-id", run, *checks, f"--reason={reason}")
        report, override = _verdict(pipeline, run)
    if report.run_id != run or not report.lets_through(override):
        failed = [f"{check.name}: {check.observed}; expected {check.expected}" for check in report.failures]
        raise AirflowFailException("\n".join(bounded([f"{pipeline} run {run} is blocked", *failed])))
    return str(report.verdict)


@task
def publish(pipeline: str, run: str, verdict: str, *, params: Any = None, outlet_events: Any = None) -> None:
    """Make the run the live release, and tell downstream DAGs which one it is.

    A run that is older than the live release is kept and not served: then nothing was published, and nobody is told.
    """
    if params["dry_run"]:
        raise AirflowSkipException(f"dry run: {run} passed with {verdict}, and is not published")
    published = json.loads(_run_job("publish", *_stage(pipeline, run, run[:10])))
    if published["outcome"] == "archived":
        raise AirflowSkipException(f"release {published['release']} is older than the live one: kept, not served")
    told = {
        "pipeline": pipeline,
        "date": run[:10],
        "verdict": verdict,
        "path": str(_settings().store / pipeline / "runs" / run),
    }
    outlet_events[_release(pipeline)].extra = {**told, **published}


@task
def smoke(pipeline: str, run: str) -> None:
    """Read the release back as a service does."""
    _run_job("smoke", *_stage(pipeline, run, run[:10]))


class SparkStage(SparkSubmitOperator):
    """spark-submit that refuses a connection which Airflow would take for YARN, and retries only what a retry mends."""

    def execute(self, context: Any) -> None:
        """Submit the stage, and wait for its end."""
        self._refuse_connection()
        try:
            super().execute(context)
        except AirflowException as err:
            if (found := _EXIT_CODE.search(str(err))) and int(found[1]) in NO_RETRY:
                raise AirflowFailException(f"{self.task_id} cannot go on: its reasons are in the log above") from err
            raise

    def _refuse_connection(self) -> None:
        name = self._conn_id
        expected = f"one named in AIRFLOW_CONN_{name.upper()} or made by `airflow connections add {name}`"
        try:
            BaseHook.get_connection(name)
        except (AirflowException, ValueError) as err:
            raise AirflowFailException(f"connection '{name}': not found or not readable; expected {expected}") from err
        try:
            master = self._get_hook()._connection["master"]
        except NameError as err:  # the provider's own way to say so
            package = "apache-airflow-providers-cncf-kubernetes"
            raise AirflowFailException(f"connection '{name}': for k8s:// Airflow needs the package {package}") from err
        if not _MASTER.fullmatch(master):
            known = "local[N], spark://HOST:PORT, yarn or k8s://..."
            raise AirflowFailException(f"connection '{name}': its master is '{master}'; expected {known}")


def _spark_stage(declared: DeclaredPipeline, stage: str) -> SparkStage:
    settings = _settings()
    return SparkStage(
        task_id=stage,
        application=str(job_file(stage)),
        name=f"{stage} {declared.name}",
        application_args=_stage(declared.name, _RUN_ID, _DATE, declared.pipeline.parameters),
        conn_id=declared.pipeline.airflow.conn_id,
        pool=declared.pipeline.airflow.pool,
        env_vars=job_environment(settings),
        properties_file=str(spark_conf_file()),
    )


def tell_late(pipeline: str, minutes: float, context: Any) -> None:
    """What is done at a missed deadline unless `ALMANAC_ON_LATE` names something else: say so in the log."""
    run = context["dag_run"]["dag_run_id"]
    logger.error(
        "%s: run %s has not ended %g minutes after it was queued; readers have what was live", pipeline, run, minutes
    )


def _deadline(pipeline: Pipeline) -> DeadlineAlert | None:
    minutes = pipeline.airflow.deadline_minutes
    if minutes is None:
        return None
    # Not by the logical date: a run that was triggered by hand or by an asset has none, and a backfill's is long ago.
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=dt.timedelta(minutes=minutes),
        callback=SyncCallback(
            os.environ.get("ALMANAC_ON_LATE") or tell_late, {"pipeline": pipeline.pipeline, "minutes": minutes}
        ),
    )


def _inputs(pipeline: Pipeline) -> list[Any]:
    """The assets that a run waits for: of sources by the name that their own DAG gives them, and of other pipelines."""
    sources = [Asset.ref(name=name) for name in pipeline.airflow.assets.values()]
    return [*sources, *(_release(name) for name in pipeline.airflow.after)]


def _schedule(pipeline: Pipeline) -> Any:
    inputs = _inputs(pipeline)
    if not inputs or pipeline.schedule is None:
        return inputs or pipeline.schedule
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(pipeline.schedule, timezone="UTC"), assets=inputs)


def _default_args(pipeline: Pipeline) -> dict[str, Any]:
    told = pipeline.airflow
    return {
        "owner": pipeline.owner,
        "retries": told.retries,
        "retry_delay": dt.timedelta(minutes=told.retry_delay_minutes),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": _MAX_RETRY_DELAY,
        "execution_timeout": dt.timedelta(minutes=told.execution_timeout_minutes),
    }


def _midnight(day: dt.date | None) -> dt.datetime | None:
    return dt.datetime.combine(day, dt.time(), dt.UTC) if day else None


def scoring_dag(declared: DeclaredPipeline) -> DAG:
    """The DAG of one pipeline."""
    pipeline, name = declared.pipeline, declared.name
    with DAG(
        dag_id=f"almanac_{name}",
        description=pipeline.description,
        doc_md=described(pipeline),
        schedule=_schedule(pipeline),
        start_date=_midnight(pipeline.start),
        end_date=_midnight(pipeline.airflow.end_date),
        catchup=False,
        max_active_runs=1,
        tags={"almanac", *pipeline.tags},
        default_args=_default_args(pipeline),
        params=_PARAMS | {name: Param(**form) for name, form in parameter_forms(pipeline).items()},
        deadline=_deadline(pipeline),
    ) as dag:
        own = [[*pipeline.parameters]] if pipeline.parameters else []
        checked = check_inputs.override(inlets=_inputs(pipeline))(name, *own)
        score, verify = (_spark_stage(declared, stage) for stage in ("score", "verify"))
        passed: Any = gate(name, _RUN_ID)
        # A backfill runs beside a schedule whatever max_active_runs says: these two then go one after the other.
        alone = {"max_active_tis_per_dag": 1}
        published = publish.override(outlets=[_release(name)], **alone)(name, _RUN_ID, passed)
        checked >> score >> verify >> passed >> published >> smoke.override(**alone)(name, _RUN_ID)
    dag.validate()  # type: ignore[no-untyped-call]
    return dag


def broken_dag(name: str, error: str) -> DAG:
    """A DAG that fails with what is wrong: a folder that cannot be read must not take the others' DAGs with it."""
    with DAG(
        dag_id=f"almanac_{name}",
        schedule="@daily",
        start_date=dt.datetime(2000, 1, 1, tzinfo=dt.UTC),
        catchup=False,
        tags={"almanac", "broken"},
        doc_md=f"## {name}\n\nThe declaration cannot be scheduled:\n\n```\n{error}\n```",
    ) as dag:

        @task
        def read_declaration() -> None:
            raise AirflowFailException(error)

        read_declaration()
    return dag


def _dag(name: str, found: DeclaredPipeline | DeclarationError) -> DAG:
    if isinstance(found, DeclarationError):
        return broken_dag(name, str(found))
    try:
        return scoring_dag(found)
    except (AirflowException, AlmanacError, ValueError) as err:  # what Airflow does not take: a schedule, a long tag
        where = f"{name}/{PIPELINE_FILE}: Airflow's part"
        is_ours = isinstance(err, AlmanacError)
        return broken_dag(name, str(err) if is_ours else str(Problem("CFG_INVALID", where, str(err))))


for _name, _found in read_pipelines(_settings()).items():
    globals()[f"almanac_{_name}"] = _dag(_name, _found)
