"""What the API answers while Redis is away, slow, empty or damaged, and of older releases."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from lookup.acl import reader
from lookup.connect import connect
from schemas.head import Head, Serving
from schemas.keys import bucket_key, bucket_of, head_key, priors_key
from schemas.row import encode_rows
from tests.lookup.conftest import COLUMNS
from tests.redis_servers import make_user

FLIGHT = "UA:1545:EWR:2013-07-01"
TABLES = {"flights": Serving()}

Client = redis.Redis
PutVersion = Callable[..., Head]


@pytest.fixture(scope="module")
def server(run_server: Any, redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    declared = {"flights": {"default": {"score": 0.5}}, "bare": {}}
    with run_server(tmp_path_factory.mktemp("serve"), redis_server, declared) as running:
        yield running


def _metric(server: Any, line: str) -> float:
    page = server.ask("GET", "/metrics").body.decode()
    return next((float(row.rpartition(" ")[2]) for row in page.splitlines() if row.startswith(line)), 0.0)


def _with_priors(client: Client, head: Head, priors: dict[str, float], **serving: Any) -> Head:
    """The version, its head saying more, and with priors."""
    said = head.model_copy(update={"priors": len(priors), "serving": Serving(**serving)})
    for field, score in priors.items():
        client.hset(priors_key(head.table, head.version), field, encode_rows(COLUMNS[:1], [[score]])[0])
    client.set(head_key(head.table), said.model_dump_json())
    return said


def test_before_the_first_publish_answers_are_flagged_and_the_server_is_up_but_not_ready(
    server: Any, redis_url: str
) -> None:
    declared = server.ask("GET", f"/v1/flights/{FLIGHT}")
    bare = server.lookup({"ids": [FLIGHT, "UA:2"]}, table="bare")
    ready = server.ask("GET", "/readyz")

    assert (declared.status, declared.headers["retry-after"]) == (200, "1")
    assert declared.json == {
        "id": FLIGHT, "status": "default", "outputs": {"score": 0.5}, "release": None, "model": None, "variant": None,
        "scored_at": None, "age_seconds": None, "segment": None, "flag": "NO_VERSION",
    }  # fmt: skip
    assert (bare.status, bare.json["release"]) == (200, None)
    assert [(answer["status"], answer["flag"]) for answer in bare.json["answers"]] == [("unknown", "NO_VERSION")] * 2
    assert (ready.status, ready.json["code"]) == (503, "NO_VERSION")
    assert ready.json["message"].splitlines()[0] == "table 'flights': nothing is published in this table"
    assert server.ask("GET", "/healthz").json == {"status": "ok"}


def test_an_entity_without_a_row_gets_its_most_specific_prior_then_the_default(
    server: Any, redis_client: Client, put_version: PutVersion
) -> None:
    head = put_version(redis_client, 3, {FLIGHT: 0.25})
    _with_priors(
        redis_client, head, {"0:UA:EWR": 0.1, "1:EWR": 0.2},
        key=("carrier", "flight", "origin", "date"), segments=(("carrier", "origin"), ("origin",)),
        default={"score": 0.9},
    )  # fmt: skip

    ids = [FLIGHT, "UA:1:EWR:x", "AA:1:EWR:x", "AA:1:LGA:x", "of another form"]
    answers = server.lookup({"ids": ids}).json["answers"]

    assert [(a["status"], a["outputs"].get("score"), a["segment"]) for a in answers] == [
        ("exact", 0.25, None),
        ("prior", 0.1, "carrier,origin"),
        ("prior", 0.2, "origin"),
        ("default", 0.9, None),
        ("default", 0.9, None),
    ]
    assert {answer["release"] for answer in answers} == {3}
    assert server.ask("GET", "/v1/flights/AA:1:LGA:x").status == 200


@pytest.mark.parametrize(
    ("limits", "status", "flag", "code"),
    [
        ({"stale_after_seconds": 60}, "stale", None, "STALE"),
        ({"stale_after_seconds": 60, "drop_after_seconds": 120}, "default", "EXPIRED", "STALE"),
        ({"stale_after_seconds": 10**10}, "exact", None, None),
    ],
)
def test_predictions_that_are_too_old_are_stale_and_then_fall_back_and_readiness_says_so(
    run_server: Any, redis_url: str, redis_client: Client, put_version: PutVersion, tmp_path: Path,
    limits: dict[str, int], status: str, flag: str | None, code: str | None,
) -> None:  # fmt: skip
    _with_priors(redis_client, put_version(redis_client, 3, {FLIGHT: 0.25}), {}, default={"score": 0.9}, **limits)
    with run_server(tmp_path, redis_url, ["flights"]) as server:
        reply = server.ask("GET", f"/v1/flights/{FLIGHT}")
        ready = server.ask("GET", "/readyz")
        is_stale = _metric(server, 'almanac_table_stale{table="flights"}')

    assert (reply.status, reply.json["status"], reply.json["flag"]) == (200, status, flag)
    assert (ready.status, ready.json.get("code")) == ((503, code) if code else (200, None))
    assert is_stale == (1 if code else 0)


def test_an_older_release_is_answered_while_it_is_kept(
    server: Any, redis_client: Client, put_version: PutVersion
) -> None:
    for release, score in ((3, 0.25), (4, 0.75)):
        head = put_version(redis_client, release, {FLIGHT: score})
        redis_client.hset("almanac:{flights}:versions", str(head.version), head.model_dump_json())

    old = server.ask("GET", f"/v1/flights/{FLIGHT}?release=3")
    batch = server.ask("POST", "/v1/flights/lookup?release=3", json.dumps({"ids": [FLIGHT]}).encode())
    live = server.ask("GET", f"/v1/flights/{FLIGHT}")
    redis_client.hdel("almanac:{flights}:versions", "13")
    gone = server.ask("GET", f"/v1/flights/{FLIGHT}?release=3")
    never = server.ask("GET", f"/v1/flights/{FLIGHT}?release=5")

    assert (old.json["release"], old.json["outputs"]) == (3, {"score": 0.25})
    assert (batch.json["release"], batch.json["answers"][0]["outputs"]) == (3, {"score": 0.25})
    assert live.json["release"] == 4
    assert (gone.status, gone.json["code"]) == (410, "RELEASE_GONE")
    assert (never.status, never.json["code"]) == (404, "RELEASE_UNKNOWN")
    assert "release 5: no such release; expected one of 4" in never.json["message"]


def test_an_answer_that_a_client_has_already_is_not_sent_again_until_a_new_version(
    server: Any, redis_client: Client, put_version: PutVersion
) -> None:
    put_version(redis_client, 3, {FLIGHT: 0.25})
    first = server.ask("GET", f"/v1/flights/{FLIGHT}")
    match = {"If-None-Match": first.headers["etag"]}

    again = server.ask("GET", f"/v1/flights/{FLIGHT}", headers=match)
    put_version(redis_client, 4, {FLIGHT: 0.75})
    moved = server.ask("GET", f"/v1/flights/{FLIGHT}", headers=match)

    assert (first.status, first.headers["cache-control"]) == (200, "no-cache")
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (moved.status, moved.json["outputs"]) == (200, {"score": 0.75})


def test_a_client_may_name_several_answers_that_it_has_or_any(
    server: Any, redis_client: Client, put_version: PutVersion
) -> None:
    put_version(redis_client, 3, {FLIGHT: 0.25})
    path = f"/v1/flights/{FLIGHT}"
    etag = server.ask("GET", path).headers["etag"]
    offered = (f'W/"1.1.exact", {etag}', "*", etag.removeprefix("W/"), 'W/"1.1.exact"', "", etag[:-2])

    assert [server.ask("GET", path, headers={"If-None-Match": tags}).status for tags in offered] == [
        304, 304, 304, 200, 200, 200,
    ]  # fmt: skip


def test_a_default_is_another_answer_once_its_release_is_too_old(
    server: Any, redis_client: Client, put_version: PutVersion
) -> None:
    head = put_version(redis_client, 3, {FLIGHT: 0.25})
    etags = []
    for limits in ({}, {"drop_after_seconds": 60}):
        _with_priors(redis_client, head, {}, default={"score": 0.9}, **limits)
        reply = server.ask("GET", "/v1/flights/UA:9")
        etags.append((reply.json["status"], reply.json["flag"], reply.headers["etag"]))

    assert etags == [("default", None, 'W/"13.13.1.default"'), ("default", "EXPIRED", 'W/"13.13.1.defaultEXPIRED"')]


def test_an_answer_given_before_an_erasure_is_not_taken_for_one_given_after_it(
    server: Any, redis_client: Client, put_version: PutVersion
) -> None:
    head = put_version(redis_client, 3, {FLIGHT: 0.25, "UA:2": 0.5})
    before = server.ask("GET", f"/v1/flights/{FLIGHT}").headers["etag"]
    redis_client.set(head_key("flights"), head.model_copy(update={"entities": 1}).model_dump_json())

    again = server.ask("GET", f"/v1/flights/{FLIGHT}", headers={"If-None-Match": before})

    assert (again.status, again.headers["etag"]) == (200, 'W/"13.13.1.exact"')


def test_no_cache_keeps_an_answer_that_may_change(server: Any, redis_client: Client, put_version: PutVersion) -> None:
    flagged = server.ask("GET", f"/v1/flights/{FLIGHT}")
    put_version(redis_client, 3, {FLIGHT: 0.25})
    unknown = server.ask("GET", "/v1/flights/UA:9")

    assert (flagged.status, flagged.headers["cache-control"]) == (200, "no-cache")
    assert (unknown.status, unknown.headers["cache-control"]) == (404, "no-cache")


def test_clients_of_one_release_alone_open_the_circuit_and_close_it_again(
    run_server: Any, own_redis: Any, put_version: PutVersion, tmp_path: Path
) -> None:
    store = own_redis()
    with connect(store.url) as client:
        head = put_version(client, 3, {FLIGHT: 0.25})
        client.hset("almanac:{flights}:versions", str(head.version), head.model_dump_json())
    path = f"/v1/flights/{FLIGHT}?release=3"
    with run_server(tmp_path, store.url, ["flights"]) as server:
        assert server.ask("GET", path).status == 200
        store.process.send_signal(signal.SIGSTOP)
        hung = [server.ask("GET", path) for _ in range(3)]
        is_open = _metric(server, "almanac_circuit_open")
        store.process.send_signal(signal.SIGCONT)
        _wait(lambda: server.ask("GET", path).status == 200)
        after = [server.ask("GET", path).status for _ in range(10)]

    assert [(reply.status, reply.json["code"], reply.headers["retry-after"]) for reply in hung] == [
        (503, "STORE_TIMEOUT", "1")
    ] * 3
    assert is_open == 1
    assert after == [200] * 10


def test_batches_under_load_never_mix_releases_and_a_flip_is_seen_by_the_next_request(
    server: Any, redis_client: Client, put_version: PutVersion
) -> None:
    ids = [f"UA:{number}" for number in range(200)]
    put_version(redis_client, 1, dict.fromkeys(ids, 1.0))
    stopped, batches = threading.Event(), []

    def ask() -> None:
        while not stopped.is_set():
            batches.append(server.lookup({"ids": ids}).json)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = []
    for release in range(2, 22):
        put_version(redis_client, release, dict.fromkeys(ids, float(release)))
        seen.append(server.ask("GET", "/v1/flights/UA:7").json["release"])
    stopped.set()
    for thread in threads:
        thread.join()

    assert seen == list(range(2, 22))
    told = [{(a["release"], a["outputs"].get("score")) for a in batch["answers"]} for batch in batches]
    assert told == [{(batch["release"], float(batch["release"]))} for batch in batches]
    assert len({batch["release"] for batch in batches}) > 1


def test_redis_hung_killed_emptied_and_back_again_is_flagged_in_bounded_time_and_then_an_answer(
    run_server: Any, own_redis: Any, put_version: PutVersion, tmp_path: Path
) -> None:
    store = own_redis()
    with connect(store.url) as client:
        head = put_version(client, 3, {FLIGHT: 0.25})
        key = ("carrier", "flight", "origin", "date")
        _with_priors(client, head, {"0:UA": 0.125}, key=key, segments=(("carrier",),))
    with run_server(tmp_path, store.url, ["flights"]) as server:

        def ask() -> tuple[int, str, float | None, str | None, bool]:
            started = time.monotonic()
            reply = server.ask("GET", f"/v1/flights/{FLIGHT}")
            in_time = time.monotonic() - started < 2
            found = reply.json
            return reply.status, found["status"], found["outputs"].get("score"), found["flag"], in_time

        answered = (200, "exact", 0.25, None, True)
        assert ask() == answered
        store.process.send_signal(signal.SIGSTOP)
        assert [ask() for _ in range(8)] == [(200, "prior", 0.125, "STORE_TIMEOUT", True)] * 8
        assert _metric(server, "almanac_circuit_open") == 1
        store.process.send_signal(signal.SIGCONT)
        _wait(lambda: ask() == answered)
        assert _metric(server, "almanac_circuit_open") == 0
        store.kill()
        assert ask() == (200, "prior", 0.125, "STORE_DOWN", True)
        assert server.ask("GET", f"/v1/flights/{FLIGHT}?release=3").status == 503
        assert server.ask("GET", "/healthz").status == 200
        assert server.ask("GET", "/readyz").json == {
            "code": "STORE_DOWN",
            "message": "table 'flights': the store cannot be read now; try again",
        }
        assert _metric(server, 'almanac_table_up{table="flights"}') == 0
        assert _metric(server, 'almanac_flagged_total{flag="STORE_DOWN",table="flights"}') > 0
        store.start()
        _wait(lambda: ask() == answered)
        with connect(store.url) as client:
            client.flushall()
        assert ask() == (200, "prior", 0.125, "STORE_LOST", True)


def test_a_damaged_prior_is_an_error_while_redis_answers_and_a_default_while_it_is_away(
    run_server: Any, own_redis: Any, put_version: PutVersion, tmp_path: Path
) -> None:
    store = own_redis()
    with connect(store.url) as client:
        head = put_version(client, 3, {FLIGHT: 0.25})
        serving = {"key": ("carrier", "flight"), "segments": (("carrier",),), "default": {"score": 0.5}}
        _with_priors(client, head, {"0:UA": 0.125, "0:AA": 0.375}, **serving)
        client.hset(priors_key("flights", head.version), "0:AA", b"\x91")
    with run_server(tmp_path, store.url, ["flights"]) as server:
        ids = {"ids": ["UA:1", "AA:1"]}
        live = server.lookup(ids)
        store.kill()
        away = server.lookup(ids)

    assert (live.status, live.json["code"]) == (500, "ROW_DECODE")
    assert (away.status, away.json["release"]) == (200, 3)
    assert [(answer["status"], answer["outputs"], answer["flag"]) for answer in away.json["answers"]] == [
        ("prior", {"score": 0.125}, "STORE_DOWN"),
        ("default", {"score": 0.5}, "STORE_DOWN"),
    ]


def test_a_table_that_alone_cannot_be_read_opens_no_circuit_of_another(
    run_server: Any, own_redis: Any, put_version: PutVersion, tmp_path: Path
) -> None:
    store = own_redis()
    with connect(store.url) as client:
        put_version(client, 3, {FLIGHT: 0.25}, "other")
    with run_server(tmp_path, make_user(store.url, reader("other", redis_6=True)), ["flights", "other"]) as server:
        refused = [server.ask("GET", f"/v1/flights/{FLIGHT}").json["flag"] for _ in range(5)]
        answered = server.ask("GET", f"/v1/other/{FLIGHT}").json
        circuits = [_metric(server, f'almanac_circuit_open{{table="{table}"}}') for table in ("flights", "other")]

    assert refused == ["STORE_ACL"] * 5
    assert (answered["status"], answered["flag"]) == ("exact", None)
    assert circuits == [1, 0]


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_many_clients_at_once_are_all_answered_in_bounded_time_while_redis_hangs(
    run_server: Any, own_redis: Any, put_version: PutVersion, tmp_path: Path
) -> None:
    store = own_redis()
    with connect(store.url) as client:
        put_version(client, 3, {FLIGHT: 0.25})
    with run_server(tmp_path, store.url, ["flights"]) as server:
        assert _told_at_once(server.port) == {(b"200", True)}

        store.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        told = _told_at_once(server.port)
        seconds = time.monotonic() - started
        store.process.send_signal(signal.SIGCONT)

    assert told == {(b"200", False)}
    assert seconds < 4


def _told_at_once(port: int) -> set[tuple[bytes, bool]]:
    """What 200 clients get: status, and whether it is the prediction."""
    request = f"GET /v1/flights/{FLIGHT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(200)]
        for connection in clients:
            connection.sendall(request)
        replies = [connection.recv(4096) for connection in clients]
    return {(reply.split(b" ", 2)[1], b'"exact"' in reply) for reply in replies}


def test_one_damaged_row_hurts_only_the_request_that_asks_for_it(
    server: Any, redis_client: Client, put_version: PutVersion
) -> None:
    head = put_version(redis_client, 3, {f"UA:{number}": 0.25 for number in range(300)})
    redis_client.delete(bucket_key("flights", head.version, 0))
    redis_client.set(bucket_key("flights", head.version, 0), "another program's")
    ids = [f"UA:{number}" for number in range(300)]
    bad = {entity for entity in ids if bucket_of(entity, head.buckets) == 0}
    statuses: dict[str, int] = {}

    def ask(entity: str) -> None:
        statuses[entity] = server.ask("GET", f"/v1/flights/{entity}").status

    threads = [threading.Thread(target=ask, args=(entity,)) for entity in ids[:40]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == {entity: 500 if entity in bad else 200 for entity in ids[:40]}
    assert 0 < len(bad & set(ids[:40])) < 40


def test_a_wrong_password_is_flagged_and_in_no_argument_no_log_and_no_answer(
    run_server: Any, own_redis: Any, tmp_path: Path
) -> None:
    store = own_redis("--requirepass", "canary-right")
    wrong = store.url.replace("//", "//:canary-wrong@")
    with run_server(tmp_path, wrong, ["flights"]) as server:
        reply = server.ask("GET", f"/v1/flights/{FLIGHT}")
        ready = server.ask("GET", "/readyz")
        workers = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        told = [Path(f"/proc/{pid}/cmdline").read_text() for pid in (server.process.pid, *workers)]

    assert (reply.status, reply.json["flag"]) == (200, "STORE_AUTH")
    assert len(workers) == 1
    assert "canary" not in "".join([*told, server.log.read_text(), reply.body.decode(), ready.body.decode()])
    assert "STORE_AUTH" in server.log.read_text()
