"""The Spark session: configured from spark-conf/, unless spark-submit did it already."""

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import DeclarationError, Problem, UnavailableError
from schemas.settings import spark_conf_file

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

SPARK_LOG = "spark.log"
# What a query means, and so the bytes of a prediction, wherever it runs and whoever submitted it.
_MEANING = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
}
_MINIMUM_JAVA = 17
_WAIT, _WAIT_SECONDS = "spark.almanac.executorWaitSeconds", 300


def spark_session(name: str, *, log: Path | None = None) -> "SparkSession":
    """A session for one run: its own temporary views, on the process's one Spark context.

    Args:
        name: Of the application.
        log: Where what Spark's JVM says goes, so that a page for people stays readable; else to standard error.

    Raises:
        DeclarationError: Java is missing or too old, or the settings file is not there.
        UnavailableError: Spark did not start, or no executor came in time.
    """
    _check_java()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(name)
    # spark-submit has started the JVM, with its own settings, and tells its port; they are not ours to change.
    if "PYSPARK_GATEWAY_PORT" not in os.environ and SparkSession.getActiveSession() is None:
        conf = spark_conf_file()
        os.environ.setdefault("SPARK_CONF_DIR", str(conf.parent))  # log4j2.properties lies beside it
        properties = _properties(conf)
        if properties.get("spark.master", "").startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # else Spark listens on the machine's outward address
        for key, value in properties.items():
            builder = builder.config(key, value)
    with _standard_error_to(log), _starting():
        session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    _await_executor(session)
    return own_session(session)


def own_session(session: "SparkSession") -> "SparkSession":
    """A session with temporary views and settings of its own, on the same context."""
    own = session.newSession()
    for key, value in _MEANING.items():
        own.conf.set(key, value)
    return own


@contextmanager
def _starting() -> Iterator[None]:
    """Turn what keeps Spark from starting into one line."""
    from py4j.protocol import Py4JJavaError

    try:
        yield
    except Py4JJavaError as err:
        found = str(err.java_exception.toString()).splitlines()[0]
        expected = "a master that answers, and settings that Spark takes; its log says more"
        raise UnavailableError(Problem("SPARK_START", "Spark", found, expected)) from err


def _await_executor(session: "SparkSession") -> None:
    """Return once there is an executor: Spark itself would wait for one for ever, with a warning now and then.

    Raises:
        UnavailableError: there is none within `spark.almanac.executorWaitSeconds`.
    """
    context = session.sparkContext
    conf, master = context.getConf(), str(context.master)
    if master.startswith("local") or conf.get("spark.dynamicAllocation.enabled", "false") == "true":
        return
    limit = float(conf.get(_WAIT, str(_WAIT_SECONDS)))
    started = time.monotonic()
    # The driver is one of those that it counts.
    while context._jsc.sc().getExecutorMemoryStatus().size() < 2:
        if time.monotonic() - started > limit:
            expected = f"a worker with free cores and {conf.get('spark.executor.memory', '1g')} of memory"
            raise UnavailableError(
                Problem("SPARK_NO_EXECUTOR", master, f"no executor after {limit:g} s ({_WAIT})", expected)
            )
        time.sleep(0.2)


@contextmanager
def _standard_error_to(log: Path | None) -> Iterator[None]:
    """Let processes that start meanwhile, such as the JVM, write their standard error to `log`."""
    if log is None:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    saved = os.dup(2)
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _properties(path: Path) -> dict[str, str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(re.split(r"[\s=:]+", line, maxsplit=1) for line in lines if line and not line.startswith("#"))


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else None
    java = java or shutil.which("java")
    wanted = f"Java {_MINIMUM_JAVA} or newer (Debian: apt-get install openjdk-17-jre-headless)"
    if java is None:
        raise DeclarationError(Problem("ENV_JAVA", "PATH", "no java", wanted))
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', text)
    if not version or int(version[1]) < _MINIMUM_JAVA:
        raise DeclarationError(Problem("ENV_JAVA", java, text.splitlines()[0] if text else "no answer", wanted))
