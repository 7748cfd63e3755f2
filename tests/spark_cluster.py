"""A Spark standalone cluster of this machine, from pyspark's own package: a master and workers, all on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_LIMIT_SECONDS = 120
_CLASSES = "org.apache.spark.deploy"


@dataclass(frozen=True)
class Cluster:
    """Where its master is, and where its workers keep what their executors say."""

    url: str
    web: str
    work: Path

    def state(self) -> Any:
        with urllib.request.urlopen(f"{self.web}/json/", timeout=5) as page:  # noqa: S310  # ours
            return json.load(page)


@contextmanager
def spark_cluster(folder: Path, *, workers: int) -> Iterator[Cluster]:
    """A master and that many workers of one core each; all are stopped at the end."""
    port, web = free_port(), free_port()
    cluster = Cluster(f"spark://127.0.0.1:{port}", f"http://127.0.0.1:{web}", folder / "work")
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_daemon(folder, "master.Master", "--port", str(port), "--webui-port", str(web)))
        for _ in range(workers):
            options = ("--cores", "1", "--memory", "600m", "-d", str(cluster.work), cluster.url)
            started.append(_daemon(folder, "worker.Worker", "--webui-port", "0", *options))
        _wait_for(cluster, workers, folder)
        yield cluster
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def plain_environment() -> dict[str, str]:
    """This environment without what leads to our code: no PYTHONPATH, no settings of Almanac or Spark."""
    ours = ("ALMANAC_", "SPARK_", "PYSPARK_", "PYTHONPATH", "COVERAGE_", "OPENLINEAGE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "SPARK_LOCAL_IP": "127.0.0.1"}


def built_wheel(folder: Path) -> Path:
    """The wheel of this checkout, built into that folder."""
    built = subprocess.run(
        ["hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, env=plain_environment(), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("almanac-*.whl")
    return wheel


def python_without_us(folder: Path) -> Path:
    """A Python that has the packages of this environment, but not this project: what executors of a cluster have.

    A .pth file adds the folder of packages as a plain path; the .pth files in that folder, one of which leads to this
    checkout, are not read.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    packages, own = sysconfig.get_path("purelib"), next(folder.glob("lib/python*/site-packages"))
    libgomp = Path(sys.prefix) / "lib" / "libgomp.so.1"  # lent by the set-up where the machine has none
    lent = f"import ctypes; ctypes.CDLL({str(libgomp)!r})\n" if libgomp.exists() else ""
    (own / "packages.pth").write_text(f"{packages}\n{lent}")
    return folder / "bin" / "python"


def _daemon(folder: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    environ = plain_environment() | {
        "SPARK_DAEMON_MEMORY": "256m",
        # On by default it takes jobs from anybody who reaches its port.
        "SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false",
    }
    command = ["spark-class", f"{_CLASSES}.{name}", "--host", "127.0.0.1", *options]
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log)


def _wait_for(cluster: Cluster, workers: int, folder: Path) -> None:
    deadline = time.monotonic() + _LIMIT_SECONDS
    while time.monotonic() < deadline:
        try:
            if cluster.state()["aliveworkers"] == workers:
                return
        except (OSError, ValueError):  # it does not listen yet, or has a page for people only so far
            pass
        time.sleep(0.2)
    raise TimeoutError("\n".join(path.read_text() for path in folder.glob("*.log")))


def kill_executor_that_writes(pattern: str, root: Path, *, while_runs: subprocess.Popen[str]) -> int:
    """SIGKILL the executor one of whose Python workers has a file of that pattern open; its process id.

    Raises:
        TimeoutError: nobody wrote such a file in time.
        ChildProcessError: the job ended before.
    """
    deadline = time.monotonic() + _LIMIT_SECONDS
    while time.monotonic() < deadline:
        for file in root.glob(pattern):
            if (worker := _holder(file)) and (executor := _executor_of(worker)):
                os.kill(executor, signal.SIGKILL)
                return executor
        if while_runs.poll() is not None:
            raise ChildProcessError(f"the job ended with {while_runs.returncode}: {while_runs.communicate()}")
        time.sleep(0.005)
    raise TimeoutError(f"nobody wrote {pattern} under {root}")


def _holder(file: Path) -> int | None:
    """The Python worker that has the file open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"pyspark" not in (process / "cmdline").read_bytes():
                continue
            if any(descriptor.readlink() == file for descriptor in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:  # it ended, or closed it
            continue
    return None


def _executor_of(pid: int) -> int | None:
    """The executor's JVM above a Python worker."""
    while pid > 1:
        try:
            if b"CoarseGrainedExecutorBackend" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return None
    return None
