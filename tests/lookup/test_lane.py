"""Plain lookups, which are answered together: each as if it were answered by itself."""

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from lookup.connect import connect
from lookup.keyring import key_digest
from schemas.head import ColumnSpec, Head, Serving
from schemas.keys import bucket_key, head_key, priors_key
from schemas.row import encode_rows
from tests.lookup.conftest import Reply

FLIGHT = "UA:1545:EWR:2013-07-01"
COLUMNS = (
    ColumnSpec(name="score", type="float64"),
    ColumnSpec(name="model", type="enum", values=("m1", "m2")),
    ColumnSpec(name="variant", type="enum", values=("champion", "challenger")),
    ColumnSpec(name="status", type="enum", values=("scored", "carried", "withheld")),
)
ROWS = {  # score, model, variant, status
    FLIGHT: (0.25, "m1", "champion", "scored"),
    'a/b","\\': (1e-7, "m2", "challenger", "scored"),
    "late": (0.5, "m1", "champion", "carried"),
    "gone": (None, "m1", "champion", "withheld"),
    "none": (None, "m1", "champion", "scored"),
}
ASKED = [*ROWS, "UA", "nobody", "lookup", "x" * 512, "x" * 513]
SERVINGS = {
    "no default": Serving(),
    "a default": Serving(default={"score": 0.125}),
    "stale": Serving(stale_after_seconds=60),
    "dropped": Serving(drop_after_seconds=60, default={"score": 0.125}),
}
COUNTS = (
    'almanac_requests_total{route="entity",status="200"}',
    'almanac_requests_total{route="entity",status="404"}',
    'almanac_request_seconds_count{route="entity"}',
    'almanac_lookups_total{status="exact",table="flights"}',
    'almanac_lookups_total{status="unknown",table="flights"}',
)
HEAD = b" HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(run_server: Any, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with run_server(tmp_path_factory.mktemp("lane"), redis_server, ["flights"]) as running:
        yield running


def put(client: redis.Redis, serving: Serving = SERVINGS["no default"]) -> Head:
    """A version with a row of each kind, in one bucket."""
    keyed = serving.model_copy(update={"key": ("carrier",), "segments": (("carrier",),)})
    head = Head(
        table="flights", release=4, date="2013-07-01", version=14, token=14, buckets=1, entities=len(ROWS), priors=1,
        columns=COLUMNS, run_id="r", scored_at="2013-07-01T04:00:00Z", serving=keyed,
    )  # fmt: skip
    rows = encode_rows(COLUMNS, list(zip(*ROWS.values(), strict=True)))
    client.hset(bucket_key("flights", 14, 0), mapping=dict(zip(ROWS, rows, strict=True)))
    client.hset(priors_key("flights", 14), "0:UA", encode_rows(COLUMNS[:1], [[0.75]])[0])
    client.set(head_key("flights"), head.model_dump_json())
    return head


def again(port: int, target: str, times: int = 3, headers: Mapping[str, str] | None = None) -> list[Reply]:
    """The replies to the same request, one behind the other on one connection: all but the first are in the lane."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    replies = []
    try:
        for _ in range(times):
            connection.request("GET", target, headers=dict(headers or {}))
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders() if name.lower() != "date"}
            replies.append(Reply(response.status, told, response.read()))
    finally:
        connection.close()
    return replies


def timeless(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    body = re.sub(rb'"age_seconds":[0-9.]+', b'"age_seconds":0', reply.body)
    return reply.status, {**reply.headers, "content-length": str(len(body))}, body


def counts(server: Any) -> list[float]:
    page = server.ask("GET", "/metrics").body.decode().splitlines()
    return [sum(float(line.rpartition(" ")[2]) for line in page if line.startswith(name)) for name in COUNTS]


@pytest.mark.parametrize("serving", SERVINGS.values(), ids=SERVINGS)
@pytest.mark.parametrize("entity", ASKED, ids=lambda entity: entity[:20] + str(len(entity)))
def test_an_answer_in_the_lane_is_that_of_the_first_request(
    server: Any, redis_client: redis.Redis, serving: Serving, entity: str
) -> None:
    put(redis_client, serving)

    first, *others = again(server.port, f"/v1/flights/{entity}")

    assert [timeless(reply) for reply in others] == [timeless(first)] * 2


def test_lookups_of_many_connections_in_one_tick_are_each_answered_with_its_own(
    server: Any, redis_client: redis.Redis
) -> None:
    put(redis_client)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5)) for _ in range(60)]
        for _ in range(4):
            for at, client in enumerate(clients):
                client.sendall(b"GET /v1/flights/" + ASKED[at % 8].encode() + HEAD)
            told = [client.recv(65536) for client in clients]

    assert [json.loads(reply.partition(b"\r\n\r\n")[2])["id"] for reply in told] == [ASKED[at % 8] for at in range(60)]


def test_what_is_answered_in_the_lane_is_counted(server: Any, redis_client: redis.Redis) -> None:
    put(redis_client)
    before = counts(server)

    again(server.port, f"/v1/flights/{FLIGHT}", 10)
    again(server.port, "/v1/flights/nobody", 5)

    assert [now - then for now, then in zip(counts(server), before, strict=True)] == [10, 5, 15, 10, 5]
    assert b"almanac_requests_in_flight 1.0" in server.ask("GET", "/metrics").body  # this one


def test_a_flip_is_seen_by_the_next_lookup_in_the_lane(server: Any, redis_client: redis.Redis) -> None:
    head = put(redis_client)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    releases = []
    for release in range(4, 10):
        redis_client.set(head_key("flights"), head.model_copy(update={"release": release}).model_dump_json())
        connection.request("GET", f"/v1/flights/{FLIGHT}")
        releases.append(json.loads(connection.getresponse().read())["release"])
    connection.close()

    assert releases == [*range(4, 10)]


def test_a_client_that_asks_and_ends_is_answered_and_told_that_it_is_the_end(
    server: Any, redis_client: redis.Redis
) -> None:
    put(redis_client)
    request = f"GET /v1/flights/{FLIGHT}".encode() + HEAD
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(request)
        client.recv(65536)
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        said = b""
        while piece := client.recv(65536):
            said += piece

    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close\r\n" in said
    assert said.endswith(b"}")


def test_in_the_lane_a_key_opens_its_tables_and_pays_for_each_lookup(
    run_server: Any, redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    put(redis_client)
    key, slow = "alm_" + "k" * 43, "alm_" + "s" * 43
    entries = {
        name: {"sha256": key_digest(secret), "tables": ["flights"], "requests_per_second": rate, "burst": 4 * rate}
        for name, secret, rate in (("quick", key, 1000), ("slow", slow, 1))
    }
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": entries}))
    with run_server(tmp_path, redis_url, ["flights", "other"], keys=keys) as server:
        quick = again(server.port, f"/v1/flights/{FLIGHT}", 5, {"Authorization": f"Bearer {key}"})
        limited = again(server.port, f"/v1/flights/{FLIGHT}", 8, {"Authorization": f"Bearer {slow}"})
        closed = [
            reply.status
            for target, headers in (
                (f"/v1/flights/{FLIGHT}", {}),
                (f"/v1/flights/{FLIGHT}", {"Authorization": "Bearer alm_no"}),
                (f"/v1/other/{FLIGHT}", {"Authorization": f"Bearer {key}"}),
            )
            for reply in again(server.port, target, 2, headers)
        ]

    assert [reply.status for reply in quick] == [200] * 5
    assert [reply.status for reply in limited[:4]] == [200] * 4
    assert {(reply.status, reply.json["code"]) for reply in limited[5:]} == {(429, "API_KEY_RATE")}
    assert closed == [401, 401, 401, 401, 403, 403]


def test_while_redis_is_away_the_lane_answers_flagged_at_once_and_finds_back(
    run_server: Any, own_redis: Any, tmp_path: Path
) -> None:
    store = own_redis()
    with connect(store.url) as client:
        put(client)
    with run_server(tmp_path, store.url, ["flights"]) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)

        def asked() -> tuple[int, Any]:
            connection.request("GET", f"/v1/flights/{FLIGHT}")
            response = connection.getresponse()
            return response.status, json.loads(response.read())

        assert [asked()[1]["status"] for _ in range(3)] == ["exact"] * 3
        store.kill()
        away = [asked() for _ in range(6)]
        store.start()
        with connect(store.url) as client:
            put(client)
        deadline = time.monotonic() + 10
        while asked()[1]["status"] != "exact" and time.monotonic() < deadline:
            time.sleep(0.05)
        back = [asked()[1]["status"] for _ in range(3)]
        connection.close()

    assert {(status, answer["status"], answer["flag"]) for status, answer in away} == {(200, "unknown", "STORE_DOWN")}
    assert back == ["exact"] * 3
