"""One connection to Redis on an event loop: what is sent in one tick leaves in one write, every wait is bounded."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import hiredis

from lookup.commands import Command, Commands, pack
from lookup.connect import READ_SECONDS, Address, connection_error, reply_error
from schemas.errors import AlmanacError, Problem, UnavailableError

_Found = TypeVar("_Found")

Outcome = list[Any] | Exception
"""All replies of a request, or why there are none."""
Done = Callable[[Outcome], None]


class Request(NamedTuple):
    """Commands, and who is told of their replies."""

    commands: Sequence[Command]
    done: Done


class _Waiting(NamedTuple):
    """Commands that were sent, and what has come of them."""

    wanted: int
    replies: list[Any]
    done: Done
    deadline: float


class Connection(asyncio.Protocol):
    """Sends commands, and calls back with their replies in order; connects when it is first needed, and again.

    Replies come in the order of the commands, so that the oldest that waits is the only one to watch. When it has
    waited too long, the server hangs: the connection is dropped, and all that wait are told.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout_seconds: float = READ_SECONDS,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._loop = loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._aborted = 0  # connections that were let go of, and have not told yet that they are lost
        self._replies = self._reader()
        self._unsent: list[bytes] = []
        self._waiting: deque[_Waiting] = deque()
        self._watch: asyncio.TimerHandle | None = None

    def send(self, *requests: Request) -> None:
        """Send the commands of all requests in one write.

        Each request's `done` is called once: with all its replies, an error among them where Redis refused a command,
        or with the reason why there are none.
        """
        # First: what cannot be packed must not be waited for.
        data = b"".join(_packed(request.commands) for request in requests)
        deadline = self._loop.time() + self._timeout_seconds
        self._waiting.extend(_Waiting(len(request.commands), [], request.done, deadline) for request in requests)
        if self._watch is None:
            self._watch = self._loop.call_at(deadline, self._look)
        if self._transport is not None:
            self._transport.write(data)
            return
        self._unsent.append(data)
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())

    def close(self) -> None:
        self._drop(UnavailableError(Problem("STORE_DOWN", repr(self._address), "closed", "a Redis that answers")))

    async def _connect(self) -> None:
        address = self._address
        try:
            if address.path is not None:
                await self._loop.create_unix_connection(lambda: self, address.path)
            else:
                await self._loop.create_connection(lambda: self, address.host, address.port, ssl=address.context)
        except OSError as err:
            self._drop(connection_error(repr(address), err))
        finally:
            if self._connecting is asyncio.current_task():  # not where another has begun since this one was given up
                self._connecting = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._replies = self._reader()
        if handshake := self._address.handshake:
            # It goes before all that waits already.
            self._waiting.appendleft(
                _Waiting(len(handshake), [], self._greeted, self._loop.time() + self._timeout_seconds)
            )
            self._transport.write(b"".join(map(pack, handshake)))
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _greeted(self, outcome: Outcome) -> None:
        errors = outcome if isinstance(outcome, list) else [outcome]
        if refused := next((error for error in errors if isinstance(error, AlmanacError)), None):
            self._drop(refused)

    def data_received(self, data: bytes) -> None:
        reader = self._replies
        reader.feed(data)
        # Whoever is told may let go of the connection: what else came over it is then nobody's.
        while self._replies is reader and self._waiting:
            first = self._waiting[0]
            replies, gets = first.replies, reader.gets
            for _ in range(first.wanted - len(replies)):
                if (reply := gets()) is False:
                    return
                replies.append(reply)
            self._waiting.popleft()
            first.done(replies)

    def _reader(self) -> hiredis.Reader:
        return hiredis.Reader(replyError=self._refusal)

    def _refusal(self, text: str) -> AlmanacError:
        return reply_error(repr(self._address), text)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._aborted:
            self._aborted -= 1
            return
        self._transport = None
        found = str(exc) if exc else "the connection was closed"
        self._drop(UnavailableError(Problem("STORE_DOWN", repr(self._address), found, "a Redis that answers")))

    def _look(self) -> None:
        """See whether the oldest that waits has waited too long."""
        self._watch = None
        if not self._waiting:
            return
        left = self._waiting[0].deadline - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look)
            return
        found = f"no answer in {self._timeout_seconds} s"
        self._drop(UnavailableError(Problem("STORE_TIMEOUT", repr(self._address), found, "an answer in time")))

    def _drop(self, why: AlmanacError) -> None:
        """Let go of the connection, and tell all that wait; the next send connects anew."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        transport, self._transport = self._transport, None
        waiting, self._waiting = self._waiting, deque()
        self._unsent.clear()
        self._replies = self._reader()
        if transport is not None:
            self._aborted += 1
            transport.abort()
        for each in waiting:
            each.done(why)


def _packed(commands: Sequence[Command]) -> bytes:
    return commands.packed() if isinstance(commands, Commands) else b"".join(map(pack, commands))


def settle(found: "asyncio.Future[_Found]", outcome: _Found | Exception) -> None:
    """Give an outcome to one who waits, unless that one went away."""
    if found.done():
        return
    if isinstance(outcome, Exception):
        found.set_exception(outcome)
    else:
        found.set_result(outcome)
