"""A local Airflow with the declared pipelines: API server, scheduler and DAG processor on loopback, stopped whole."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from jobs.airflow_pools import check_pools, require_airflow
from lookup.embedded import redis_url
from schemas.errors import Problem, UnavailableError
from schemas.settings import Settings

_START_SECONDS = 90
_STOP_SECONDS = 20
_KILL_SECONDS = 2
# The scheduler without its server of logs, which would listen on every address of the machine; so would `standalone`.
_PROCESSES = (("scheduler", "--skip-serve-logs"), ("dag-processor",), ("api-server",))
_PASSWORDS = "simple_auth_manager_passwords.json.generated"  # the name of Airflow's file


def environment(settings: Settings, home: Path, port: int) -> dict[str, str]:
    """What Airflow's processes are told: a database and logs under `home`, nothing beyond loopback."""
    url = f"http://127.0.0.1:{port}"
    return {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(settings.pipelines),
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "15",
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "ALMANAC_PIPELINES": str(settings.pipelines),
        "ALMANAC_STORE": str(settings.store),
        "ALMANAC_REDIS_URL": redis_url(settings.store, settings.redis_url),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


@contextmanager
def running_airflow(environ: dict[str, str], port: int) -> Iterator[str]:
    """The password of `admin`, while Airflow runs; all of its processes are stopped behind it.

    Raises:
        DeclarationError: Airflow is not installed, or lacks a pool that a pipeline names.
        UnavailableError: one of its processes ended, or it is not healthy in time.
    """
    home = Path(environ["AIRFLOW_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    _migrate(environ, home)
    check_pools(environ)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, *options in _PROCESSES:
            with (home / f"{name}.log").open("ab") as log:
                # A session of its own: what it forks is stopped with it.
                processes.append(
                    subprocess.Popen(
                        ["airflow", name, *options], env=environ, stdout=log, stderr=log, start_new_session=True
                    )
                )
        _await_health(processes, home, port)
        yield json.loads((home / _PASSWORDS).read_text())["admin"]
    finally:
        stop(processes)


def _migrate(environ: dict[str, str], home: Path) -> None:
    require_airflow(environ)
    log = home / "migrate.log"
    with log.open("ab") as file:
        ended = subprocess.run(["airflow", "db", "migrate"], env=environ, check=False, stdout=file, stderr=file)
    if ended.returncode:
        found = f"db migrate ended with exit code {ended.returncode}"
        raise UnavailableError(Problem("ENV_AIRFLOW", "airflow", found, f"its reasons are in {log}"))


def _await_health(processes: list["subprocess.Popen[bytes]"], home: Path, port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            break
        with (
            suppress(OSError, ValueError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=5) as answer,
        ):
            parts = json.load(answer)
            if all(parts[name]["status"] == "healthy" for name in ("metadatabase", "scheduler", "dag_processor")):
                return
        time.sleep(0.5)
    found, expected = f"not healthy after {_START_SECONDS} s, or ended", f"its reasons are in {home}/*.log"
    raise UnavailableError(Problem("ENV_AIRFLOW", "airflow", found, expected))


def stop(processes: list["subprocess.Popen[bytes]"], *, seconds: float = _STOP_SECONDS) -> None:
    """Stop these and all that they started: a task is in a process group of its own, and with it its Spark.

    Args:
        processes: Children of this process.
        seconds: That all of them have to end by themselves.
    """
    family: dict[int, psutil.Process] = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(process.pid)
            family |= {each.pid: each for each in (found, *found.children(recursive=True))}
    # All at once: a scheduler that is told alone waits for its tasks to end.
    for one in family.values():
        with suppress(psutil.NoSuchProcess):
            one.terminate()
    alive = psutil.wait_procs(family.values(), timeout=seconds)[1]
    for one in alive:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(alive, timeout=_KILL_SECONDS)
    for process in processes:
        process.wait()
