"""The read API from outside: a real server process over a real Redis."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import redis

from lookup.api import create_app
from lookup.connect import connect
from lookup.embedded import free_port
from lookup.openapi import document
from lookup.serve import serve
from schemas.answer import LookupResponse, UnknownAnswer
from schemas.errors import DeclarationError
from schemas.keys import Head, bucket_key, bucket_of, head_key

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
    }


def test_one_unknown_entity_is_404_with_an_answer_that_is_an_error_too(server: Any, published: Head) -> None:
    reply = server.ask("GET", "/v1/flights/UA:9")

    assert reply.status == 404
    assert UnknownAnswer.model_validate_json(reply.body, strict=True).status == "unknown"
    assert reply.json["code"] == "ENTITY_UNKNOWN"
    assert reply.json["message"] == "release 3 has no such entity"


def test_a_batch_is_answered_in_order_duplicates_and_unknown_ones_too(server: Any, published: Head) -> None:
    reply = server.lookup({"ids": ["UA:2", "nope", FLIGHT, "UA:2"]})

    response = LookupResponse.model_validate_json(reply.body, strict=True)
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
    assert batch.json["answers"] == [one.json]


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
    "a method that nobody has": ("BREW", "/v1/flights/x", None, {}, 405, "METHOD"),
    "a form": ("POST", LOOKUP, b"ids=a", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "BODY_TYPE"),
    "no body": ("POST", LOOKUP, b"", JSON, 400, "BODY_JSON"),
    "not JSON": ("POST", LOOKUP, b"ids: [a]", JSON, 400, "BODY_JSON"),
    "half of the JSON": ("POST", LOOKUP, b'{"ids": ["a"', JSON, 400, "BODY_JSON"),
    "two documents": ("POST", LOOKUP, _ids("a") * 2, JSON, 400, "BODY_JSON"),
    "JSON in UTF-16": ("POST", LOOKUP, '{"ids": ["a"]}'.encode("utf-16"), JSON, 400, "BODY_JSON"),
    "bytes that are not UTF-8": ("POST", LOOKUP, b'{"ids": ["\xff"]}', JSON, 400, "BODY_JSON"),
    "lone surrogate": ("POST", LOOKUP, b'{"ids": ["\\ud800"]}', JSON, 400, "BODY_JSON"),
    "nested 100,000 deep": ("POST", LOOKUP, b"[" * 100_000 + b"]" * 100_000, JSON, 400, "BODY_JSON"),
    "an integer of 5,000 digits": ("POST", LOOKUP, b'{"ids": [' + b"1" * 5000 + b"]}", JSON, 400, "BODY_JSON"),
    "NaN": ("POST", LOOKUP, b'{"ids": [NaN]}', JSON, 422, "BODY_SHAPE"),
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
        'ids.1: Input should be a valid string; expected {"ids": ["...", ...]}'
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
    with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
        _chunked(server.port, *[b"100000\r\n" + b" " * 0x100000 + b"\r\n"] * 256)

    assert server.ask("GET", f"/v1/flights/{FLIGHT}").status == 200


def test_a_body_that_does_not_come_is_given_up_while_others_are_answered(server: Any, published: Head) -> None:
    head = f"POST {LOOKUP} HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\nConnection: close\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as slow:
        slow.sendall(head + b'{"ids"')
        assert server.ask("GET", f"/v1/flights/{FLIGHT}").status == 200
        received = slow.recv(65536)

    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"BODY_SLOW" in received


def test_before_the_first_publish_there_is_no_version_and_the_server_is_up_but_not_ready(
    server: Any, redis_url: str
) -> None:
    one = server.ask("GET", f"/v1/flights/{FLIGHT}")
    batch = server.lookup({"ids": [FLIGHT]})
    ready = server.ask("GET", "/readyz")

    assert (one.status, one.json["code"], one.headers["retry-after"]) == (503, "NO_VERSION", "1")
    assert (batch.status, batch.json["code"]) == (503, "NO_VERSION")
    assert (ready.status, ready.json["code"]) == (503, "NO_VERSION")
    assert ready.json["message"] == "table 'flights': nothing is published in this table yet"
    assert server.ask("GET", "/healthz").json == {"status": "ok"}


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
    sent: list[Any] = []
    scope: Any = SimpleNamespace(method="GET", path="/v1/flights/x")  # and no query_string, which every request has
    proto: Any = SimpleNamespace(response_bytes=lambda *response: sent.append(response))

    asyncio.run(create_app(redis_url, ["flights"]).__rsgi__(scope, proto))

    ((status, _, body),) = sent
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


def test_redis_hung_killed_and_back_again_is_503_in_bounded_time_and_then_an_answer(
    run_server: Any, own_redis: Any, put_version: PutVersion, tmp_path: Path
) -> None:
    store = own_redis()
    with connect(store.url) as client:
        put_version(client, 3, {FLIGHT: 0.25})
    with run_server(tmp_path, store.url, ["flights"]) as server:

        def ask() -> tuple[int, str | None, str | None, bool]:
            started = time.monotonic()
            reply = server.ask("GET", f"/v1/flights/{FLIGHT}")
            in_time = time.monotonic() - started < 2
            return reply.status, reply.json.get("code"), reply.headers.get("retry-after"), in_time

        answered = (200, None, None, True)
        assert ask() == answered
        store.process.send_signal(signal.SIGSTOP)
        assert ask() == (503, "STORE_TIMEOUT", "1", True)
        store.process.send_signal(signal.SIGCONT)
        assert ask() == answered
        store.kill()
        assert ask() == (503, "STORE_DOWN", "1", True)
        assert server.ask("GET", "/healthz").status == 200
        assert server.ask("GET", "/readyz").json == {
            "code": "STORE_DOWN",
            "message": "table 'flights': the store cannot be read now; try again",
        }
        assert _metric(server, 'almanac_table_up{table="flights"}') == 0
        store.start()
        assert ask() == answered


def test_many_clients_at_once_are_all_answered_and_all_get_their_503_in_bounded_time_while_redis_hangs(
    run_server: Any, own_redis: Any, put_version: PutVersion, tmp_path: Path
) -> None:
    store = own_redis()
    with connect(store.url) as client:
        put_version(client, 3, {FLIGHT: 0.25})
    with run_server(tmp_path, store.url, ["flights"]) as server:
        assert _statuses_at_once(server.port) == {b"200"}

        store.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        statuses = _statuses_at_once(server.port)
        seconds = time.monotonic() - started
        store.process.send_signal(signal.SIGCONT)

    assert statuses == {b"503"}
    assert seconds < 4


def _statuses_at_once(port: int) -> set[bytes]:
    """What 200 clients get, more than redis-py's pool has connections."""
    request = f"GET /v1/flights/{FLIGHT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(200)]
        for connection in clients:
            connection.sendall(request)
        return {connection.recv(4096).split(b" ", 2)[1] for connection in clients}


def test_a_password_is_in_no_argument_no_log_and_no_answer(
    run_server: Any, own_redis: Any, put_version: PutVersion, tmp_path: Path
) -> None:
    store = own_redis("--requirepass", "canary-right")
    wrong = store.url.replace("//", "//:canary-wrong@")
    with run_server(tmp_path, wrong, ["flights"]) as server:
        reply = server.ask("GET", f"/v1/flights/{FLIGHT}")
        ready = server.ask("GET", "/readyz")
        workers = _children(server.process.pid)
        told = [Path(f"/proc/{pid}/cmdline").read_text() for pid in (server.process.pid, *workers)]

    assert (reply.status, reply.json["code"]) == (503, "STORE_AUTH")
    assert len(workers) == 1
    assert "canary" not in "".join([*told, server.log.read_text(), reply.body.decode(), ready.body.decode()])
    assert "STORE_AUTH" in server.log.read_text()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_several_workers_count_together_and_a_killed_one_is_replaced(
    run_server: Any, redis_server: str, redis_client: Client, put_version: PutVersion, tmp_path: Path
) -> None:
    put_version(redis_client, 3, {FLIGHT: 0.25})
    with run_server(tmp_path, redis_server, ["flights"], workers=2) as server:
        for _ in range(40):
            assert server.ask("GET", f"/v1/flights/{FLIGHT}").status == 200
        counts = {_metric(server, 'almanac_lookups_total{status="exact",table="flights"}') for _ in range(10)}

        victim = _children(server.process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            now = _children(server.process.pid)
            if len(now) == 2 and victim not in now:
                break
            time.sleep(0.05)
        server.wait_until_up()

        assert counts == {40.0}
        assert server.ask("GET", f"/v1/flights/{FLIGHT}").status == 200


def test_a_server_that_was_killed_leaves_no_worker_behind(run_server: Any, redis_url: str, tmp_path: Path) -> None:
    with run_server(tmp_path, redis_url, ["flights"]) as server:
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and _listens(server.port):
            time.sleep(0.1)

        assert not _listens(server.port)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_stops_at_sigterm_with_success(run_server: Any, redis_url: str, tmp_path: Path) -> None:
    with run_server(tmp_path, redis_url, ["flights"]) as server:
        pass

    assert server.process.returncode == 0
    assert not _listens(server.port)


def test_a_port_in_use_is_named_with_what_to_do(server: Any, redis_url: str) -> None:
    with pytest.raises(DeclarationError, match=rf"port {server.port} of 127.0.0.1.*another --port \[CFG_PORT\]"):
        serve(redis_url, ["flights"], port=server.port)


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_what_is_no_port_is_refused(redis_url: str, port: int) -> None:
    with pytest.raises(DeclarationError, match=f"port {port} .*CFG_PORT"):
        serve(redis_url, ["flights"], port=port)


def test_serving_no_table_or_no_redis_is_refused(redis_url: str) -> None:
    with pytest.raises(DeclarationError, match="CFG_TABLES"):
        serve(redis_url, [], port=free_port())
    with pytest.raises(DeclarationError, match="CFG_REDIS_URL"):
        serve("http://127.0.0.1", ["flights"], port=free_port())


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
