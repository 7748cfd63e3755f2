"""Worker processes that listen on one port: each has a socket and a loop of its own, and is replaced when it dies."""

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import uvloop

from lookup.answering import Answering
from lookup.api import App
from lookup.http11 import Connection

logger = logging.getLogger(__name__)

_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_YOUNG_SECONDS = 5.0
_PAUSE_SECONDS = 5.0
_ORPHAN_SECONDS = 1.0
_BACKLOG = 1024
_STOPS = (signal.SIGINT, signal.SIGTERM)


def run_workers(count: int, work: Callable[[], None]) -> None:
    """Keep so many workers at work until SIGINT or SIGTERM, then stop them. Call it in the main thread.

    They are forked: what this process knows, a password among it, they know without being told.
    """
    stopping = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in _STOPS}
    born: dict[BaseProcess, float] = {}
    pause, next_birth = _POLL_SECONDS, 0.0
    try:
        while not stopping.is_set():
            while len(born) < count and time.monotonic() >= next_birth:
                born[_start(work)] = time.monotonic()
            wait([worker.sentinel for worker in born], timeout=_POLL_SECONDS)
            dead = [worker for worker in born if not worker.is_alive()]
            if not dead or stopping.is_set():
                continue
            # One that ends soon after it began will again, for the same reason: not twenty times a second.
            is_young = time.monotonic() - max(born.pop(worker) for worker in dead) < _YOUNG_SECONDS
            pause = min(2 * pause, _PAUSE_SECONDS) if is_young else _POLL_SECONDS
            for worker in dead:
                logger.error("worker %s ended with %s; another takes its place", worker.pid, worker.exitcode)
            # Not waited for on the event: a signal that sets it in the midst of that would wait for itself.
            next_birth = time.monotonic() + pause
    finally:
        _stop(list(born))
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(work: Callable[[], None]) -> BaseProcess:
    """A worker at work. A signal that reaches it before it can stop by itself ends it: it has answered nobody yet."""
    worker = multiprocessing.get_context("fork").Process(target=_begin, args=(work,), name="almanac-worker")
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        worker.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    return worker


def _begin(work: Callable[[], None]) -> None:
    for number in _STOPS:  # what the parent does at these would do nothing here
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    work()


def _stop(workers: list[BaseProcess]) -> None:
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + _STOP_SECONDS + 1
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            logger.error("worker %s did not stop in %.0f s and is killed", worker.pid, _STOP_SECONDS)
            worker.kill()
            worker.join()


def listen(host: str, port: int) -> socket.socket:
    """A socket on that port, which each worker has one of: the kernel shares connections out among them."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def work(app: App, listening: socket.socket, tls: ssl.SSLContext | None, parent: int) -> None:
    """Serve the app until SIGINT or SIGTERM, or until the parent is gone."""
    threading.Thread(target=_stop_without, args=(parent,), daemon=True).start()
    # What lives as long as the worker is not looked at again: collections otherwise show in the slowest answers.
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(app, listening, tls))


async def _serve(app: App, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in _STOPS:
        loop.add_signal_handler(number, stopping.set)
    app.start(loop)
    open_: set[Answering] = set()
    server = await loop.create_server(lambda: Connection(app, open_, loop), sock=listening, ssl=tls, backlog=_BACKLOG)
    await stopping.wait()
    server.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(_STOP_SECONDS):
            while open_:
                for connection in tuple(open_):  # those too that came at the last moment
                    connection.stop()
                await asyncio.sleep(_POLL_SECONDS)
    app.stop()


def _stop_without(parent: int) -> None:
    """Stop this worker soon after its parent was killed: an orphan would hold the port."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
