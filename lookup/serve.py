"""Running the read API: granian workers on one port, in the foreground."""

import gc
import logging
import os
import signal
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from lookup.access import AccessLog
from lookup.api import App, Options, create_app
from lookup.keyring import Keyring
from lookup.metrics import share_counts
from lookup.misses import Misses
from schemas.errors import DeclarationError, Problem
from schemas.head import Serving

logger = logging.getLogger(__name__)

_STOP_SECONDS = 10
# How long a connection may be silent, and a request's headers take. Load balancers keep an idle connection for 60 s:
# this side must not be the first to close it, or it would while a request is on its way.
_IDLE_SECONDS = 75
_ORPHAN_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where and how a server listens.

    Attributes:
        host: Address to listen on.
        port: Its port.
        workers: Processes.
        tls_cert: The server's certificate, PEM; None for plain HTTP.
        tls_key: Its key, PEM.
    """

    host: str = "127.0.0.1"
    port: int = 8321
    workers: int = 1
    tls_cert: Path | None = None
    tls_key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a server may be given beside its tables.

    Attributes:
        keys: The file of API keys; None where everybody may read everything.
        misses: The store's root, to count under it what was asked for and is not known; None where it is not counted.
        access_log: Whether each request is told on stderr.
    """

    keys: Path | None = None
    misses: Path | None = None
    access_log: bool = False


def serve(
    redis_url: str,
    tables: Mapping[str, Serving],
    listening: Listening = Listening(),  # frozen
    extras: Extras = Extras(),  # frozen
    *,
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the tables until SIGINT or SIGTERM. Call it in the main thread.

    The URL may hold a password: a worker gets it from this process's memory, not by argument or environment.

    Args:
        redis_url: Where the tables are.
        tables: Name -> what is answered while no head can be read.
        listening: Where it listens.
        extras: What else it is given.
        announce: Called with the API's URL once nothing is known to stand in its way.

    Raises:
        DeclarationError: the port cannot be had, the URL is not one of a Redis, a file cannot be read, or there is no
            table.
    """
    host, port, workers = listening.host, listening.port, listening.workers
    create_app(redis_url, tables, _given(extras, workers))  # what is wrong is said here, not in a worker's log
    _check_port(host, port)
    _check_tls(listening)
    server = Granian("almanac", address=host, port=port, workers=workers, **_options(listening))
    scheme = "https" if listening.tls_cert else "http"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    logger.info("serving %d tables at %s", len(tables), url)
    announce(url)
    with tempfile.TemporaryDirectory(prefix="almanac-metrics-") as folder:
        shared = folder if workers > 1 else None
        load = partial(_application, redis_url, tables, extras, workers, shared, os.getpid())
        server.serve(target_loader=load, wrap_loader=False)  # type: ignore[arg-type]  # an object with __rsgi__ will do


def _options(listening: Listening) -> dict[str, Any]:
    return {
        "ssl_cert": listening.tls_cert,
        "ssl_key": listening.tls_key,
        "interface": Interfaces.RSGI,
        "loop": Loops.uvloop,
        "http": HTTPModes.http1,
        "http1_settings": HTTP1Settings(header_read_timeout=_IDLE_SECONDS * 1000),
        "websockets": False,
        "respawn_failed_workers": True,
        "workers_kill_timeout": _STOP_SECONDS,
        "log_level": LogLevels.warning,
        "log_access": False,
    }


def _given(extras: Extras, workers: int) -> Options:
    return Options(
        keyring=Keyring.load(extras.keys, workers=workers) if extras.keys else None,
        misses=Misses(extras.misses) if extras.misses else None,
        access_log=AccessLog() if extras.access_log else None,
    )


def _application(
    redis_url: str, tables: Mapping[str, Serving], extras: Extras, workers: int, shared: str | None, parent: int
) -> App:
    """The application of one worker, made in its process."""
    threading.Thread(target=_stop_without, args=(parent,), daemon=True).start()
    if shared:
        share_counts(shared)
    app = create_app(redis_url, tables, _given(extras, workers))
    # What lives as long as the worker is not looked at again: collections otherwise show in the slowest answers.
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    return app


def _stop_without(parent: int) -> None:
    """Stop this worker soon after its parent was killed: an orphan would hold the port."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _check_tls(listening: Listening) -> None:
    """Refuse half a pair of files, and such as cannot be read: a worker would only say that it could not start."""
    files = (listening.tls_cert, listening.tls_key)
    if files == (None, None):
        return
    where = "--tls-cert and --tls-key"
    try:
        if None in files:
            raise ValueError("one of them is not given")
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*map(str, files))
    except (OSError, ValueError) as err:
        found = f"cannot be used ({err.strerror if isinstance(err, OSError) else err})"
        raise DeclarationError(Problem("CFG_TLS", where, found, "a certificate and its key, both PEM")) from err


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
