"""A local Airflow that cannot start says why; one that is stopped leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from jobs.localairflow import environment, running_airflow, stop
from schemas.errors import AlmanacError
from schemas.settings import Settings

# A scheduler with a task in a process group of its own, whose Spark does not end when it is asked to.
_SCHEDULER = """
import subprocess, sys, time
task = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
with subprocess.Popen([sys.executable, "-c", task], process_group=0, stdout=sys.stdout) as process:
    process.wait()
"""

CANNOT_START = {
    "no Airflow": (None, r"PATH: no airflow; expected the extra almanac\[airflow\] \[ENV_AIRFLOW\]"),
    "no database": (
        "exit 3",
        r"airflow: db migrate ended with exit code 3; expected its reasons are in .*migrate\.log",
    ),
    "no scheduler": (
        '[ "$1" = db ]',
        r"airflow: not healthy after 90 s, or ended; expected its reasons are in .*\*\.log \[ENV_AIRFLOW\]",
    ),
}


@pytest.mark.parametrize("name", CANNOT_START)
def test_an_airflow_that_cannot_start_says_why(tmp_path: Path, name: str) -> None:
    script, told = CANNOT_START[name]
    programs = tmp_path / "bin"
    programs.mkdir()
    if script is not None:
        (programs / "airflow").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "airflow").chmod(0o755)
    settings = Settings(pipelines=tmp_path / "dags", store=tmp_path / "store", redis_url="redis://127.0.0.1:1/0")
    environ = environment(settings, tmp_path / "home", 1) | {"PATH": str(programs)}

    with pytest.raises(AlmanacError, match=told), running_airflow(environ, 1):
        pass


def test_what_is_stopped_takes_along_what_it_started_in_other_groups() -> None:
    with subprocess.Popen([sys.executable, "-c", _SCHEDULER], stdout=subprocess.PIPE, env=os.environ) as scheduler:
        assert scheduler.stdout is not None
        assert scheduler.stdout.readline() == b"ready\n"
        (task,) = psutil.Process(scheduler.pid).children()

        stop([scheduler], seconds=0.5)

        assert not task.is_running() or task.status() == psutil.STATUS_ZOMBIE  # nobody may be there to bury it
        assert scheduler.returncode is not None
