"""HTTP/1.1 on an event loop: connections that read requests, let a service answer them in order, and bound all else.

httptools (llhttp, Node's parser) reads the bytes. What is here is what a connection may do and for how long.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import NamedTuple, Protocol, cast
from urllib.parse import unquote_to_bytes

import httptools

MAX_BODY_BYTES = 1 << 20
BODY_SECONDS = 5.0
# How long a connection may be silent, and a request's head take. Load balancers keep an idle connection for 60 s: this
# side must not be the first to close it, or it would while a request is on its way.
IDLE_SECONDS = 75.0
_HEAD_BYTES = 1 << 16
_DROPPED_BYTES = 16 << 20
_PIPELINED = 16
# One whole GET and nothing else: its target, and all that follows its first line.
_GET = re.compile(rb"GET (/[!-~]*) HTTP/1\.1(\r\n(?:[!-9;-~]+:[\t -~]*\r\n)*\r\n)").fullmatch
_KEPT_HEADERS = {
    name.encode(): name for name in ("authorization", "content-type", "expect", "if-none-match", "traceparent")
}


class Request(NamedTuple):
    """What a client asks.

    Attributes:
        method: In capitals.
        path: Percent-decoded; U+FFFD stands where that is not UTF-8.
        query: What stands behind the `?`, as it was sent.
        headers: Those that a service here looks at, names in small letters.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


class Response(NamedTuple):
    """What it is answered.

    Attributes:
        status: Of HTTP.
        body: Its length is told with it.
        headers: Their lines, each with its end.
    """

    status: int
    body: bytes
    headers: bytes


Send = Callable[[Response], None]


class Exchange(Protocol):
    """One request that a service has begun to answer. One of its methods is called, once."""

    @property
    def keeps_body(self) -> bool:
        """Whether the service wants the body; it is read in any case, but not kept."""

    def answer(self, send: Send, body: bytes = b"") -> None:
        """Answer, now or later."""

    def too_large(self, send: Send) -> None:
        """Answer a request whose body has more than `MAX_BODY_BYTES`."""

    def too_slow(self, send: Send) -> None:
        """Answer a request whose body did not arrive in `BODY_SECONDS`."""

    def abandon(self) -> None:
        """The client went away before it had asked."""


class Service(Protocol):
    """Who answers."""

    def begin(self, request: Request) -> Exchange: ...
    def malformed(self, status: int, message: str) -> Response:
        """The response to what is no request of HTTP/1.1."""


class _Turn(NamedTuple):
    """A request that was read, in the line of those to be answered."""

    answer: Callable[[Send], None]
    exchange: Exchange | None = None
    is_head: bool = False
    keeps_alive: bool = False


class Connection(asyncio.Protocol):
    """One client. Requests that it sends without waiting are answered one behind the other."""

    def __init__(self, service: Service, open_: "set[Connection]", loop: asyncio.AbstractEventLoop) -> None:
        self._service, self._open, self._loop = service, open_, loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport = cast("asyncio.Transport", None)  # there is one from `connection_made` on
        self._line: deque[_Turn] = deque()
        self._turn: _Turn | None = None  # whose answer is being made
        self._exchange: Exchange | None = None  # of the request whose body is being read
        self._is_in_head = self._is_last = self._is_full = False
        self._head_bytes = self._body_bytes = 0
        self._body: list[bytes] = []
        self._body_timer: asyncio.TimerHandle | None = None
        self._repeated = b""  # how the last request went on behind its first line, and what that means
        self._repeats: tuple[Mapping[str, str], bool] = ({}, True)
        self._idle_since = loop.time()
        self._idle_timer = loop.call_later(IDLE_SECONDS, self._look)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio calls it
        self._open.discard(self)
        self._idle_timer.cancel()
        self._stop_body_timer()
        for exchange in (self._exchange, *(turn.exchange for turn in self._line)):
            if exchange is not None:
                exchange.abandon()
        self._exchange = None
        self._line.clear()

    def pause_writing(self) -> None:
        """The client does not read what it asked for: it is not read from either."""
        self._is_full = True
        self._steer()

    def resume_writing(self) -> None:
        self._is_full = False
        self._steer()

    def stop(self) -> None:
        """Close as soon as what has been asked is answered."""
        self._is_last = True
        if self._turn is None and self._exchange is None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        was_in_head = self._is_in_head
        is_between = not was_in_head and self._exchange is None
        if is_between and (match := _GET(data)) and match[2] == self._repeated:
            self._repeat(match[1])
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # To another protocol, which a server may decline (RFC 9110, 7.8): the next request begins behind this one.
            self._parser = httptools.HttpRequestParser(self)
            if rest := data[upgrade.args[0] :]:
                self.data_received(rest)
            return
        except httptools.HttpParserError as err:
            self._refuse(400, f"not a request of HTTP/1.1: {err}"[:160])
            return
        if self._exchange is not None:
            if self._body_timer is None:
                self._body_timer = self._loop.call_later(BODY_SECONDS, self._give_body_up)
        elif was_in_head and self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._refuse(431, f"the head of a request may have {_HEAD_BYTES} bytes")
        elif is_between and (match := _GET(data)) and "expect" not in self._headers:
            self._repeated, self._repeats = match[2], (self._headers, self._parser.should_keep_alive())

    def _repeat(self, target: bytes) -> None:
        """Answer a GET whose headers are, byte for byte, those of the one before: what they mean is known."""
        headers, keeps_alive = self._repeats
        exchange = self._service.begin(_request("GET", target, headers))
        self._queue(_Turn(exchange.answer, exchange, False, keeps_alive))

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._is_in_head = True
        self._head_bytes = 0
        self._target = b""
        self._headers: dict[str, str] = {}

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if (key := _KEPT_HEADERS.get(name.lower())) and self._is_in_head:
            text = value.decode("latin-1")
            self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._body_bytes = 0
        method = self._parser.get_method().decode()
        exchange = self._exchange = self._service.begin(_request(method, self._target, self._headers))
        self._is_head = method == "HEAD"
        if self._headers and self._headers.get("expect", "").lower() == "100-continue":
            if exchange.keeps_body and self._turn is None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            elif not exchange.keeps_body:  # the client need not send it at all
                self._end_body(exchange.answer, keeps_alive=False)

    def on_body(self, part: bytes) -> None:
        if (exchange := self._exchange) is None:  # it was given up
            return
        self._body_bytes += len(part)
        if self._body_bytes <= MAX_BODY_BYTES:
            if exchange.keeps_body:
                self._body.append(part)
            return
        # The rest is read too: a connection closed on unread bytes is reset, and its client would lose the answer. Past
        # this limit that is the client's loss.
        self._body.clear()
        if self._body_bytes > _DROPPED_BYTES:
            self._end_body(exchange.too_large, keeps_alive=False)

    def on_message_complete(self) -> None:
        if (exchange := self._exchange) is None:
            return
        is_too_large = self._body_bytes > MAX_BODY_BYTES
        answer = exchange.too_large if is_too_large else partial(exchange.answer, body=b"".join(self._body))
        self._end_body(answer, keeps_alive=self._parser.should_keep_alive())

    # Answering.

    def _end_body(self, answer: Callable[[Send], None], *, keeps_alive: bool) -> None:
        """The request is read, or all that will be of it."""
        exchange, self._exchange = self._exchange, None
        self._body.clear()
        self._stop_body_timer()
        self._queue(_Turn(answer, exchange, self._is_head, keeps_alive))

    def _queue(self, turn: _Turn) -> None:
        if self._turn is None:
            self._turn = turn
            turn.answer(self._send)
        else:
            self._line.append(turn)
            self._steer()

    def _send(self, response: Response) -> None:
        turn = cast("_Turn", self._turn)
        if self._transport.is_closing():
            return
        closes = self._is_last or not turn.keeps_alive
        self._transport.write(_written(response, is_head=turn.is_head, closes=closes))
        if closes:
            self._transport.close()
            return
        self._turn = None
        self._idle_since = self._loop.time()
        if self._line:
            self._loop.call_soon(self._answer_next)

    def _answer_next(self) -> None:
        if self._turn is None and self._line:
            turn = self._turn = self._line.popleft()
            self._steer()
            turn.answer(self._send)

    def _refuse(self, status: int, message: str) -> None:
        """Answer bytes that are no request, behind those before them that are."""
        self._exchange = self._abandoned(self._exchange)
        self._stop_body_timer()
        response = self._service.malformed(status, message)
        self._transport.pause_reading()
        self._queue(_Turn(lambda send: send(response)))

    def _give_body_up(self) -> None:
        exchange = cast("Exchange", self._exchange)
        self._transport.pause_reading()
        self._end_body(exchange.too_slow, keeps_alive=False)

    @staticmethod
    def _abandoned(exchange: Exchange | None) -> None:
        if exchange is not None:
            exchange.abandon()

    # Waiting.

    def _steer(self) -> None:
        """Read no more than can be answered and taken."""
        if self._is_full or len(self._line) > _PIPELINED:
            self._transport.pause_reading()
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def _stop_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _look(self) -> None:
        """See whether a request's head has been waited for too long."""
        now = self._loop.time()
        is_at_work = self._turn is not None or self._exchange is not None
        left = IDLE_SECONDS if is_at_work else self._idle_since + IDLE_SECONDS - now
        if left <= 0:
            self._transport.close()
        else:
            self._idle_timer = self._loop.call_later(left, self._look)


def _request(method: str, target: bytes, headers: Mapping[str, str]) -> Request:
    path, _, query = target.partition(b"?")
    if b"://" in path[:8]:  # `GET http://host/path`, as to a proxy
        path = httptools.parse_url(target).path or b"/"
    if b"%" in path:
        path = unquote_to_bytes(path)
    return Request(method, path.decode("utf-8", "replace"), query.decode("latin-1"), headers)


def _written(response: Response, *, is_head: bool, closes: bool) -> bytes:
    status, body, headers = response
    ends = b"connection: close\r\n\r\n" if closes else b"\r\n"
    if status == HTTPStatus.NOT_MODIFIED:  # of the length that the answer would have, nothing is said
        return b"%b%bdate: %b\r\n%b" % (_STATUS_LINES[status], headers, _date(), ends)
    head = b"%b%bdate: %b\r\ncontent-length: %d\r\n%b" % (_STATUS_LINES[status], headers, _date(), len(body), ends)
    return head if is_head else head + body


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_dated: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The time as HTTP writes it, made once a second."""
    global _dated  # a cache
    now = int(time.time())
    if _dated[0] != now:
        _dated = (now, formatdate(now, usegmt=True).encode())
    return _dated[1]
