"""A local Airflow with the declared pipelines, for `make airflow`: starts it, says where it is, stops it at Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lookup.embedded import free_port, redis_url
from schemas.errors import Problem, UnavailableError
from schemas.settings import Settings

_START_SECONDS = 90
_STOP_SECONDS = 20
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
        UnavailableError: one of its processes ended, or it is not healthy in time.
    """
    home = Path(environ["AIRFLOW_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    subprocess.run(["airflow", "db", "migrate"], env=environ, check=True, capture_output=True)
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
        _stop(processes)


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


def _stop(processes: list["subprocess.Popen[bytes]"]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with suppress(ProcessLookupError):  # its group too: workers outlive a scheduler that is killed
                os.killpg(process.pid, number)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))


def main() -> None:
    settings, port = Settings.from_environment(), free_port()
    environ = environment(settings, settings.store / "airflow", port)
    with running_airflow(environ, port) as password:
        sys.stdout.write(
            f"Airflow is at http://127.0.0.1:{port}, user admin, password {password}\n"
            'A first run: trigger almanac_flight_delay with the configuration {"date": "2013-07-01"}.\n'
            "Ctrl-C stops it.\n"
        )
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            signal.pause()
    sys.stdout.write("Airflow has stopped; its database and logs are kept for the next time.\n")


if __name__ == "__main__":
    main()
