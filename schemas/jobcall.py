"""How a scheduler calls a job: as a process, with these variables; what it printed, and whether a retry can help."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from schemas.errors import bounded
from schemas.settings import Settings

NO_RETRY = (2, 3)  # a wrong declaration or input, a failed gate: the next try would see the same
# How a job writes a line of its error (jobs/logs.py), plain or as JSON.
_ERROR = re.compile(r" ERROR almanac(?: \[[^\]]*\])?: (.*)")


class Ended(NamedTuple):
    """A job that ended.

    Attributes:
        line: The last line that it printed: its result.
        reasons: The lines of its error.
    """

    name: str
    code: int
    line: str
    reasons: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether a retry would end the same way."""
        return self.code in NO_RETRY

    def result(self, *, final: type[Exception], retried: type[Exception]) -> str:
        """The line that it printed.

        Args:
            final: Raised where it failed and a retry would end the same way.
            retried: Raised where one may help.
        """
        if self.code == 0:
            return self.line
        raise (final if self.is_final else retried)(str(self))

    def __str__(self) -> str:
        return "\n".join(bounded(self.reasons)) or f"{self.name} ended with exit code {self.code}; see the log above"


def job_file(name: str) -> Path:
    """The program of a job. It is found, not imported: the jobs bring Spark with them."""
    spec = find_spec("jobs")
    assert spec is not None  # noqa: S101  # it is installed with this package
    assert spec.submodule_search_locations is not None  # noqa: S101
    return Path(spec.submodule_search_locations[0]) / f"{name}.py"


def job_environment(settings: Settings) -> dict[str, str]:
    """What a job needs to find the same pipelines, store and sources as its caller.

    Not the address of Redis: Airflow shows a task's variables, it may hold a password, and Spark has no use for it.
    """
    found = {"ALMANAC_PIPELINES": str(settings.pipelines), "ALMANAC_STORE": str(settings.store)}
    ours = {name: value for name, value in os.environ.items() if name.startswith("ALMANAC_")}
    return {name: value for name, value in (ours | found).items() if name != "ALMANAC_REDIS_URL"}


def call_job(settings: Settings, name: str, *arguments: str, log: Callable[[str], None]) -> Ended:
    """Run a job that needs no Spark of its own to its end; it ends with this process where that is stopped.

    Args:
        settings: Of the caller, passed on.
        name: Of the file in `jobs/`.
        arguments: Of its command line.
        log: Told of every line that it writes to standard error, at once.
    """
    command = [sys.executable, str(job_file(name)), *arguments]
    reasons = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        with subprocess.Popen(
            command, env={**os.environ, **job_environment(settings)}, stdout=out, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                for line in process.stderr or ():
                    log(line.rstrip())
                    reasons += _reason(line.rstrip())
            except BaseException:  # a timeout or a stop of the caller: the job must not outlive it
                process.kill()
                raise
        out.seek(0)
        printed = out.read().strip().rpartition("\n")[2]
    return Ended(name, process.returncode, printed, tuple(reasons))


def _reason(line: str) -> list[str]:
    """What a log line says of the job's error; nothing where it says another thing."""
    if found := _ERROR.search(line):
        return [found[1]]
    if line.startswith("{"):
        with suppress(ValueError):
            told = json.loads(line)
            if (told.get("level"), told.get("logger")) == ("ERROR", "almanac"):
                return [str(told["message"])]
    return []
