"""The Spark session: configured from spark-conf/, unless spark-submit did it already."""

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import DeclarationError, Problem

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

SPARK_LOG = "spark.log"
_MINIMUM_JAVA = 17
# The folder is beside jobs/ in a checkout and inside it in a wheel.
_CONF_FOLDERS = (Path(__file__).parent.parent / "spark-conf", Path(__file__).parent / "_spark_conf")


def spark_session(name: str, *, log: Path | None = None) -> "SparkSession":
    """A session for one run: its own temporary views, on the process's one Spark context.

    Args:
        name: Of the application.
        log: Where what Spark's JVM says goes, so that a page for people stays readable; else to standard error.

    Raises:
        DeclarationError: Java is missing or too old, or the settings file is not there.
    """
    _check_java()
    # Python workers must be this interpreter, and no socket may leave the machine where Spark runs on it alone.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("SPARK_CONF_DIR", str(next(folder for folder in _CONF_FOLDERS if folder.is_dir())))
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(name)
    submitted = SparkConf().get("spark.master") is not None  # spark-submit passes its settings on
    if not submitted and SparkSession.getActiveSession() is None:
        for key, value in _properties(os.environ.get("ALMANAC_SPARK_CONF", "local")).items():
            builder = builder.config(key, value)
    with _standard_error_to(log):
        session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session.newSession()


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


def _properties(place: str) -> dict[str, str]:
    """The settings of `spark-conf/<place>.properties`, or of a file given by its path."""
    candidates = [Path(place)] if "/" in place else [folder / f"{place}.properties" for folder in _CONF_FOLDERS]
    for path in candidates:
        if path.is_file():
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            pairs = (re.split(r"[\s=:]+", line, maxsplit=1) for line in lines if line and not line.startswith("#"))
            return dict(pairs)
    raise DeclarationError(
        Problem(
            "CFG_SPARK_CONF",
            "ALMANAC_SPARK_CONF",
            f"no such settings: {place}",
            "local, standalone, yarn, kubernetes or a path",
        )
    )


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
