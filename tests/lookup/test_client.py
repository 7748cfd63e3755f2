"""The client against real API workers and a real Redis with a replica: one is lost, and no lookup fails."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis

from lookup.client import AsyncClient, Client, Options
from lookup.connect import connect
from lookup.embedded import free_port
from schemas.answer import Answer
from schemas.errors import DeclarationError, InputError, RefusedError, UnavailableError
from schemas.keys import head_key, versions_key

_SCORES = {f"UA:{number}": number / 4096 for number in range(2500)}
Look = Callable[..., list[Answer]]


def _look(workers: Sequence[str], ids: Sequence[str], options: Options = Options(), **given: Any) -> list[Answer]:  # noqa: B008  # frozen
    with Client(workers, options) as client:
        return client.lookup_many("flights", ids, **given)


def _look_async(workers: Sequence[str], ids: Sequence[str], options: Options = Options(), **given: Any) -> list[Answer]:  # noqa: B008  # frozen
    async def look() -> list[Answer]:
        async with AsyncClient(workers, options) as client:
            return await client.lookup_many("flights", ids, **given)

    return asyncio.run(look())


both = pytest.mark.parametrize("look", [_look, _look_async])


@contextmanager
def _two_workers(run_server: Any, folder: Path, redis_url: str) -> Iterator[list[Any]]:
    with ExitStack() as stack:
        started = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            started.append(stack.enter_context(run_server(folder / name, redis_url, ["flights"])))
        yield started


@pytest.fixture(scope="module")
def workers(redis_server: str, run_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """Two API workers of one Redis; no test may end them."""
    with _two_workers(run_server, tmp_path_factory.mktemp("workers"), redis_server) as started:
        yield started


@pytest.fixture
def mortal_workers(redis_url: str, run_server: Any, tmp_path: Path) -> Iterator[list[Any]]:
    """Two of a test's own."""
    with _two_workers(run_server, tmp_path, redis_url) as started:
        yield started


def _urls(workers: Sequence[Any]) -> list[str]:
    return [f"http://127.0.0.1:{worker.port}" for worker in workers]


@both
def test_api_workers_answer_in_the_order_asked(
    look: Look, workers: list[Any], redis_client: redis.Redis, put_version: Any
) -> None:
    put_version(redis_client, 3, {"UA:1": 0.25, "a/b?c#d é\\:x": 0.5})

    found = look(_urls(workers), ["a/b?c#d é\\:x", "nope", "UA:1"])

    assert [(answer.status, answer.outputs, answer.release) for answer in found] == [
        ("exact", {"score": 0.5}, 3),
        ("unknown", {}, 3),
        ("exact", {"score": 0.25}, 3),
    ]


@both
def test_one_worker_killed_fails_no_lookup(
    look: Look, mortal_workers: list[Any], redis_client: redis.Redis, put_version: Any
) -> None:
    put_version(redis_client, 3, {"UA:1": 0.25})
    mortal_workers[0].process.kill()
    mortal_workers[0].process.wait()

    for policy in ("least_loaded", "round_robin", "by_key"):
        found = [look(_urls(mortal_workers), ["UA:1"], Options(policy=policy)) for _ in range(2)]
        assert [answer.status for (answer,) in found] == ["exact", "exact"]


def test_a_worker_killed_under_load_fails_no_lookup(
    mortal_workers: list[Any], redis_client: redis.Redis, put_version: Any
) -> None:
    put_version(redis_client, 3, {"UA:1": 0.25})

    with Client(_urls(mortal_workers)) as client:
        for number in range(60):
            if number == 20:
                mortal_workers[0].process.kill()
                mortal_workers[0].process.wait()
            assert client.lookup("flights", "UA:1").outputs == {"score": 0.25}


@both
def test_more_than_a_batch_of_ids_is_answered_from_one_release(
    look: Look, workers: list[Any], redis_client: redis.Redis, put_version: Any
) -> None:
    head = put_version(redis_client, 3, _SCORES)
    redis_client.hset(versions_key("flights"), str(head.version), head.model_dump_json())

    found = look(_urls(workers), list(_SCORES))

    assert [answer.outputs["score"] for answer in found] == list(_SCORES.values())
    assert {answer.release for answer in found} == {3}


@both
def test_a_publication_between_two_parts_does_not_mix_releases(
    look: Look, redis_url: str, redis_client: redis.Redis, put_version: Any
) -> None:
    for release in (3, 4):
        head = put_version(redis_client, release, {entity: float(release) for entity in _SCORES})
        redis_client.hset(versions_key("flights"), str(head.version), head.model_dump_json())
    older = redis_client.hget(versions_key("flights"), "13")
    redis_client.set(head_key("flights"), older)
    newer = redis_client.hget(versions_key("flights"), "14")
    asked = 0

    def clock() -> float:  # read once before each part is asked
        nonlocal asked
        asked += 1
        if asked == 2:
            redis_client.set(head_key("flights"), newer)
        return 0.0

    found = look([redis_url], list(_SCORES), Options(clock=clock))

    assert asked == 3
    assert {(answer.release, answer.outputs["score"]) for answer in found} == {(3, 3.0)}
    assert {answer.release for answer in look([redis_url], ["UA:1"])} == {4}


@both
def test_a_release_can_be_named(look: Look, redis_url: str, redis_client: redis.Redis, put_version: Any) -> None:
    for release in (3, 4):
        head = put_version(redis_client, release, {"UA:1": float(release)})
        redis_client.hset(versions_key("flights"), str(head.version), head.model_dump_json())

    (found,) = look([redis_url], ["UA:1"], release=3)

    assert (found.release, found.outputs) == (3, {"score": 3.0})
    with pytest.raises(InputError, match="RELEASE_UNKNOWN"):
        look([redis_url], ["UA:1"], release=9)


@both
def test_the_code_of_the_api_is_kept(
    look: Look, workers: list[Any], redis_client: redis.Redis, put_version: Any
) -> None:
    put_version(redis_client, 3, {"UA:1": 0.25})

    with pytest.raises(InputError) as refused:
        look(_urls(workers), ["UA:1"], release=9)

    assert [problem.code for problem in refused.value.problems] == ["RELEASE_UNKNOWN"]


@both
def test_a_replica_answers_when_the_primary_is_gone(look: Look, own_redis: Any, put_version: Any) -> None:
    primary = own_redis()
    replica = own_redis("--replicaof", "127.0.0.1", str(primary.port))
    with connect(primary.url) as client:
        put_version(client, 3, {"UA:1": 0.25})
        # The write that a WAIT counts is on the replica.
        deadline = time.monotonic() + 20
        while not client.wait(1, 200):
            assert time.monotonic() < deadline, "the replica did not follow"
            client.set("another", "write")
    urls = [primary.url, replica.url]
    assert [look(urls, ["UA:1"], Options("round_robin"))[0].outputs for _ in range(2)] == [{"score": 0.25}] * 2

    primary.kill()

    for _ in range(2):
        assert look(urls, ["UA:1"], Options("round_robin"))[0].outputs == {"score": 0.25}


@both
def test_a_replica_that_is_empty_is_passed_over(
    look: Look, own_redis: Any, redis_url: str, redis_client: redis.Redis, put_version: Any
) -> None:
    put_version(redis_client, 3, {"UA:1": 0.25})
    empty = own_redis()

    (found,) = look([empty.url, redis_url], ["UA:1"], Options("round_robin"))

    assert found.release == 3


@both
def test_when_no_worker_answers_each_was_asked_once(look: Look) -> None:
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]

    with pytest.raises(UnavailableError, match="API_DOWN"):
        look(urls, ["UA:1"])


class _Replies(BaseHTTPRequestHandler):
    """Answers every request with what the server was given, and keeps what it was asked."""

    def do_POST(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("authorization")))
        self.rfile.read(int(self.headers["content-length"]))
        status, body = server.reply
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other_server() -> Iterator[Any]:
    """A server that is not ours: its `reply` is (status, body)."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Replies) as server:
        of: Any = server
        of.asked, of.url = [], f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@both
@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (401, b'{"code":"KEY_UNKNOWN","message":"no such key"}', RefusedError, "KEY_UNKNOWN"),
        (429, b'{"code":"RATE","message":"too many"}', RefusedError, "RATE"),
        (404, b'{"code":"TABLE_UNKNOWN","message":"no such table"}', InputError, "TABLE_UNKNOWN"),
        (500, b'{"code":"ROW_DECODE","message":"damaged"}', InputError, "ROW_DECODE"),
        (500, b'{"code":"INTERNAL","message":"a defect"}', UnavailableError, "INTERNAL"),
        (503, b'{"code":"STORE_DOWN","message":"away"}', UnavailableError, "STORE_DOWN"),
        (502, b"<html>Bad gateway</html>", UnavailableError, "API_REPLY"),
        (200, b'{"table":"flights","release":1,"answers":[]}', UnavailableError, "API_REPLY"),
        (200, b"\xff", UnavailableError, "API_REPLY"),
    ],
)
def test_what_a_response_means(
    look: Look, other_server: Any, status: int, body: bytes, kind: type[Exception], code: str
) -> None:
    other_server.reply = (status, body)

    with pytest.raises(kind, match=rf"worker 127.0.0.1:\d+: .*{code}"):
        look([other_server.url], ["UA:1"], Options(api_key="almanac_secret"))

    assert other_server.asked == [("/v1/flights/lookup", "Bearer almanac_secret")]


@both
def test_a_worker_that_hangs_is_left_in_time_for_another(
    look: Look, redis_client: redis.Redis, put_version: Any, workers: list[Any]
) -> None:
    put_version(redis_client, 3, {"UA:1": 0.25})
    with ThreadingHTTPServer(("127.0.0.1", 0), _Replies) as silent:  # it listens, and takes no request
        urls = [f"http://127.0.0.1:{silent.server_port}", *_urls(workers)]
        (found,) = look(urls, ["UA:1"], Options("round_robin", timeout_seconds=0.5))

    assert found.outputs == {"score": 0.25}


def _flagged(flag: str) -> bytes:
    answer = {"id": "UA:1", "status": "default", "outputs": {"score": 0.5}, "release": None, "flag": flag}
    return json.dumps({"table": "flights", "release": None, "answers": [answer]}).encode()


@both
def test_a_worker_that_cannot_ask_its_redis_is_left_for_one_that_can(
    look: Look, workers: list[Any], run_server: Any, redis_client: redis.Redis, put_version: Any, tmp_path: Path
) -> None:
    put_version(redis_client, 3, {"UA:1": 0.25})
    with run_server(tmp_path, f"redis://127.0.0.1:{free_port()}/0", ["flights"]) as cut_off:
        (alone,) = look(_urls([cut_off]), ["UA:1"])
        (found,) = look(_urls([cut_off, workers[0]]), ["UA:1"], Options("round_robin"))

    assert (alone.status, alone.flag) == ("unknown", "STORE_DOWN")
    assert (found.outputs, found.flag) == ({"score": 0.25}, None)


def test_a_worker_that_cannot_ask_its_redis_is_not_preferred_for_a_moment(
    other_server: Any, workers: list[Any], redis_client: redis.Redis, put_version: Any
) -> None:
    put_version(redis_client, 3, {"UA:1": 0.25})
    other_server.reply = (200, _flagged("STORE_DOWN"))
    clock = iter([0.0] * 32 + [10.0] * 32)

    with Client([other_server.url, *_urls(workers)], Options("least_loaded", clock=lambda: next(clock))) as client:
        found = {client.lookup("flights", "UA:1").status for _ in range(10)}
        asked = len(other_server.asked)
        while next(clock) == 0.0:
            pass
        found |= {client.lookup("flights", "UA:1").status for _ in range(4)}

    assert found == {"exact"}
    assert (asked, len(other_server.asked)) == (1, 2)


@both
def test_where_no_worker_can_ask_redis_the_flagged_answer_is_given_and_not_each_asked_again(
    look: Look, other_server: Any
) -> None:
    other_server.reply = (200, _flagged("STORE_TIMEOUT"))
    urls = [other_server.url, other_server.url.replace("127.0.0.1", "localhost"), f"http://127.0.0.1:{free_port()}"]

    (found,) = look(urls, ["UA:1"], Options("round_robin"))

    assert (found.outputs, found.flag) == ({"score": 0.5}, "STORE_TIMEOUT")
    assert len(other_server.asked) == 2
    with Client(urls[:2], Options(clock=lambda: 0.0)) as client:
        for _ in range(10):
            assert client.lookup("flights", "UA:1").flag == "STORE_TIMEOUT"
    assert len(other_server.asked) == 2 + 2 + 9


@both
def test_predictions_that_are_too_old_are_so_for_every_worker(look: Look, other_server: Any) -> None:
    other_server.reply = (200, _flagged("EXPIRED"))

    (found,) = look([other_server.url, other_server.url.replace("127.0.0.1", "localhost")], ["UA:1"])

    assert found.flag == "EXPIRED"
    assert len(other_server.asked) == 1


@both
def test_no_secret_is_in_an_error_or_in_the_options(look: Look) -> None:
    options = Options(api_key="almanac_secret")

    with pytest.raises(UnavailableError) as down:
        look([f"http://user:hidden@127.0.0.1:{free_port()}"], ["UA:1"], options)

    assert "hidden" not in str(down.value)
    assert "almanac_secret" not in f"{down.value}{options}"


@both
@pytest.mark.parametrize(
    ("ids", "code"), [(["UA:1", " "], "ENTITY_ID"), (["a\x00b"], "ENTITY_ID"), (["\ud800"], "ENTITY_ID")]
)
def test_what_is_no_id_is_refused_before_anybody_is_asked(look: Look, ids: list[str], code: str) -> None:
    with pytest.raises(InputError, match=code):
        look([f"redis://127.0.0.1:{free_port()}"], ids)


@pytest.mark.parametrize("table", ["", "flights:3", "a/b", "flights}", "Flights", "flights\n"])
def test_a_table_cannot_reach_the_keys_of_another(table: str, redis_url: str) -> None:
    with Client([redis_url]) as client, pytest.raises(InputError, match="TABLE_UNKNOWN"):
        client.lookup(table, "UA:1")


@both
def test_no_ids_are_answered_without_asking_anybody(look: Look) -> None:
    assert look([f"redis://127.0.0.1:{free_port()}"], []) == []


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("workers", [[], ["ftp://a"], ["http://a", "redis://b"], ["a:80"]])
def test_workers_that_are_none_are_refused(kind: type[Client], workers: list[str]) -> None:
    with pytest.raises(DeclarationError, match="CFG_CLIENT"):
        kind(workers)


def test_httpx_is_not_needed_for_redis() -> None:
    code = "import sys; from lookup.client import Client; Client(['redis://127.0.0.1']); print('httpx' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert ended.stdout == "False\n"
