"""The read API from outside: a real server process over a real Redis."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
import redis

from lookup.api import create_app
from lookup.message import Request, Response
from lookup.openapi import document
from schemas.answer import LookupResponse, UnknownAnswer
from schemas.head import Head, Serving
from schemas.keys import bucket_key, bucket_of, head_key

GOLDEN = Path(__file__).parent.parent / "golden" / "openapi.json"
FLIGHT = "UA:1545:EWR:2013-07-01"
JSON = {"Content-Type": "application/json"}

Client = redis.Redis
PutVersion = Callable[..., Head]


@pytest.fixture(scope="module")
def server(run_server: Any, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with run_server(tmp_path_factory.mktemp("serve"), redis_server, ["flights"]) as running:
        yield running


@pytest.fixture
def published(redis_client: Client, put_version: PutVersion) -> Head:
    return put_version(redis_client, 3, {FLIGHT: 0.25, "UA:2": 0.5})


def test_one_entity_is_answered_with_its_release_and_model(server: Any, published: Head) -> None:
    reply = server.ask("GET", f"/v1/flights/{FLIGHT}")

    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {
        "id": FLIGHT,
        "status": "exact",
        "outputs": {"score": 0.25},
        "release": 3,
        "model": "delay-1",
        "variant": "champion",
        "scored_at": "2013-07-01T04:00:00Z",
        "age_seconds": reply.json["age_seconds"],
        "segment": None,
        "flag": None,
    }
    assert reply.json["age_seconds"] == pytest.approx(time.time() - 1372651200, abs=60)


def test_one_unknown_entity_is_404_with_an_answer_that_is_an_error_too(server: Any, published: Head) -> None:
    reply = server.ask("GET", "/v1/flights/UA:9")

    assert reply.status == 404
    assert msgspec.json.decode(reply.body, type=UnknownAnswer).status == "unknown"
    assert reply.json["code"] == "ENTITY_UNKNOWN"
    assert reply.json["message"] == "release 3 has no such entity"


def test_a_batch_is_answered_in_order_duplicates_and_unknown_ones_too(server: Any, published: Head) -> None:
    reply = server.lookup({"ids": ["UA:2", "nope", FLIGHT, "UA:2"]})

    response = msgspec.json.decode(reply.body, type=LookupResponse)
    assert reply.status == 200
    assert (response.table, response.release) == ("flights", 3)
    assert [(a.id, a.status, a.outputs.get("score")) for a in response.answers] == [
        ("UA:2", "exact", 0.5),
        ("nope", "unknown", None),
        (FLIGHT, "exact", 0.25),
        ("UA:2", "exact", 0.5),
    ]


def test_a_batch_may_have_1000_ids(server: Any, published: Head) -> None:
    reply = server.lookup({"ids": [FLIGHT] * 1000})

    assert (reply.status, len(reply.json["answers"])) == (200, 1000)


@pytest.mark.parametrize(
    "entity",
    [
        "a/b", "/a", "a//b", "../../etc/passwd", "{}", "*", ";", "a?b", "a#b", "%00", "100%", "lookup", "a b", " a",
        "a\\:b:c", "é", "e\u0301", "日本", "😀", '"', "+", "x" * 512,
    ],
)  # fmt: skip
def test_an_odd_id_is_an_ordinary_id_by_path_and_in_a_batch(
    server: Any, redis_client: Client, put_version: PutVersion, entity: str
) -> None:
    put_version(redis_client, 3, {entity: 0.75})

    one = server.ask("GET", f"/v1/flights/{quote(entity, safe='')}")
    batch = server.lookup({"ids": [entity]})

    assert (one.status, one.json["id"], one.json["outputs"]) == (200, entity, {"score": 0.75})
    assert [{**answer, "age_seconds": 0} for answer in batch.json["answers"]] == [{**one.json, "age_seconds": 0}]


def test_any_http_client_can_ask(server: Any, published: Head) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        assert client.get(f"/v1/flights/{quote(FLIGHT)}").json()["status"] == "exact"
        assert client.post("/v1/flights/lookup", json={"ids": [FLIGHT]}).json()["release"] == 3
        assert client.head(f"/v1/flights/{FLIGHT}").status_code == 200


def _ids(*ids: object) -> bytes:
    return json.dumps({"ids": list(ids)}).encode()


LOOKUP = "/v1/flights/lookup"
BAD_REQUESTS: dict[str, tuple[str, str, bytes | None, dict[str, str], int, str]] = {
    "unknown path": ("GET", "/v2/flights/x", None, {}, 404, "NOT_FOUND"),
    "no id in the path": ("GET", "/v1/flights", None, {}, 404, "NOT_FOUND"),
    "doubled slashes": ("GET", "//v1//flights/x", None, {}, 404, "NOT_FOUND"),
    "unknown table": ("GET", "/v1/churn/x", None, {}, 404, "TABLE_UNKNOWN"),
    "unknown table of a batch": ("POST", "/v1/churn/lookup", _ids("x"), JSON, 404, "TABLE_UNKNOWN"),
    "a table that is a Redis pattern": ("GET", "/v1/*/x", None, {}, 404, "TABLE_UNKNOWN"),
    "empty id": ("GET", "/v1/flights/", None, {}, 400, "ENTITY_ID"),
    "blank id": ("GET", "/v1/flights/%20%09", None, {}, 400, "ENTITY_ID"),
    "id of 513 bytes": ("GET", "/v1/flights/" + "x" * 513, None, {}, 400, "ENTITY_ID"),
    "id of 257 two-byte letters": ("GET", "/v1/flights/" + "%C3%A9" * 257, None, {}, 400, "ENTITY_ID"),
    "NUL in an id": ("GET", "/v1/flights/a%00b", None, {}, 400, "ENTITY_ID"),
    "line break in an id": ("GET", "/v1/flights/a%0D%0Ab", None, {}, 400, "ENTITY_ID"),
    "id that is not UTF-8": ("GET", "/v1/flights/%FF%FE", None, {}, 400, "ENTITY_ID"),
    "unencoded ? in an id": ("GET", "/v1/flights/a?b", None, {}, 400, "QUERY"),
    "DELETE": ("DELETE", "/v1/flights/x", None, {}, 405, "METHOD"),
    "POST to an entity": ("POST", "/v1/flights/x", _ids("x"), JSON, 405, "METHOD"),
    "PUT to a batch": ("PUT", LOOKUP, _ids("x"), JSON, 405, "METHOD"),
    "POST to healthz": ("POST", "/healthz", b"{}", JSON, 405, "METHOD"),
    "a method that nobody has": ("BREW", "/v1/flights/x", None, {}, 400, "HTTP"),
    "a form": ("POST", LOOKUP, b"ids=a", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "BODY_TYPE"),
    "no body": ("POST", LOOKUP, b"", JSON, 400, "BODY_JSON"),
    "not JSON": ("POST", LOOKUP, b"ids: [a]", JSON, 400, "BODY_JSON"),
    "half of the JSON": ("POST", LOOKUP, b'{"ids": ["a"', JSON, 400, "BODY_JSON"),
    "two documents": ("POST", LOOKUP, _ids("a") * 2, JSON, 400, "BODY_JSON"),
    "JSON in UTF-16": ("POST", LOOKUP, '{"ids": ["a"]}'.encode("utf-16"), JSON, 400, "BODY_JSON"),
    "bytes that are not UTF-8": ("POST", LOOKUP, b'{"ids": ["\xff"]}', JSON, 400, "BODY_JSON"),
    "lone surrogate": ("POST", LOOKUP, b'{"ids": ["\\ud800"]}', JSON, 400, "BODY_JSON"),
    "nested 100,000 deep": ("POST", LOOKUP, b"[" * 100_000 + b"]" * 100_000, JSON, 422, "BODY_SHAPE"),
    "an integer of 5,000 digits": ("POST", LOOKUP, b'{"ids": [' + b"1" * 5000 + b"]}", JSON, 422, "BODY_SHAPE"),
    "NaN": ("POST", LOOKUP, b'{"ids": [NaN]}', JSON, 400, "BODY_JSON"),
    "a query of another kind": ("GET", "/v1/flights/x?version=3", None, {}, 400, "QUERY"),
    "a release that is no number": ("GET", "/v1/flights/x?release=last", None, {}, 400, "QUERY"),
    "release 0": ("GET", "/v1/flights/x?release=0", None, {}, 400, "QUERY"),
    "a release of 5,000 digits": ("GET", "/v1/flights/x?release=" + "9" * 5000, None, {}, 400, "QUERY"),
    "a release of 5,000 digits behind zeros": (
        "GET", "/v1/flights/x?release=00000000001" + "0" * 5000, None, {}, 400, "QUERY",
    ),
    "two releases": ("POST", f"{LOOKUP}?release=1&release=2", _ids("x"), JSON, 400, "QUERY"),
    "a number as id": ("POST", LOOKUP, _ids(1545), JSON, 422, "BODY_SHAPE"),
    "null as id": ("POST", LOOKUP, _ids("a", None), JSON, 422, "BODY_SHAPE"),
    "one text in place of a list": ("POST", LOOKUP, b'{"ids": "a"}', JSON, 422, "BODY_SHAPE"),
    "a list in place of an object": ("POST", LOOKUP, b'["a"]', JSON, 422, "BODY_SHAPE"),
    "null": ("POST", LOOKUP, b"null", JSON, 422, "BODY_SHAPE"),
    "no ids": ("POST", LOOKUP, b"{}", JSON, 422, "BODY_SHAPE"),
    "an unknown key": ("POST", LOOKUP, b'{"ids": ["a"], "version": 3}', JSON, 422, "BODY_SHAPE"),
    "an unknown key of 100 kB": ("POST", LOOKUP, b'{"' + b"k" * 100_000 + b'": 1}', JSON, 422, "BODY_SHAPE"),
    "0 ids": ("POST", LOOKUP, _ids(), JSON, 422, "BODY_SHAPE"),
    "1,001 ids": ("POST", LOOKUP, _ids(*map(str, range(1001))), JSON, 413, "BATCH_TOO_LARGE"),
    "100,000 ids": ("POST", LOOKUP, _ids(*["a"] * 100_000), JSON, 413, "BATCH_TOO_LARGE"),
    "blank id in a batch": ("POST", LOOKUP, _ids("a", " "), JSON, 400, "ENTITY_ID"),
    "NUL in a batch": ("POST", LOOKUP, _ids("a\0"), JSON, 400, "ENTITY_ID"),
    "huge id in a batch": ("POST", LOOKUP, _ids("x" * 100_000), JSON, 400, "ENTITY_ID"),
    "a body of 1 MiB and a byte": ("POST", LOOKUP, b" " * ((1 << 20) + 1), JSON, 413, "BODY_TOO_LARGE"),
    "a body of 8 MiB": ("POST", LOOKUP, b" " * (8 << 20), JSON, 413, "BODY_TOO_LARGE"),
    "1 MiB for an unknown table": ("POST", "/v1/churn/lookup", b" " * (1 << 20), JSON, 404, "TABLE_UNKNOWN"),
    "1 MiB by a wrong method": ("PUT", LOOKUP, b" " * (1 << 20), JSON, 405, "METHOD"),
}  # fmt: skip


@pytest.mark.parametrize("request_name", BAD_REQUESTS)
def test_a_bad_request_gets_one_clear_error_and_the_server_goes_on(
    server: Any, published: Head, request_name: str
) -> None:
    method, target, body, headers, status, code = BAD_REQUESTS[request_name]

    reply = server.ask(method, target, body, headers)

    assert (reply.status, reply.json["code"]) == (status, code)
    assert set(reply.json) == {"code", "message"}
    assert 5 < len(reply.json["message"]) < 300
    assert "Traceback" not in reply.json["message"]
    assert server.ask("GET", f"/v1/flights/{FLIGHT}").status == 200


def test_an_error_says_where_and_what_was_expected(server: Any, published: Head) -> None:
    assert server.lookup({"ids": ["a", " "]}).json["message"] == "ids[1] is blank"
    assert server.lookup({"ids": ["a", 7]}).json["message"] == (
        'Expected `str`, got `int` - at `$.ids[1]`; expected {"ids": ["...", ...]}'
    )
    assert server.ask("GET", "/v1/churn/x").json["message"] == "no such table"


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("POST", "/v1/flights/x", "GET, HEAD"),
        ("DELETE", "/v1/flights/lookup", "GET, HEAD, POST"),
        ("PUT", "/metrics", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(server: Any, method: str, target: str, allow: str) -> None:
    assert server.ask(method, target).headers["allow"] == allow


def _chunked(port: int, *blocks: bytes) -> bytes:
    head = f"POST {LOOKUP} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        for block in (head, *blocks):
            connection.sendall(block)
        return connection.recv(65536)


def test_a_chunked_body_over_the_limit_is_refused(server: Any, published: Head) -> None:
    blocks = [b"10000\r\n" + b" " * 0x10000 + b"\r\n"] * 17

    received = _chunked(server.port, *blocks, b"0\r\n\r\n")

    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"BODY_TOO_LARGE" in received


def test_a_body_without_end_is_cut_off_and_the_server_goes_on(server: Any, published: Head) -> None:
    def send_on(connection: socket.socket) -> None:
        block, deadline = b"100000\r\n" + b" " * 0x100000 + b"\r\n", time.monotonic() + 30
        while time.monotonic() < deadline:
            connection.sendall(block)

    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        connection.sendall(f"POST {LOOKUP} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            send_on(connection)

    assert server.ask("GET", f"/v1/flights/{FLIGHT}").status == 200


def test_a_body_that_does_not_come_is_given_up_while_others_are_answered(server: Any, published: Head) -> None:
    head = f"POST {LOOKUP} HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\nConnection: close\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as slow:
        slow.sendall(head + b'{"ids"')
        assert server.ask("GET", f"/v1/flights/{FLIGHT}").status == 200
        received = slow.recv(65536)

    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"BODY_SLOW" in received


def test_a_published_table_makes_the_server_ready(server: Any, published: Head) -> None:
    reply = server.ask("GET", "/readyz")

    assert (reply.status, reply.json) == (200, {"status": "ready", "releases": {"flights": 3}})


def test_a_flip_is_seen_by_the_next_request(
    server: Any, published: Head, redis_client: Client, put_version: PutVersion
) -> None:
    server.ask("GET", f"/v1/flights/{FLIGHT}")
    put_version(redis_client, 4, {FLIGHT: 0.75})

    assert server.ask("GET", f"/v1/flights/{FLIGHT}").json["outputs"] == {"score": 0.75}


def test_damaged_data_is_an_error_with_a_code_and_no_bytes_of_it(
    server: Any, published: Head, redis_client: Client
) -> None:
    redis_client.hset(
        bucket_key("flights", published.version, bucket_of("UA:2", published.buckets)), "UA:2", b"secret bytes"
    )

    reply = server.ask("GET", "/v1/flights/UA:2")

    assert (reply.status, reply.json["code"]) == (500, "ROW_DECODE")
    assert "secret" not in reply.body.decode()
    assert server.ask("GET", f"/v1/flights/{FLIGHT}").status == 200


def test_a_damaged_head_is_an_error_and_not_ready(server: Any, redis_client: Client) -> None:
    redis_client.set(head_key("flights"), b"garbage")

    reply = server.ask("GET", f"/v1/flights/{FLIGHT}")

    assert (reply.status, reply.json["code"]) == (500, "STORE_POINTER_FORMAT")
    assert server.ask("GET", "/readyz").status == 503


def test_a_time_that_cannot_be_read_is_an_age_that_is_not_a_number(
    server: Any, published: Head, redis_client: Client
) -> None:
    redis_client.set(head_key("flights"), published.model_copy(update={"scored_at": "soon"}).model_dump_json())

    page = server.ask("GET", "/metrics")

    assert page.status == 200
    assert b'almanac_scored_age_seconds{table="flights"} NaN' in page.body


def test_a_defect_of_ours_is_500_for_the_client_and_a_traceback_in_the_log(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Response] = []
    app = create_app(redis_url, {"flights": Serving()})
    app._ask_one = lambda _: None.missing  # type: ignore[attr-defined,method-assign]

    app.begin(Request("GET", "/v1/flights/UA:1", "", {})).answer(sent.append)

    ((status, body, _),) = sent
    assert (status, json.loads(body)["code"]) == (500, "INTERNAL")
    assert b"AttributeError" not in body
    assert "AttributeError" in caplog.text


def _metric(server: Any, line: str) -> float:
    page = server.ask("GET", "/metrics").body.decode()
    return next((float(row.rpartition(" ")[2]) for row in page.splitlines() if row.startswith(line)), 0.0)


def test_metrics_count_requests_and_lookups_and_tell_the_live_release(server: Any, published: Head) -> None:
    lines = (
        'almanac_requests_total{route="batch",status="200"}',
        'almanac_request_seconds_count{route="batch"}',
        'almanac_lookups_total{status="unknown",table="flights"}',
    )
    before = [_metric(server, line) for line in lines]

    server.lookup({"ids": [FLIGHT, "nope", "neither"]})

    after = [_metric(server, line) for line in lines]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 2]
    assert _metric(server, 'almanac_head_version{table="flights"}') == 3
    assert _metric(server, 'almanac_table_up{table="flights"}') == 1
    assert _metric(server, 'almanac_scored_age_seconds{table="flights"}') > 0


def test_what_a_client_sends_is_never_a_label(server: Any, published: Head) -> None:
    server.ask("GET", "/v1/attack-table/x")
    server.ask("GET", "/attack-path")

    assert b"attack" not in server.ask("GET", "/metrics").body


def test_the_openapi_document_is_the_golden_one_and_is_served(server: Any) -> None:
    text = json.dumps(document(), indent=2, sort_keys=True) + "\n"
    if os.environ.get("ALMANAC_GOLDEN") == "write":
        GOLDEN.write_text(text)

    assert text == GOLDEN.read_text()
    assert server.ask("GET", "/openapi.json").json == json.loads(text)


def test_every_reference_of_the_openapi_document_leads_somewhere() -> None:
    described = document()
    names = {name.partition('"')[0] for name in json.dumps(described).split("#/components/schemas/")[1:]}

    assert names <= set(described["components"]["schemas"])
    assert described["openapi"].startswith("3.1")


def test_what_serves_loads_no_spark_no_great_expectations_and_no_model_library() -> None:
    heavy = {"pyspark", "great_expectations", "airflow", "lightgbm", "sklearn", "pandas", "pyarrow"}
    code = "import sys, lookup.api, lookup.serve; print(*{name.partition('.')[0] for name in sys.modules})"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert heavy & set(loaded) == set()
