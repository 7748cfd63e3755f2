"""Running the read API: granian workers on one port, in the foreground."""

import gc
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from lookup.api import App, create_app
from lookup.metrics import share_counts
from schemas.errors import DeclarationError, Problem

logger = logging.getLogger(__name__)

_STOP_SECONDS = 10
_ORPHAN_SECONDS = 1.0


def serve(
    redis_url: str,
    tables: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8321,
    workers: int = 1,
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the tables until SIGINT or SIGTERM. Call it in the main thread.

    The URL may hold a password: a worker gets it from this process's memory, not by argument or environment.

    Args:
        redis_url: Where the tables are.
        tables: Their names.
        host: Address to listen on.
        port: Its port.
        workers: Processes.
        announce: Called with the API's URL once nothing is known to stand in its way.

    Raises:
        DeclarationError: the port cannot be had, the URL is not one of a Redis, or there is no table.
    """
    create_app(redis_url, tables)  # what is wrong with them is said here, not in a worker's log
    _check_port(host, port)
    server = Granian("almanac", address=host, port=port, workers=workers, **_options())
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    logger.info("serving %d tables at %s", len(tables), url)
    announce(url)
    with tempfile.TemporaryDirectory(prefix="almanac-metrics-") as folder:
        load = partial(_application, redis_url, tuple(tables), folder if workers > 1 else None, os.getpid())
        server.serve(target_loader=load, wrap_loader=False)  # type: ignore[arg-type]  # an object with __rsgi__ will do


def _options() -> dict[str, Any]:
    return {
        "interface": Interfaces.RSGI,
        "http": HTTPModes.http1,
        "websockets": False,
        "respawn_failed_workers": True,
        "workers_kill_timeout": _STOP_SECONDS,
        "log_level": LogLevels.warning,
        "log_access": False,
    }


def _application(redis_url: str, tables: Sequence[str], shared: str | None, parent: int) -> App:
    """The application of one worker, made in its process."""
    threading.Thread(target=_stop_without, args=(parent,), daemon=True).start()
    if shared:
        share_counts(shared)
    app = create_app(redis_url, tables)
    # What lives as long as the worker is not looked at again: collections otherwise show in the slowest answers.
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    return app


def _stop_without(parent: int) -> None:
    """Stop this worker soon after its parent was killed: an orphan would hold the port."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _check_port(host: str, port: int) -> None:
    """Refuse a port that another program listens on: granian would share it, and each get some of the requests."""
    where = f"port {port} of {host}"
    if not 1 <= port <= 65535:
        raise DeclarationError(Problem("CFG_PORT", where, "not a port", "--port from 1 to 65535"))
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(address[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address[4])
    except OSError as err:
        raise DeclarationError(
            Problem(
                "CFG_PORT",
                where,
                f"cannot be opened ({err.strerror})",
                "a free port: stop what uses it, or give another --port",
            )
        ) from err
