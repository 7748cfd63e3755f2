"""Servers of a benchmark, each a process of its own on loopback, stopped when it is done with."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks.entities import TABLE
from benchmarks.figure import Unmeasurable
from benchmarks.workplace import BIN, MeasurementError, environment
from lookup.connect import connect
from lookup.embedded import free_port

_START_SECONDS = 60
_STOP_SECONDS = 15
_SERVE = """
import sys
from lookup.serve import Listening, serve
from schemas.head import Serving
serve(sys.argv[1], {sys.argv[2]: Serving()}, Listening(port=int(sys.argv[3])))
"""


def tool(name: str) -> str:
    """The path of a program that is on PATH, outside this environment.

    Raises:
        Unmeasurable: it is not.
    """
    if found := shutil.which(name, path=environment()["PATH"]):
        return found
    raise Unmeasurable(f"{name} is not on PATH")


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of an empty Redis that writes nothing to disk."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    command = [tool("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with running(command, folder=folder, environ=environment(), is_up=lambda: _answers(url)):
        yield url


@contextmanager
def read_api(folder: Path, redis_url: str) -> Iterator[int]:
    """The port of the read API, one worker, serving the benchmarks' table."""
    port = free_port()
    command = [str(BIN / "python"), "-c", _SERVE, redis_url, TABLE, str(port)]
    with running(command, folder=folder, environ=environment(), is_up=lambda: listens(port)):
        yield port


def listens(port: int) -> bool:
    """Whether something listens on that port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(
    command: Sequence[str], *, folder: Path, environ: Mapping[str, str], is_up: Callable[[], bool]
) -> Iterator[None]:
    """A server's process, from when it is up.

    Raises:
        MeasurementError: it ended, or is not up in time.
    """
    log = folder / f"server-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environ), stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not is_up():
            if process.poll() is not None or time.monotonic() > deadline:
                told = " | ".join(log.read_text(errors="replace").strip().splitlines()[-5:])
                raise MeasurementError(f"{command[0]} did not start: {told[-600:]}")
            time.sleep(0.05)
        yield
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    with connect(url) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
