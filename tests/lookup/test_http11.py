"""The API's own HTTP: what a client may send, in which pieces, and in which order it is answered."""

import json
import re
import socket
import time
from typing import Any

import pytest
import redis

from lookup import answering, http11
from schemas.head import Head
from tests.lookup.conftest import PutVersion

FLIGHT = "UA:1545:EWR:2013-07-01"
ONE = f"GET /v1/flights/{FLIGHT} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
UNKNOWN = b"GET /v1/flights/nobody HTTP/1.1\r\nHost: x\r\n\r\n"
_IDS = json.dumps({"ids": [FLIGHT]}).encode()
BATCH = b"POST /v1/flights/lookup HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(_IDS), _IDS)


@pytest.fixture(scope="module")
def server(run_server: Any, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with run_server(tmp_path_factory.mktemp("http"), redis_server, ["flights"]) as running:
        yield running


@pytest.fixture(autouse=True)
def published(redis_client: redis.Redis, put_version: PutVersion) -> Head:
    return put_version(redis_client, 3, {FLIGHT: 0.25})


def talk(server: Any, *pieces: bytes, pause: float = 0.0) -> bytes:
    """All that the server says to these bytes until it closes, or says nothing for half a second."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        return rest(connection)


def rest(connection: socket.socket) -> bytes:
    connection.settimeout(0.5)
    said = b""
    try:
        while piece := connection.recv(65536):
            said += piece
    except TimeoutError:
        pass
    return said


def statuses(said: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", said)]


ASKED: dict[str, tuple[bytes, list[int]]] = {
    "one after the other without waiting": (ONE + UNKNOWN + BATCH + ONE, [200, 404, 200, 200]),
    "the same head again and again": (ONE * 5, [200] * 5),
    "a body in chunks with a trailer": (
        b"POST /v1/flights/lookup HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(_IDS), _IDS) + ONE,
        [200, 200],
    ),
    "the whole URL, as to a proxy": (f"GET http://x/v1/flights/{FLIGHT} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), [200]),
    "HTTP/1.0 without keep-alive": (f"GET /v1/flights/{FLIGHT} HTTP/1.0\r\n\r\n".encode() + ONE, [200]),
    "an end announced": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + ONE, [200]),
    "an offer of h2c": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + ONE,
        [200, 200],
    ),
    "an offer of h2c with a body": (
        BATCH.replace(b"Host: x\r\n", b"Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n") + ONE,
        [200, 200],
    ),
    "bytes that are no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400]),
    "a request behind which there are none": (ONE + b"nonsense\r\n\r\n", [200, 400]),
    "both a length and chunks": (
        b"POST /v1/flights/lookup HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400],
    ),
    "two lengths": (
        b"POST /v1/flights/lookup HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", [400],
    ),
    "a header without a name": (b"GET /healthz HTTP/1.1\r\n: x\r\n\r\n", [400]),
    "a space before the colon": (b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", [400]),
    "a head of 70 kB": (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", [431]),
    "a tunnel": (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", [404]),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_is_answered_in_order_and_what_is_no_request_is_told(server: Any, name: str) -> None:
    asked, expected = ASKED[name]

    assert statuses(talk(server, asked)) == expected
    assert server.ask("GET", "/healthz").status == 200


def test_a_head_request_has_the_length_and_no_body(server: Any) -> None:
    said = talk(server, ONE.replace(b"GET", b"HEAD"))

    assert b"content-length: " in said
    assert said.endswith(b"\r\n\r\n")


def test_an_answer_that_is_held_has_no_body_and_the_connection_goes_on(server: Any) -> None:
    held = ONE.replace(b"\r\n\r\n", b"\r\nIf-None-Match: *\r\n\r\n")

    said = talk(server, held + ONE)

    assert statuses(said) == [304, 200]
    assert said.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 200")


def test_a_client_that_waits_to_be_told_gets_word_to_go_on(server: Any) -> None:
    head = BATCH.partition(b"\r\n\r\n")[0] + b"\r\nExpect: 100-continue\r\n\r\n"

    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(head)
        told = connection.recv(65536)
        connection.sendall(_IDS)
        said = rest(connection)

    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert statuses(said) == [200]


def test_a_client_that_asks_for_what_there_is_not_need_not_send_its_body(server: Any) -> None:
    head = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"

    assert statuses(talk(server, head)) == [404]


def test_a_client_that_asks_nothing_more_gets_what_it_asked(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(BATCH + ONE)
        connection.shutdown(socket.SHUT_WR)

        assert statuses(rest(connection)) == [200, 200]


def test_a_client_that_goes_away_in_the_middle_of_its_body_is_in_flight_no_more(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(BATCH[:-5])
        time.sleep(0.3)
    time.sleep(0.6)  # the gauge is told every quarter of a second

    page = server.ask("GET", "/metrics").body.decode()
    assert "almanac_requests_in_flight 1.0" in page.splitlines()


def test_a_head_that_does_not_end_is_refused(server: Any) -> None:
    pieces = [b"GET /healthz HTTP/1.1\r\n", *[b"X: " + b"x" * 9000 + b"\r\n"] * 9]

    assert statuses(talk(server, *pieces, pause=0.02)) == [431]


def test_a_body_may_be_longer_than_a_head(server: Any) -> None:
    ids = json.dumps({"ids": ["x" * 400] * 900}).encode()
    head = b"POST /v1/flights/lookup HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(ids)

    assert len(ids) > http11.HEAD_BYTES
    assert statuses(talk(server, head, ids[:100_000], ids[100_000:], pause=0.05)) == [200]


def test_limits_are_those_of_the_documentation() -> None:
    assert (http11.MAX_BODY_BYTES, http11.HEAD_BYTES, http11.BODY_SECONDS) == (1 << 20, 1 << 16, 5.0)
    assert answering.IDLE_SECONDS == 75.0


def test_a_client_that_sends_a_megabyte_of_head_before_it_reads_has_its_answer(server: Any) -> None:
    said = talk(server, b"GET /healthz HTTP/1.1\r\nA: " + b"a" * (1 << 20) + b"\r\n\r\n")

    assert statuses(said) == [431]
    assert b'"code":"HTTP"' in said


def test_a_client_that_asks_for_much_and_does_not_read_costs_little_and_has_it_all_when_it_does(server: Any) -> None:
    count = 3000
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request * (count - 1) + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        time.sleep(0.3)
        alive = server.ask("GET", "/healthz").status
        received = b"".join(iter(lambda: connection.recv(1 << 20), b""))

    assert alive == 200
    assert received.count(b"HTTP/1.1 200 OK\r\n") == count
