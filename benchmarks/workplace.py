"""A scratch folder like a team's own, and the real program run in it from outside."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.entities import Entities

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PIPELINE = "flight_delay"
DATES = ("2013-07-01", "2013-07-02")

_TIMEOUT_SECONDS = 300
# What make, an active environment or this machine's own set-up adds for its processes: no newcomer has it.
_OURS = ("ALMANAC_", "AIRFLOW_", "SPARK_", "PYSPARK_", "PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS")

Process = subprocess.Popen[bytes]
Meanwhile = Callable[[Process], object] | None


class MeasurementError(Exception):
    """A command that was to be measured failed."""


class Ended(NamedTuple):
    """A command that succeeded."""

    seconds: float
    out: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Workplace:
    """The folder of one `make bench`; what several figures need is made once, when the first asks for it."""

    def __init__(self, folder: Path, *, entities: int) -> None:
        self.folder = folder
        self.entity_count = entities

    @cached_property
    def entities(self) -> Entities:
        """Two staged runs of as many entities as were asked for."""
        return Entities(self.folder / "entities", self.entity_count)

    @cached_property
    def team(self) -> Path:
        """A team's folder: the declared pipeline, the DAG file and the demo data."""
        team = self.folder / "team"
        shutil.copytree(ROOT / "dags", team / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        run_command([BIN / "almanac", "demo-data"], cwd=team, environ=environment())
        return team

    @cached_property
    def trained(self) -> tuple[Path, float]:
        """A store that holds a bundle and nothing else, and the seconds of the training."""
        store = self.folder / "trained"
        return store, self.almanac("train", PIPELINE, "--json", store=store).seconds

    @contextmanager
    def store(self) -> Iterator[Path]:
        """A new store with the trained bundle; the Redis that a command starts for it is stopped."""
        store = Path(tempfile.mkdtemp(prefix="store-", dir=self.folder))
        shutil.copytree(self.trained[0], store, dirs_exist_ok=True)
        try:
            yield store
        finally:
            self.almanac("down", store=store)

    def almanac(
        self,
        *arguments: str,
        store: Path,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        codes: Container[int] = (0,),
        meanwhile: Meanwhile = None,
    ) -> Ended:
        """The command line, run in a fresh process in the team's folder."""
        environ = {**environment(), "ALMANAC_STORE": str(store)}
        return run_command(
            [BIN / "almanac", *arguments],
            cwd=self.team,
            environ=environ,
            timeout_seconds=timeout_seconds,
            codes=codes,
            meanwhile=meanwhile,
        )

    def run(self, date: str, *, store: Path, meanwhile: Meanwhile = None) -> Ended:
        """`almanac run` for a date."""
        return self.almanac("run", PIPELINE, "--date", date, "--json", store=store, meanwhile=meanwhile)


def environment() -> dict[str, str]:
    """The environment of a person who set nothing of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    path = [folder for folder in kept["PATH"].split(os.pathsep) if Path(folder) != BIN]
    return kept | {"PATH": os.pathsep.join(path)}


def run_command(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    environ: Mapping[str, str],
    timeout_seconds: float = _TIMEOUT_SECONDS,
    codes: Container[int] = (0,),
    meanwhile: Meanwhile = None,
) -> Ended:
    """Run a command in a session of its own; its seconds are those until its first process ends.

    Args:
        command: Program and arguments.
        cwd: The folder to run it in.
        environ: All of its environment.
        timeout_seconds: After which it is killed, with its process group.
        codes: Exit codes that are no failure.
        meanwhile: Called with the process while it runs.

    Raises:
        MeasurementError: it did not end with one of these exit codes in time.
    """
    # Files, not pipes: a pipe ends with the last process that holds it, which a person would not wait for.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, env=dict(environ), stdout=out, stderr=err, start_new_session=True)
        timer = threading.Timer(timeout_seconds, _kill, (process,))  # wait(timeout) would look every 50 ms only
        timer.start()
        try:
            if meanwhile:
                meanwhile(process)
            code = process.wait()
            seconds = time.perf_counter() - started
        finally:
            timer.cancel()
            _kill(process)
        words = [_text(out), _text(err)]
    if code not in codes:
        told = " | ".join("".join(words).strip().splitlines()[-5:])
        raise MeasurementError(f"{' '.join(map(str, command))}: exit code {code} after {seconds:.0f} s: {told[-600:]}")
    return Ended(round(seconds, 3), words[0])


def _kill(process: Process) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))
