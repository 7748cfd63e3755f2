"""Running the read API: workers on one port, in the foreground."""

import logging
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lookup.access import AccessLog
from lookup.api import Options, create_app
from lookup.keyring import Keyring
from lookup.metrics import share_counts
from lookup.misses import Misses
from lookup.workers import listen, run_workers, work
from schemas.errors import DeclarationError, Problem
from schemas.head import Serving

logger = logging.getLogger(__name__)


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
    tls = _tls(listening)
    scheme = "https" if tls else "http"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    logger.info("serving %d tables at %s", len(tables), url)
    announce(url)
    with tempfile.TemporaryDirectory(prefix="almanac-metrics-") as folder:
        shared = folder if workers > 1 else None
        run_workers(workers, partial(_work, redis_url, tables, listening, extras, tls, shared, os.getpid()))


def _given(extras: Extras, workers: int) -> Options:
    return Options(
        keyring=Keyring.load(extras.keys, workers=workers) if extras.keys else None,
        misses=Misses(extras.misses) if extras.misses else None,
        access_log=AccessLog() if extras.access_log else None,
    )


def _work(
    redis_url: str,
    tables: Mapping[str, Serving],
    listening: Listening,
    extras: Extras,
    tls: ssl.SSLContext | None,
    shared: str | None,
    parent: int,
) -> None:
    """What one worker does, in its process."""
    if shared:
        share_counts(shared)
    app = create_app(redis_url, tables, _given(extras, listening.workers))
    work(app, listen(listening.host, listening.port), tls, parent)


def _tls(listening: Listening) -> ssl.SSLContext | None:
    """What encrypts; half a pair of files is refused, and such as cannot be read."""
    files = (listening.tls_cert, listening.tls_key)
    if files == (None, None):
        return None
    where = "--tls-cert and --tls-key"
    try:
        if None in files:
            raise ValueError("one of them is not given")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*map(str, files))
    except (OSError, ValueError) as err:
        found = f"cannot be used ({err.strerror if isinstance(err, OSError) else err})"
        raise DeclarationError(Problem("CFG_TLS", where, found, "a certificate and its key, both PEM")) from err
    return context


def _check_port(host: str, port: int) -> None:
    """Refuse a port that another program listens on: workers would share it, and each get some of the requests."""
    where = f"port {port} of {host}"
    if not 1 <= port <= 65535:
        raise DeclarationError(Problem("CFG_PORT", where, "not a port", "--port from 1 to 65535"))
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(address[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address[4])
    except (OSError, UnicodeError) as err:  # the latter: what no host can be called
        why = err.strerror if isinstance(err, OSError) else "not the name of a host"
        raise DeclarationError(
            Problem(
                "CFG_PORT",
                where,
                f"cannot be opened ({why})",
                "a free port: stop what uses it, or give another --port",
            )
        ) from err
