"""A run of Airflow's own schedule whose worker is killed in each stage: one release comes of it, and it is whole."""

import datetime as dt
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psutil
import pyarrow.parquet as pq
import pytest

from jobs.airflow_api import AirflowApi
from jobs.localairflow import environment, running_airflow
from lookup.connect import connect
from lookup.embedded import free_port
from lookup.reader import Reader
from lookup.store import Store
from lookup.table import RedisTable
from schemas.release import ReleaseState
from schemas.run import FEATURES, PREDICTIONS, PRIORS, QUARANTINE
from schemas.settings import Settings
from tests.e2e.conftest import BIN
from tests.flights import rewrite

pytestmark = [pytest.mark.airflow, pytest.mark.spark, pytest.mark.e2e]

PIPELINE, DAG = "flight_delay", "almanac_flight_delay"
DAGS = Path(__file__).parent.parent.parent / "dags"
# A tick of a yearly schedule that is some hours old is made up for; the data of 2013 is given these days.
DAY = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
FIRST = dt.date(2013, 1, 5)
SECONDS = 300.0
_QUICK = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",  # 300 by itself: so long a lost worker is waited for
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",  # nobody changes the file meanwhile
}

Moment = Callable[[psutil.Process, Path], object]


def _program(name: str) -> Moment:
    """The moment when the task has started this job."""
    return lambda task, _: [one for one in _below(task) if any(part.endswith(f"jobs/{name}.py") for part in _line(one))]


def _file(pattern: str) -> Moment:
    """The moment when there is such a file in the pipeline's folder of the store."""
    return lambda _, folder: next(folder.glob(pattern), None)


# What of each stage has been done when its first try is killed.
STAGES: dict[str, Moment] = {
    "check_inputs": _program("check"),
    "score": _file("runs/.staging-*/predictions"),
    "verify": _file("runs/*/data_docs"),
    "gate": lambda *_: True,
    "publish": _file("releases/00000001.json"),  # committed, and served by nobody yet
    "smoke": _program("smoke"),
}


def _below(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def _line(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):
        return list(process.cmdline())
    return []


def wait_for(what: str, look: Callable[[], Any], *, pause: float = 0.002) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(pause)
    return found


def task_process(task_id: str) -> psutil.Process | None:
    """The process that runs a task, below the scheduler's worker."""
    titles = ((one, " ".join(_line(one)).strip()) for one in _below(psutil.Process()))
    return next((one for one, title in titles if title == f"airflow worker -- {task_id}"), None)


def kill(*processes: psutil.Process) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


class Told(NamedTuple):
    """What came of the scheduled run, and what is left of it."""

    run: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    tries: dict[str, list[str]]
    events: list[dict[str, Any]]
    settings: Settings

    @property
    def store(self) -> Store:
        return Store(self.settings.store, PIPELINE)


@pytest.fixture(scope="module")
def settings(trained_workspace: Path, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The small trained pipeline, scheduled once a year, with the days of 2013 as those from `DAY` on."""
    root = tmp_path_factory.mktemp("scheduler") / "team"
    shutil.copytree(trained_workspace, root)
    shutil.copy(DAGS / "scoring.py", root / "dags")
    for source in ("flights", "weather"):
        for days in map(dt.timedelta, range(7)):
            folder = root / "data" / source
            shutil.copytree(folder / f"date={FIRST + days}", folder / f"date={DAY + days}")
    path = root / "dags" / PIPELINE / "pipeline.yaml"
    rewrite(path, ('schedule: "@daily"', f'schedule: "0 0 {DAY.day} {DAY.month} *"'))
    quick = "airflow: {retries: 3, retry_delay_minutes: 0.01}\n"
    path.write_text(path.read_text().partition("\nairflow:")[0] + f"\n{quick}")
    with connect(redis_server) as client:
        client.flushall()
    return Settings(pipelines=root / "dags", store=root / "store", redis_url=redis_server)


@pytest.fixture(scope="module")
def airflow(settings: Settings) -> Iterator[AirflowApi]:
    """Scheduler, DAG processor and API server, with these pipelines."""
    port = free_port()
    environ = environment(settings, settings.root / "airflow", port) | _QUICK
    environ["PATH"] = f"{BIN}:{environ['PATH']}"
    kept = {name: value for name, value in environ.items() if not name.startswith("COVERAGE_")}
    with running_airflow(kept, port) as password:
        yield AirflowApi(port, password)


@pytest.fixture(scope="module")
def told(airflow: AirflowApi, settings: Settings) -> Told:
    """The scheduled run, to its end; the first try of each of its tasks is killed."""
    airflow.wait_for_dag(DAG)
    airflow.ask("PATCH", f"/dags/{DAG}", {"is_paused": False})
    runs = wait_for("a run", lambda: airflow.ask("GET", f"/dags/{DAG}/dagRuns")["dag_runs"], pause=0.5)
    run = f"/dags/{DAG}/dagRuns/{quote(runs[0]['dag_run_id'])}"
    tasks = wait_for("its tasks", lambda: airflow.ask("GET", f"{run}/taskInstances")["task_instances"], pause=0.5)
    ids, orphans = {task["task_id"]: task["id"] for task in tasks}, []
    for stage in STAGES:
        orphans += kill_first_try(stage, ids[stage], settings.store / PIPELINE)
    wait_for("its end", lambda: airflow.ask("GET", run)["state"] in ("success", "failed"), pause=0.5)
    for orphan in psutil.wait_procs(orphans, timeout=60)[1]:
        kill(orphan)

    ended = airflow.ask("GET", f"{run}/taskInstances")["task_instances"]
    return Told(
        run=airflow.ask("GET", run),
        tasks={task["task_id"]: task for task in ended},
        tries={
            stage: [one["state"] for one in airflow.ask("GET", f"{run}/taskInstances/{stage}/tries")["task_instances"]]
            for stage in STAGES
        },
        events=airflow.ask("GET", f"/assets/events?source_dag_id={DAG}")["asset_events"],
        settings=settings,
    )


def kill_first_try(stage: str, task_id: str, folder: Path) -> list[psutil.Process]:
    """Kill what runs the task, at its moment, with all that it started.

    Of `score` the worker above it is killed too, and not what it started: nobody tells Airflow, and the next try begins
    beside the Spark that is left, or behind it. That is returned.
    """
    task = wait_for(f"{stage}'s process", lambda: task_process(task_id))
    worker = task.parent()
    wait_for(f"{stage}'s moment", lambda: STAGES[stage](task, folder) or not task.is_running())
    started = _below(task)
    if stage == "score":
        kill(worker, task)
        return started
    kill(task, *started)
    return []


def test_the_schedule_started_the_run_and_it_succeeded(told: Told) -> None:
    assert (told.run["run_type"], told.run["state"]) == ("scheduled", "success")
    assert told.run["logical_date"] == told.run["data_interval_end"] == f"{DAY}T00:00:00Z"
    assert {name: task["state"] for name, task in told.tasks.items()} == dict.fromkeys(STAGES, "success")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_whose_worker_was_killed_is_tried_again_and_succeeds(told: Told, stage: str) -> None:
    states = told.tries[stage]

    assert (states[0], states[-1]) == ("failed", "success")


def test_of_six_kills_there_is_one_release_and_every_file_of_it_is_whole(told: Told) -> None:
    (release,) = told.store.releases()

    assert (release.number, str(release.date), release.state) == (1, str(DAY), ReleaseState.LIVE)
    assert told.store.damage(told.store.verified(release.run_id), PREDICTIONS, FEATURES, QUARANTINE, PRIORS) == []


def test_the_head_is_of_that_release_and_the_table_has_every_row_of_it(told: Told) -> None:
    (release,) = told.store.releases()
    ids = pq.read_table(told.store.run_folder(release.run_id) / PREDICTIONS, columns=["entity_id"])[0].to_pylist()

    with connect(str(told.settings.redis_url)) as client:
        head = RedisTable(client, PIPELINE).head()
        answers = Reader(client, PIPELINE).lookup(ids)[1]

    assert head is not None
    assert (head.run_id, head.release) == (release.run_id, 1)
    assert len(ids) == 7 * 60
    assert {(str(answer.status), answer.release) for answer in answers} == {("exact", 1)}


def test_others_are_told_of_it_once(told: Told) -> None:
    (release,) = told.store.releases()
    (event,) = told.events

    assert (event["extra"]["release"], event["extra"]["run_id"]) == (1, release.run_id)
    assert event["extra"]["date"] == str(DAY)
