"""Connections of HTTP/1.1, without a network: what is a request, in which order they are answered, what ends them."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lookup.answering
import lookup.http11
from lookup.http11 import Connection
from lookup.message import Asker, Exchange, Request, Response, Send, Take

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
H2C = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


def post(path: bytes, body: bytes, headers: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (path, headers, len(body), body)


class Echo:
    """Answers with what it was asked; `/later` when the test says so."""

    def __init__(self) -> None:
        self.held: list[Callable[[], None]] = []
        self.begun = self.ended = 0
        self.taken: list[tuple[Asker, bytes, bytes]] | None = None  # plain lookups; none are taken at first

    def begin(self, request: Request) -> Exchange:
        self.begun += 1
        if request.path == "/defect":
            raise KeyError(request.path)
        return Echoed(self, request)

    def lane(self, headers: Mapping[str, str]) -> Take | None:
        return self._take if self.taken is not None and not headers else None

    def _take(self, asker: Asker, table: bytes, entity: bytes) -> bool:
        if table != b"flights":
            return False
        cast("list[Any]", self.taken).append((asker, table, entity))
        return True

    def malformed(self, status: int, message: str) -> Response:
        return Response(status, message.encode(), b"")


class Echoed:
    def __init__(self, echo: Echo, request: Request) -> None:
        self._echo, self._request = echo, request

    @property
    def keeps_body(self) -> bool:
        return self._request.method == "POST"

    def answer(self, send: Send, body: bytes = b"") -> None:
        def respond() -> None:
            self._echo.ended += 1
            send(Response(304 if path == "/held" else 200, told if path != "/large" else b"x" * (1 << 16), b""))

        path = self._request.path
        told = f"{self._request.method} {path} {self._request.headers.get('if-none-match', '')} ".encode() + body
        if path == "/later":
            self._echo.held.append(respond)
        else:
            respond()

    def too_large(self, send: Send) -> None:
        self._echo.ended += 1
        send(Response(413, b"large", b""))

    def too_slow(self, send: Send) -> None:
        self._echo.ended += 1
        send(Response(408, b"slow", b""))

    def abandon(self) -> None:
        self._echo.ended += 1


class Peer(asyncio.Transport):
    """The client of a connection: keeps what it is sent, and sends only while it is read from."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.echo = Echo()
        self.is_closed = self.is_aborted = self.is_paused = self.is_half_closed = False
        self.limit = 1 << 62
        self._loop = loop
        self._written: list[bytes] = []
        self.connection = Connection(self.echo, set(), loop)
        self.connection.connection_made(self)

    def send(self, *pieces: bytes) -> None:
        """Send these, and let the loop do what there is to do after each."""
        for piece in pieces:
            if not (self.is_closed or self.is_paused):
                self.connection.data_received(piece)
            self.pause()

    def pause(self, seconds: float = 0.0) -> None:
        for _ in range(1 if seconds else 40):
            self._loop.run_until_complete(asyncio.sleep(seconds))

    @property
    def received(self) -> bytes:
        return re.sub(rb"date: [^\r]*\r\n", b"", b"".join(self._written))

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", self.received)]

    @property
    def asked(self) -> list[bytes]:
        """What it was answered with, in order."""
        return re.findall(rb"((?:GET|POST|OPTIONS|CONNECT) [^\r]*?)(?=HTTP/1|\Z)", self.received)

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        assert not self.is_closed
        self._written.append(bytes(data))
        if sum(map(len, self._written)) > self.limit:
            self.connection.pause_writing()

    def read_all(self) -> None:
        self.limit = 1 << 62
        self.connection.resume_writing()
        self.pause()

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_half_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def leave(self) -> None:
        self.is_closed = True
        self.connection.connection_lost(None)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def peer(loop: asyncio.AbstractEventLoop) -> Iterator[Peer]:
    made = Peer(loop)
    yield made
    made.connection.connection_lost(None)


# What is a request, and where it ends.

NO_REQUESTS = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01",
    "HTTP/2 with prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "one length twice": b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"POST /a HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": b"POST /a HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
    "a length and chunks": b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "chunks twice": b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks within another coding": b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "another coding": b"POST /a HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks of HTTP/1.0": b"POST /a HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk without end": b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "lines without CR": b"GET /a HTTP/1.1\nHost: x\n\n",
    "a CR in a header": b"GET /a HTTP/1.1\r\nA: b\rc\r\n\r\n",
    "a NUL in a header": b"GET /a HTTP/1.1\r\nA: b\0c\r\n\r\n",
    "a space before the colon": b"GET /a HTTP/1.1\r\nContent-Length : 3\r\n\r\nabc",
    "a folded header": b"GET /a HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "a byte over 127 in the target": b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
    "HTTP/0.9": b"GET /a\r\n\r\n",
    "HTTP/2 in the words of 1.1": b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n",
    "a URL that is none": b"GET http:///a HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_what_is_no_request_is_refused_and_nothing_behind_it_is_read(peer: Peer, name: str) -> None:
    peer.send(GET, NO_REQUESTS[name], GET, GET)

    assert peer.statuses == [200, 400]
    assert b"connection: close" in peer.received
    assert peer.echo.ended == peer.echo.begun


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_the_refusal_comes_behind_the_answers_before_it(peer: Peer, name: str) -> None:
    peer.send(GET.replace(b"/a", b"/later"), NO_REQUESTS[name], GET)
    before = peer.statuses
    peer.echo.held.pop()()
    peer.pause()

    assert before == []
    assert peer.statuses == [200, 400]


def test_a_body_that_looks_like_a_request_is_a_body(peer: Peer) -> None:
    peer.send(GET, post(b"/b", GET)[: -len(GET)], GET, GET)

    assert peer.statuses == [200, 200, 200]
    assert peer.received.count(b"\r\n\r\nPOST /b  " + GET + b"HTTP/1.1 200 OK") == 1


def test_what_follows_a_body_that_was_given_up_is_not_answered(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup.http11, "BODY_SECONDS", 0.01)
    peer.send(GET, b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
    peer.pause(0.03)
    peer.send(GET, GET)

    assert peer.statuses == [200, 408]
    assert (peer.echo.begun, peer.echo.ended) == (2, 2)


def test_what_follows_a_body_that_was_declined_is_not_answered(peer: Peer) -> None:
    head = b"PUT /b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 30\r\n\r\n"
    peer.send(GET, head, GET, GET)

    assert peer.statuses == [200, 200]
    assert peer.received.endswith(b"connection: close\r\n\r\nPUT /b  ")


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_trailer_is_no_header(peer: Peer, framing: str) -> None:
    chunked = b"Transfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n0\r\nIf-None-Match: evil\r\n\r\n"
    peer.send(
        b"POST /b HTTP/1.1\r\nHost: x\r\n" + (chunked if framing == "chunks" else b"Content-Length: 3\r\n\r\nabc")
    )

    assert peer.asked == [b"POST /b  abc"]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://host/a", b"/a"),
        (b"http://host:80", b"/"),
        (b"https://[::1]:8/a%20b?q", b"/a b"),
        (b"/http://x", b"/http://x"),
        (b"/a%zz", b"/a%zz"),
        (b"//a", b"//a"),
    ],
)
def test_a_target_may_be_a_path_or_a_whole_url(peer: Peer, target: bytes, path: bytes) -> None:
    request = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target
    peer.send(request, request, b"HEAD /a HTTP/1.1\r\n\r\n", request)

    assert peer.received.count(b"\r\n\r\nGET " + path + b"  ") == 3


# A head that comes again.


def test_a_repeated_head_means_what_it_meant_and_its_target_is_its_own(peer: Peer) -> None:
    head = b" HTTP/1.1\r\nHost: x\r\nIf-None-Match: 7\r\nif-none-match: 8\r\n\r\n"
    peer.send(*(b"GET /%d" % number + head for number in range(3)))

    assert peer.asked == [b"GET /0 7, 8 ", b"GET /1 7, 8 ", b"GET /2 7, 8 "]


def test_the_headers_of_one_request_are_not_those_of_the_next(peer: Peer) -> None:
    tagged = GET.replace(b"\r\n\r\n", b"\r\nIf-None-Match: 7\r\n\r\n")
    peer.send(tagged, GET, tagged, tagged, post(b"/b", b"", b"If-None-Match: 9\r\n"), GET, GET)

    assert [asked.split(b" ")[2] for asked in peer.asked] == [b"7", b"", b"7", b"7", b"9", b"", b""]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /later HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /later HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, close\r\n\r\n",
        b"GET /later HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
        b"GET /later HTTP/1.0\r\nHost: x\r\n\r\n",
        b"GET /later HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
    ],
)
def test_a_head_that_closes_is_the_last_however_often_it_comes(peer: Peer, head: bytes) -> None:
    peer.send(head, head, head)
    for respond in peer.echo.held:
        respond()

    assert peer.statuses == [200]
    assert peer.is_closed or peer.is_half_closed
    assert (peer.echo.begun, peer.echo.ended) == (1, 1)


PLAIN = b"GET /v1/flights/UA:1 HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_lookup_under_the_headers_of_the_request_before_is_taken_by_its_lane(peer: Peer) -> None:
    peer.echo.taken = []
    peer.send(PLAIN, PLAIN.replace(b"UA:1", b"a/b\\"), GET)  # the last one waits for its turn
    ((asker, table, entity),) = peer.echo.taken

    assert (table, entity, peer.statuses) == (b"flights", b"a/b\\", [200])
    assert asker.keep(b"HTTP/1.1 200 taken\r\n\r\n")
    peer.pause()
    assert peer.received.endswith(b"HTTP/1.1 200 taken\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nGET /a  ")
    peer.send(PLAIN)
    assert len(peer.echo.taken) == 2


@pytest.mark.parametrize(
    "request_",
    [
        PLAIN.replace(b"GET", b"HEAD"),
        PLAIN.replace(b"flights", b"others"),
        PLAIN.replace(b"UA:1", b"UA%3A1"),
        PLAIN.replace(b"UA:1", b"UA:1?release=1"),
        PLAIN.replace(b"UA:1", b"UA 1"),
        PLAIN.replace(b"UA:1", b"\xc3\xa4"),
        PLAIN.replace(b"UA:1", b"x" * 513),
        PLAIN.replace(b"UA:1", b""),
        PLAIN.replace(b"Host: x", b"Host: y"),
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN + PLAIN,
        PLAIN[:20],
        post(b"/v1/flights/lookup", b"{}"),
    ],
)
def test_what_is_anything_else_is_not_taken(peer: Peer, request_: bytes) -> None:
    peer.echo.taken = []
    peer.send(PLAIN, PLAIN)
    ((asker, *_),) = peer.echo.taken
    asker.keep(b"")
    peer.send(request_)

    assert len(peer.echo.taken) == 1


def test_a_lookup_whose_answer_depends_on_its_headers_is_not_taken(peer: Peer) -> None:
    peer.echo.taken = []
    tagged = PLAIN.replace(b"\r\n\r\n", b"\r\nIf-None-Match: 7\r\n\r\n")
    peer.send(tagged, tagged, tagged)

    assert (peer.echo.taken, peer.statuses) == ([], [200] * 3)


def test_who_ends_while_its_lookup_is_taken_is_told_of_the_end(peer: Peer) -> None:
    peer.echo.taken = []
    peer.send(PLAIN, PLAIN)
    ((asker, *_),) = peer.echo.taken

    assert peer.connection.eof_received()
    assert not asker.keep(b"never written")
    asker.send(Response(200, b"x", b""))
    assert peer.received.endswith(b"content-length: 1\r\nconnection: close\r\n\r\nx")
    assert peer.is_closed


def test_a_repeated_get_with_a_body_is_read_with_its_body(peer: Peer) -> None:
    head = b"GET /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    peer.send(head, b"abc", head, b"abc", head + b"abc", GET)

    assert peer.statuses == [200] * 4
    assert peer.asked == [b"GET /b  "] * 3 + [b"GET /a  "]


def test_a_repeated_get_whose_length_is_0_has_no_body(peer: Peer) -> None:
    head = b"GET /b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    peer.send(head, head, head)

    assert peer.asked == [b"GET /b  "] * 3


def test_a_repeated_head_request_has_never_a_body(peer: Peer) -> None:
    request = b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"
    peer.send(request, GET, request, request)

    assert peer.received == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nGET /a  "
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
    )


def test_of_what_a_client_has_no_length_is_told(peer: Peer) -> None:
    peer.send(GET.replace(b"/a", b"/held"))

    assert peer.received == b"HTTP/1.1 304 Not Modified\r\n\r\n"


# Order.


def test_answers_come_in_the_order_of_requests_though_one_comes_late(peer: Peer) -> None:
    peer.send(GET.replace(b"/a", b"/later") + GET + post(b"/b", b"1"), GET.replace(b"/a", b"/c"))
    before = peer.received
    peer.echo.held.pop()()
    peer.pause()

    assert before == b""
    assert peer.asked == [b"GET /later  ", b"GET /a  ", b"POST /b  1", b"GET /c  "]


def test_a_request_that_comes_as_an_answer_goes_does_not_overtake_those_in_line(peer: Peer) -> None:
    peer.send(GET.replace(b"/a", b"/later"), GET)
    peer.echo.held.pop()()  # in the same round of the loop:
    peer.connection.data_received(GET.replace(b"/a", b"/c"))
    peer.pause()

    assert peer.asked == [b"GET /later  ", b"GET /a  ", b"GET /c  "]


def test_requests_that_are_not_answered_are_read_no_further(peer: Peer) -> None:
    peer.send(GET.replace(b"/a", b"/later"), *[GET] * 100)
    begun = peer.echo.begun
    peer.echo.held.pop()()
    peer.pause()

    assert begun == 18
    assert not peer.is_paused
    assert len(peer.statuses) == 18


# An offer of another protocol.


def test_an_upgrade_is_declined_by_answering_and_the_connection_goes_on(peer: Peer) -> None:
    offer = b"GET /u HTTP/1.1\r\n" + H2C + b"\r\n"
    peer.send(offer, offer, offer + GET, GET)

    assert peer.asked == [b"GET /u  "] * 3 + [b"GET /a  "] * 2


@pytest.mark.parametrize("method", [b"POST", b"GET"])
@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(
    "framed",
    [b"Content-Length: 30\r\n\r\n" + GET + b"..", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n"],
)
def test_the_body_of_a_request_that_offers_an_upgrade_is_its_body(
    peer: Peer, method: bytes, step: int, framed: bytes
) -> None:
    stream = (method + b" /u HTTP/1.1\r\n" + H2C + framed) * 2 + GET
    peer.send(*(stream[at : at + step] for at in range(0, len(stream), step)))

    assert peer.statuses == [200, 200, 200]
    assert peer.echo.begun == 3
    assert peer.received.endswith(b"\r\n\r\nGET /a  ")


def test_a_thousand_offers_in_one_piece_are_declined(peer: Peer) -> None:
    peer.send((b"GET /u HTTP/1.1\r\n" + H2C + b"\r\n") * 3000)

    assert peer.statuses == [200] * 3000


def test_an_offer_that_closes_is_the_last(peer: Peer) -> None:
    offer = post(b"/u", b"abc", b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n")
    peer.send(offer, GET)

    assert peer.asked == [b"POST /u  abc"]
    assert b"connection: close" in peer.received


def test_no_tunnel_is_made(peer: Peer) -> None:
    peer.send(b"CONNECT host:1 HTTP/1.1\r\nHost: x\r\n\r\n", GET)

    assert peer.asked == [b"CONNECT host:1  ", b"GET /a  "]


# Bodies that are waited for.

EXPECTING = b"Expect: 100-Continue\r\n"


def test_a_body_that_is_announced_is_asked_for(peer: Peer) -> None:
    request = post(b"/b", b"abc", EXPECTING)
    peer.send(request[:-3])
    before = peer.received
    peer.send(b"abc")

    assert before == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert peer.asked == [b"POST /b  abc"]


def test_a_body_is_asked_for_behind_the_answers_before_it(peer: Peer) -> None:
    peer.send(GET.replace(b"/a", b"/later"), post(b"/b", b"abc", EXPECTING)[:-3])
    before = peer.received
    peer.echo.held.pop()()
    peer.pause()
    between = peer.statuses
    peer.send(b"abc")

    assert before == b""
    assert between == [200, 100]
    assert peer.statuses == [200, 100, 200]


def test_a_client_of_http_1_0_is_sent_no_continue(peer: Peer) -> None:
    peer.send(b"POST /b HTTP/1.0\r\nContent-Length: 3\r\n" + EXPECTING + b"\r\n", b"abc")

    assert peer.statuses == [200]


# Limits.


def long_head(size_bytes: int) -> bytes:
    return b"GET /a HTTP/1.1\r\nHost: x\r\nA: " + b"a" * size_bytes + b"\r\n\r\n"


@pytest.mark.parametrize("step", [1000, 40_000, 1 << 20])
def test_a_head_may_have_64_kib_in_any_pieces(peer: Peer, step: int) -> None:
    stream = long_head(65_000) + long_head(66_000)
    peer.send(*(stream[at : at + step] for at in range(0, len(stream), step)))

    assert peer.statuses == [200, 431]


@pytest.mark.parametrize("offer", [b"", H2C])
def test_short_heads_of_which_one_read_ends_one_and_begins_another_are_no_long_head(peer: Peer, offer: bytes) -> None:
    stream = (GET[:-2] + offer + b"\r\n") * 6000
    cut = len(GET) // 2
    peer.send(stream[:cut], stream[cut:-cut], stream[-cut:])

    assert peer.statuses == [200] * 6000


def test_a_head_without_end_is_cut_off(peer: Peer) -> None:
    peer.send(b"GET /a HTTP/1.1\r\nA: ", *[b"a" * 10_000] * 20)

    assert peer.statuses == [431]


@pytest.mark.parametrize("end", [b"3;", b"3\r\nabc\r\n0\r\nA: "])
def test_a_chunks_extension_and_a_trailer_without_end_are_cut_off(peer: Peer, end: bytes) -> None:
    peer.send(b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + end, *[b"a" * 10_000] * 20)

    assert peer.statuses == [431]
    assert peer.echo.ended == 1


def test_a_long_target_is_no_shorter_when_the_head_comes_again(peer: Peer) -> None:
    peer.send(long_head(30_000), long_head(30_000).replace(b"/a", b"/" + b"a" * 40_000))

    assert peer.statuses == [200, 431]


def test_what_follows_a_refusal_is_read_so_that_its_client_sees_why_but_not_without_end(peer: Peer) -> None:
    peer.send(b"\0", bytes(1 << 20))
    is_closed = peer.is_closed
    peer.send(*[bytes(1 << 20)] * 17)

    assert not is_closed
    assert peer.is_half_closed
    assert peer.is_aborted
    assert peer.statuses == [400]


def test_a_client_that_ends_behind_a_refusal_is_left_at_once(peer: Peer) -> None:
    peer.send(b"\0")

    assert not peer.connection.eof_received()


def test_a_body_over_the_limit_is_read_to_its_end_and_refused(peer: Peer) -> None:
    peer.send(b"POST /b HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", b"a" * 1_048_576)
    before = peer.statuses
    peer.send(b"a", GET)

    assert before == []
    assert peer.statuses == [413, 200]


def test_a_client_that_says_nothing_or_half_a_head_is_left(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup.answering, "IDLE_SECONDS", 0.05)
    slow = Peer(peer._loop)
    for byte in GET[:9]:
        slow.send(bytes([byte]))
        slow.pause(0.01)

    assert slow.is_closed
    assert slow.received == b""


def test_a_client_that_is_answered_late_is_not_left(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup.answering, "IDLE_SECONDS", 0.02)
    waiting = Peer(peer._loop)
    waiting.send(GET.replace(b"/a", b"/later"))
    waiting.pause(0.06)
    is_closed = waiting.is_closed
    waiting.echo.held.pop()()

    assert not is_closed
    assert waiting.statuses == [200]
    waiting.leave()


# A client that does not read.


def test_to_a_client_that_does_not_read_no_more_is_written_and_then_all(peer: Peer) -> None:
    peer.limit = 100_000
    peer.send(GET.replace(b"/a", b"/large") * 50)
    written = len(peer.received)
    is_paused = peer.is_paused
    peer.read_all()

    assert written < 200_000
    assert is_paused
    assert peer.statuses == [200] * 50
    assert not peer.is_paused


def test_a_client_that_never_reads_is_dropped(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup.answering, "IDLE_SECONDS", 0.02)
    deaf = Peer(peer._loop)
    deaf.limit = 0
    deaf.send(GET * 3)
    deaf.pause(0.1)
    deaf.leave()

    assert deaf.is_aborted
    assert deaf.statuses == [200]
    assert (deaf.echo.begun, deaf.echo.ended) == (3, 3)


# The end of a connection.


@pytest.mark.parametrize(
    "sent",
    [
        GET[:9],
        GET.replace(b"/a", b"/later") + GET,
        post(b"/b", b"abc")[:-1],
        GET.replace(b"/a", b"/later") + post(b"/b", b"abc")[:-1],
        post(b"/b", b"abc", EXPECTING)[:-3],
        post(b"/b", b"abc", b"Connection: Upgrade\r\nUpgrade: h2c\r\n")[:-1],
        GET + b"\0",
    ],
)
def test_whatever_a_client_was_at_when_it_left_is_in_flight_no_more(peer: Peer, sent: bytes) -> None:
    peer.send(sent)
    peer.leave()
    for respond in peer.echo.held:
        respond()
    peer.pause()

    assert peer.echo.begun == peer.echo.ended


def test_a_client_that_shuts_its_side_is_told_what_it_has_asked(peer: Peer) -> None:
    peer.send(GET.replace(b"/a", b"/later") + GET + post(b"/b", b"abc")[:-1])
    stays_open = peer.connection.eof_received()
    peer.echo.held.pop()()
    peer.pause()

    assert stays_open
    assert peer.asked == [b"GET /later  ", b"GET /a  "]
    assert peer.received.count(b"connection: close") == 1
    assert peer.is_closed
    assert (peer.echo.begun, peer.echo.ended) == (3, 3)


def test_a_client_that_shuts_its_side_and_waits_for_nothing_is_left(peer: Peer) -> None:
    peer.send(GET, GET[:9])

    assert not peer.connection.eof_received()


def test_a_connection_that_is_stopped_answers_all_it_was_asked(peer: Peer) -> None:
    peer.send(GET.replace(b"/a", b"/later") + GET + post(b"/b", b"abc")[:-1])
    peer.connection.stop()
    peer.echo.held.pop()()
    peer.connection.stop()  # while none is being answered, and one waits
    peer.pause()
    is_closed = peer.is_closed
    peer.send(b"c")

    assert not is_closed
    assert peer.asked == [b"GET /later  ", b"GET /a  ", b"POST /b  abc"]
    assert peer.received.count(b"connection: close") == 1
    assert peer.is_closed


@pytest.mark.parametrize("sent", [b"", GET, GET[:9]])
def test_a_connection_that_was_asked_nothing_is_stopped_at_once(peer: Peer, sent: bytes) -> None:
    peer.send(sent)
    peer.connection.stop()

    assert peer.is_closed


def test_a_defect_in_what_answers_is_no_fault_of_the_request(peer: Peer) -> None:
    with pytest.raises(Exception, match=r"headers_complete|callback") as told:
        peer.connection.data_received(GET.replace(b"/a", b"/defect"))

    assert isinstance(told.value.__context__, KeyError)
    assert peer.received == b""


def test_a_tls_handshake_that_fails_leaves_nothing_behind(loop: asyncio.AbstractEventLoop) -> None:
    before = len(loop._scheduled)  # type: ignore[attr-defined]
    Connection(Echo(), set(), loop)

    assert len(loop._scheduled) == before  # type: ignore[attr-defined]


# Any pieces.

_GETS = [GET, b"GET /b?q HTTP/1.1\r\nHost: x\r\n\r\n", GET.replace(b"\r\n\r\n", b"\r\nIf-None-Match: 7\r\n\r\n")]
_OTHERS = [
    b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n" + GET,
    b"GET /held HTTP/1.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /u HTTP/1.1\r\n" + H2C + b"\r\n",
    post(b"/u", GET, H2C),
    post(b"/b", GET),
    post(b"/b", b"abc", EXPECTING),
    b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1e;x=y\r\n" + GET + b"..\r\n2\r\nab\r\n0\r\nA: b\r\n\r\n",
    b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n",
]
_LAST = [b"", b"\0", b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n", b"GET /a HTTP/1.0\r\n\r\n", long_head(70_000)]


def answers_to(loop: asyncio.AbstractEventLoop, pieces: list[bytes], *, is_late: bool = False) -> tuple[bytes, int]:
    """What a client receives, late answers coming with each piece or at the end, and how many requests were begun."""
    peer = Peer(loop)
    for piece in pieces:
        if peer.is_closed:
            break
        peer.connection.data_received(piece)
        while peer.echo.held and not is_late:
            peer.echo.held.pop(0)()
            peer.pause()
        peer.pause()
    while peer.echo.held:
        peer.echo.held.pop(0)()
        peer.pause()
    peer.leave()
    assert peer.echo.begun == peer.echo.ended
    return peer.received, peer.echo.begun


@given(
    st.lists(st.sampled_from(_GETS * 3 + _OTHERS), max_size=12),
    st.sampled_from(_LAST),
    st.lists(st.integers(0, 2000), max_size=12),
    st.booleans(),
)
def test_however_a_stream_is_cut_its_answers_are_those_of_its_requests_one_by_one(
    loop: asyncio.AbstractEventLoop, requests: list[bytes], last: bytes, cuts: list[int], is_late: bool
) -> None:
    stream = b"".join([*requests, last])
    ends = sorted({cut % len(stream) for cut in cuts} | {0, len(stream)}) if stream else []
    pieces = [stream[start:end] for start, end in pairwise(ends)]

    assert answers_to(loop, pieces, is_late=is_late) == answers_to(loop, [*requests, last])
