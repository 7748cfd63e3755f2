"""One Airflow DAG for all declared pipelines: a task each that removes what is too old, and mends Redis."""

import datetime as dt
import logging
import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from schemas.asking import parameter_problem
from schemas.declared import pipeline_folders
from schemas.jobcall import call_job
from schemas.pipeline import MAINTENANCE
from schemas.settings import Settings

logger = logging.getLogger(__name__)

_DOC = """
Each task runs `almanac maintain` for one pipeline: what its `retention` does not keep is removed from the store, and
Redis is compared with the release log. With the parameter `dry_run` it is only told, in the task's log and its XCom.
"""
_PARAMS = {"dry_run": Param(False, type="boolean", description="Tell what would be done, and change nothing.")}


def _settings() -> Settings:
    environ = {"ALMANAC_PIPELINES": str(Path(__file__).parent), **os.environ}
    return Settings.from_environment(environ)


@task
def maintain(pipeline: str, *, params: Any = None, dag_run: Any = None) -> str:
    """What was done, or would be, as JSON."""
    if problem := parameter_problem(dag_run.conf or {}, {name: params[name] for name in _PARAMS}):
        raise AirflowFailException(problem)
    dry_run = ["--dry-run"] if params["dry_run"] else []
    ended = call_job(_settings(), "maintain", "--pipeline", pipeline, *dry_run, log=logger.info)
    return ended.result(final=AirflowFailException, retried=AirflowException)


with DAG(
    dag_id=f"almanac_{MAINTENANCE}",
    description="Removes what is too old, and mends what Redis has that the store does not say.",
    doc_md=_DOC,
    schedule="@daily",
    start_date=dt.datetime(2000, 1, 1, tzinfo=dt.UTC),
    catchup=False,
    max_active_runs=1,
    max_active_tasks=1,  # nobody waits for it: it is no load beside the pipelines' own tasks
    tags={"almanac"},
    default_args={
        "owner": "almanac",
        "retries": 2,
        "retry_delay": dt.timedelta(minutes=10),
        "execution_timeout": dt.timedelta(hours=4),
    },
    params=_PARAMS,
) as dag:
    # Of the folders' names alone: a declaration that cannot be read fails its own task, and no other.
    for _folder in pipeline_folders(_settings()):
        maintain.override(task_id=_folder.name)(_folder.name)
