"""The answering side of a connection: each response in its turn, for as long as the client takes them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, cast

from lookup.message import Exchange, Response, Send, written

# How long a connection may be silent, and a request's head take. Load balancers keep an idle connection for 60 s: this
# side must not be the first to close it, or it would while a request is on its way.
IDLE_SECONDS = 75.0
LINGER_SECONDS = 2.0
_PIPELINED = 16


class Turn(NamedTuple):
    """A request that was read, in the line of those to be answered."""

    answer: Callable[[Send], None]
    exchange: Exchange | None = None
    is_head: bool = False
    keeps_alive: bool = False


# None is being answered, and the next one has to wait for the loop, or for the client to read.
_BETWEEN = Turn(lambda _: None)
# None will be: the connection is being closed.
_OVER = Turn(lambda _: None)
# A plain lookup's is being made, in its lane.
PLAIN = Turn(lambda _: None, keeps_alive=True)


class Answering(asyncio.Protocol):
    """One client. Requests that it sends without waiting are answered one behind the other."""

    def __init__(self, open_: "set[Answering]", loop: asyncio.AbstractEventLoop) -> None:
        self._open, self._loop = open_, loop
        self._transport = cast("asyncio.Transport", None)  # there is one from `connection_made` on
        self._line: deque[Turn] = deque()
        self._turn: Turn | None = None  # whose answer is being made
        self._exchange: Exchange | None = None  # of the request whose body is being read
        self._body: list[bytes] = []
        self._body_timer: asyncio.TimerHandle | None = None
        self._is_last = self._is_full = False
        self._is_cut = False  # whether the client may be sending what is not read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self)
        self._idle_since = self._loop.time()
        self._idle_timer = self._loop.call_later(IDLE_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio calls it
        self._open.discard(self)
        self._idle_timer.cancel()
        self._abandon_body()
        for turn in self._line:
            if turn.exchange is not None:
                turn.exchange.abandon()
        self._line.clear()

    def eof_received(self) -> bool:
        """The client asks nothing more, but may wait for what it has asked; over TLS it cannot."""
        self._is_last = True
        self._abandon_body()
        is_waiting = bool(self._line) or self._turn not in (None, _BETWEEN, _OVER)
        return is_waiting and self._transport.can_write_eof()

    def pause_writing(self) -> None:
        """The client does not read what it asked for: it is not read from either, and nothing more is answered."""
        self._is_full = True
        self._turn = self._turn or _BETWEEN
        self._steer()

    def resume_writing(self) -> None:
        self._is_full = False
        self._steer()
        self._answer_next()

    def stop(self) -> None:
        """Close as soon as what has been asked is answered."""
        self._is_last = True
        if self._turn is None and self._exchange is None:
            self._close()

    def _queue(self, turn: Turn) -> None:
        if self._turn is None:
            self._turn = turn
            turn.answer(self.send)
        else:
            self._line.append(turn)
            self._steer()

    def keep(self, response: bytes) -> bool:
        """Answer a plain lookup, if more may follow (`lookup.message.Asker`)."""
        if self._is_last or self._transport.is_closing():
            return False
        self._transport.write(response)
        self._end_turn()
        return True

    def send(self, response: Response) -> None:
        """Answer the request whose turn it is."""
        turn = cast("Turn", self._turn)
        if self._transport.is_closing():
            return
        closes = not turn.keeps_alive or (self._is_last and not self._line and self._exchange is None)
        self._transport.write(written(response, is_head=turn.is_head, closes=closes))
        if closes:
            self._close()
            return
        self._end_turn()

    def _end_turn(self) -> None:
        self._idle_since = self._loop.time()
        if self._line or self._is_full:
            self._wait_turn()
        else:
            self._turn = None

    def _wait_turn(self) -> None:
        # What comes before the loop's next round must not be answered before what is in line.
        self._turn = _BETWEEN
        self._loop.call_soon(self._answer_next)

    def _answer_next(self) -> None:
        if self._turn is not _BETWEEN or self._is_full or self._transport.is_closing():
            return
        if self._line:
            turn = self._turn = self._line.popleft()
            self._steer()
            turn.answer(self.send)
            return
        self._turn = None
        if self._is_last and self._exchange is None:
            self._close()

    def _abandon_body(self) -> None:
        self._stop_body_timer()
        self._body.clear()
        if self._exchange is not None:
            self._exchange.abandon()
            self._exchange = None

    def _close(self) -> None:
        """Close, when what was written is sent."""
        self._turn = _OVER
        if not self._is_cut:
            self._transport.close()
            return
        # A connection that is closed on unread bytes is reset, and its client would lose the answer: they are read.
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._loop.call_later(LINGER_SECONDS, self._transport.close)

    # Waiting.

    def _steer(self) -> None:
        """Read no more than can be answered and taken."""
        if self._turn is _OVER or self._transport.is_closing():
            return
        if self._is_full or len(self._line) > _PIPELINED:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _stop_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _look(self) -> None:
        """See whether a request's head has been waited for too long, or the client to take what was written."""
        if self._turn is _OVER:
            self._transport.abort()
            return
        is_at_work = self._exchange is not None or self._turn not in (None, _BETWEEN)
        left = IDLE_SECONDS if is_at_work else self._idle_since + IDLE_SECONDS - self._loop.time()
        if left <= 0:
            self._close()
            left = IDLE_SECONDS
        self._idle_timer = self._loop.call_later(left, self._look)
