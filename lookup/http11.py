"""HTTP/1.1 on an event loop: connections that read requests, let a service answer them, and bound all else.

httptools (llhttp, Node's parser) reads the bytes. What is here is what a client may ask, and how long that may be.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import httptools

from lookup.answering import PLAIN, Answering, Turn
from lookup.message import Exchange, Send, Service, Take, request_of

MAX_BODY_BYTES = 1 << 20
BODY_SECONDS = 5.0
HEAD_BYTES = 1 << 16
_DROPPED_BYTES = 16 << 20
# One whole GET and nothing else: its target, and all that follows its first line. Each may have half of HEAD_BYTES.
_GET = re.compile(rb"GET (/[!-~]{0,32000}) HTTP/1\.1(\r\n(?:[!-9;-~]+:[\t -~]*\r\n)*\r\n)").fullmatch
# Such a GET of one entity, up to the end of its first line, with nothing in it to decode: table and id.
_LOOKUP = re.compile(rb"GET /v1/([!-.0-~]+)/([!-$&->@-~]{1,512}) HTTP/1\.1").match
_REPEATED_BYTES = HEAD_BYTES // 2
_FRAMING = ("content-length", "transfer-encoding")
_KEPT_HEADERS = {
    name.encode(): name
    for name in ("authorization", "content-type", "expect", "if-none-match", "traceparent", *_FRAMING)
}


class _RefusedError(Exception):
    """What the parser takes and this server does not."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


class Connection(Answering):
    """One client, and what it asks."""

    def __init__(self, service: Service, open_: set[Answering], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(open_, loop)
        self._service = service
        self._parser = httptools.HttpRequestParser(self)
        self._is_in_head = False
        self._reads_on = True  # whether another request may follow
        self._is_1_0 = False
        self._headers: dict[str, str] = {}
        self._head_bytes = self._vain_bytes = self._body_bytes = 0
        self._declined = b""  # how the body is framed that came with an offer of another protocol
        self._repeated = b""  # how the last request went on behind its first line, and the headers kept of that
        self._repeats: Mapping[str, str] = {}
        self._take: Take | None = None  # who takes lookups that go on like this

    def data_received(self, data: bytes) -> None:
        exchange, head = self._exchange, self._headers if self._is_in_head else None
        is_between = exchange is None and head is None
        if is_between and self._take and self._turn is None and self._is_taken(self._take, data):
            return
        if is_between and (match := _GET(data)) and match[2] == self._repeated:
            self._repeat(match[1])
            return
        if not self._reads_on:
            self._drop(data)
            return
        body_bytes = self._body_bytes
        try:
            self._feed(data)
        except httptools.HttpParserError as err:
            self._refuse(err)
            return
        if self._exchange is not None and self._body_timer is None:
            self._body_timer = self._loop.call_later(BODY_SECONDS, self._give_body_up)
        if is_between:
            if self._reads_on and (match := _GET(data)) and self._may_repeat(match[2]):
                self._repeated, self._repeats = match[2], self._headers
                self._take = self._service.lane(self._headers)
            return
        is_same_head = self._is_in_head and self._headers is head  # not of a request that began in these bytes
        if is_same_head if head is not None else self._exchange is exchange and self._body_bytes == body_bytes:
            # Neither a head nor a body came further by these: what is kept of them has to end somewhere.
            self._vain_bytes += len(data)
            if self._vain_bytes > HEAD_BYTES:
                self._refuse(_too_long())

    def _is_taken(self, take: Take, data: bytes) -> bool:
        """Have a plain lookup taken by its lane, if that is what this is."""
        match = _LOOKUP(data)
        if match is None or data[match.end() :] != self._repeated:
            return False
        self._turn = PLAIN
        if take(self, *match.groups()):
            return True
        self._turn = None
        return False

    def _drop(self, data: bytes) -> None:
        """Read what follows the last request, for as long as its client may not have the answer; not without end."""
        self._vain_bytes += len(data)
        if self._vain_bytes > _DROPPED_BYTES:
            self._transport.abort()

    def _repeat(self, target: bytes) -> None:
        """Answer a GET whose headers are, byte for byte, those of the one before: what they mean is known."""
        exchange = self._service.begin(request_of("GET", target, self._repeats))
        self._queue(Turn(exchange.answer, exchange, False, True))

    def _may_repeat(self, head: bytes) -> bool:
        """Whether a GET that went on like this was read to its end, and can be answered from what is kept of it."""
        is_read = self._exchange is None and not self._is_in_head
        return is_read and len(head) <= _REPEATED_BYTES and "expect" not in self._headers

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._is_in_head = True
        self._head_bytes = self._vain_bytes = 0
        self._target = b""
        self._headers = {}

    def on_url(self, part: bytes) -> None:
        self._target += part
        self._head_bytes += len(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if (key := _KEPT_HEADERS.get(name.lower())) and self._is_in_head:
            text = value.decode("latin-1")
            self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._vain_bytes = 0
        if self._exchange is not None or not self._reads_on:  # its head was read by the parser before; there is no next
            return
        self._body_bytes = 0
        if self._head_bytes > HEAD_BYTES:
            raise _too_long()
        method = self._parser.get_method().decode()
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise _RefusedError(400, f"not a request of HTTP/1.1: it is of {version}")
        is_1_0 = self._is_1_0 = version == "1.0"
        if is_1_0 and "transfer-encoding" in self._headers:  # RFC 9112, 6.1: what is before us may not have read it so
            raise _RefusedError(400, "HTTP/1.0 has no Transfer-Encoding")
        exchange = self._exchange = self._service.begin(request_of(method, self._target, self._headers))
        self._is_head = method == "HEAD"
        if self._headers and not is_1_0 and self._headers.get("expect", "").lower() == "100-continue":
            if exchange.keeps_body:
                self._queue(Turn(self._go_on))
            else:  # the client need not send it at all
                self._cut(exchange.answer)

    def on_body(self, part: bytes) -> None:
        if (exchange := self._exchange) is None:  # it was given up
            return
        self._body_bytes += len(part)
        if self._body_bytes <= MAX_BODY_BYTES:
            if exchange.keeps_body:
                self._body.append(part)
            return
        # The rest is read too, as many clients read no answer before they have sent all. Past this limit that is the
        # client's loss.
        self._body.clear()
        if self._body_bytes > _DROPPED_BYTES:
            self._end_body(exchange.too_large, keeps_alive=False)

    def on_message_complete(self) -> None:
        if (exchange := self._exchange) is None:
            return
        # A client of HTTP/1.0 would have to be told that its connection is kept, or it waits for the end.
        keeps_alive = not self._is_1_0 and self._parser.should_keep_alive()
        if self._headers and self._parser.should_upgrade():
            framing = [f"{name}: {self._headers[name]}\r\n" for name in _FRAMING if name in self._headers]
            if framing:  # the parser takes what follows for the other protocol's, but it is this request's body
                closes = "" if keeps_alive else "connection: close\r\n"
                self._declined = f"POST / HTTP/1.1\r\n{''.join(framing)}{closes}\r\n".encode()
                return
        is_too_large = self._body_bytes > MAX_BODY_BYTES
        answer = exchange.too_large if is_too_large else partial(exchange.answer, body=b"".join(self._body))
        self._end_body(answer, keeps_alive=keeps_alive)

    def _feed(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = memoryview(data)[upgrade.args[0] :]
            else:
                return
            # An offer of another protocol is declined by answering (RFC 9110, 7.8): what follows is HTTP/1.1.
            self._parser = httptools.HttpRequestParser(self)
            if self._exchange is not None:
                self._parser.feed_data(self._declined)

    # Answering.

    def _end_body(self, answer: Callable[[Send], None], *, keeps_alive: bool) -> None:
        """The request is read, or all that will be of it."""
        exchange, self._exchange = self._exchange, None
        self._body.clear()
        self._stop_body_timer()
        if not keeps_alive:
            self._reads_on, self._repeated, self._take = False, b"", None
        self._queue(Turn(answer, exchange, self._is_head, keeps_alive))

    def _cut(self, answer: Callable[[Send], None]) -> None:
        """Answer the request whose body is being read without the rest of it."""
        self._is_cut = True
        self._end_body(answer, keeps_alive=False)

    def _go_on(self, _: Send) -> None:
        """Tell the client that its body is waited for, behind the answers before it."""
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._wait_turn()

    def _refuse(self, err: Exception) -> None:
        """Answer bytes that are no request, behind those before them that are."""
        if not self._reads_on:  # they follow the last request
            return
        cause = err.__context__ if isinstance(err, httptools.HttpParserCallbackError) else err
        if not isinstance(cause, _RefusedError | httptools.HttpParserError):
            raise err  # a defect of ours, in what the parser called: the loop logs it, and closes the connection
        self._abandon_body()
        self._reads_on, self._repeated, self._take, self._is_cut = False, b"", None, True
        if isinstance(cause, _RefusedError):
            response = self._service.malformed(cause.status, cause.message)
        else:
            response = self._service.malformed(400, f"not a request of HTTP/1.1: {cause}"[:160])
        self._queue(Turn(lambda send: send(response)))

    def _give_body_up(self) -> None:
        self._cut(cast("Exchange", self._exchange).too_slow)


def _too_long() -> _RefusedError:
    return _RefusedError(431, f"the head of a request may have {HEAD_BYTES} bytes")
