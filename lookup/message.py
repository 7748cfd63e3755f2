"""Requests and responses of HTTP/1.1, their bytes, and what a connection asks of who answers."""

import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

import httptools


class Request(NamedTuple):
    """What a client asks.

    Attributes:
        method: In capitals.
        path: Percent-decoded; U+FFFD stands where that is not UTF-8.
        query: What stands behind the `?`, as it was sent.
        headers: Those that are looked at, names in small letters.
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
        """Answer a request whose body has more bytes than are taken."""

    def too_slow(self, send: Send) -> None:
        """Answer a request whose body did not arrive in time."""

    def abandon(self) -> None:
        """The client went away before it had asked, or before it could be answered."""


class Asker(Protocol):
    """A connection that waits for the response to one request."""

    def keep(self, response: bytes) -> bool:
        """Write a response to its plain lookup; False, and nothing is written, where it asks for no more behind it."""

    def send(self, response: Response) -> None:
        """Write one to whatever it has asked."""


Take = Callable[[Asker, bytes, bytes], bool]
"""Takes the plain lookup of a table's entity: one whose answer follows from these two names. False where it is none."""


class Service(Protocol):
    """Who answers."""

    def begin(self, request: Request) -> Exchange: ...
    def lane(self, headers: Mapping[str, str]) -> Take | None:
        """Who takes the lookups that have these headers; None where what they are answered follows from more."""

    def malformed(self, status: int, message: str) -> Response:
        """The response to what is no request of HTTP/1.1."""


def request_of(method: str, target: bytes, headers: Mapping[str, str]) -> Request:
    """The request with that target.

    Raises:
        httptools.HttpParserInvalidURLError: it has a scheme, and is no URL all the same.
    """
    path, _, query = target.partition(b"?")
    if path[:1] != b"/" and b"://" in path:  # `GET http://host/path`, as to a proxy
        path = httptools.parse_url(target).path or b"/"
    if b"%" in path:
        path = unquote_to_bytes(path)
    return Request(method, path.decode("utf-8", "replace"), query.decode("latin-1"), headers)


def written(response: Response, *, is_head: bool, closes: bool) -> bytes:
    """The response as it goes over the wire."""
    status, body, headers = response
    ends = b"connection: close\r\n\r\n" if closes else b"\r\n"
    if status == HTTPStatus.NOT_MODIFIED:  # of the length that the answer would have, nothing is said
        return opening(status, headers) + ends
    head = b"%bcontent-length: %d\r\n%b" % (opening(status, headers), len(body), ends)
    return head if is_head else head + body


def opening(status: int, headers: bytes) -> bytes:
    """The first lines of a response, up to that of its length."""
    return b"%b%bdate: %b\r\n" % (_STATUS_LINES[status], headers, _date())


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_dated: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The time as HTTP writes it, made once a second."""
    global _dated  # a cache
    now = int(time.time())
    if _dated[0] != now:
        _dated = (now, formatdate(now, usegmt=True).encode())
    return _dated[1]
