"""Readers see one whole version, whatever is published, killed, rolled back or restarted meanwhile."""

import asyncio
import datetime as dt
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lookup.coalesce import AsyncReader, Lookups
from lookup.connect import address_of, connect
from lookup.publisher import Publisher
from lookup.reader import Reader
from lookup.resp import Connection
from lookup.rows import rows_in
from lookup.table import RedisTable
from schemas.answer import Answer
from schemas.errors import UnavailableError
from schemas.head import Head
from schemas.keys import bucket_key, bucket_of, head_key
from schemas.report import Verdict
from schemas.row import encode_rows
from tests.lookup.conftest import COLUMNS, OwnRedis, Staging, running_server

pytestmark = pytest.mark.e2e

ENTITIES = 300
IDS = [f"UA:{number}" for number in range(ENTITIES)]
DAY = dt.date(2013, 7, 1)
PUBLICATIONS, KILLS, ROLLBACKS = 20, 5, 3  # publications beside those that are killed, and the two at once
_PAUSE_SECONDS = 0.002  # between two lookups: publishers of this process need a turn too
_STALL_SECONDS = 2.0  # after Redis is back, until a circuit that opened has closed

_PUBLISH = """
import sys
from pathlib import Path
from lookup.connect import connect
from lookup.publisher import Publisher
from lookup.rows import rows_in
from lookup.store import Store
from lookup.table import RedisTable
from schemas.errors import RefusedError
store, url, run_id = Store(Path(sys.argv[1]), "flights"), sys.argv[2], sys.argv[3]
table = RedisTable(connect(url), "flights", rows_of=rows_in(store))
print("ready", flush=True)
sys.stdin.readline()
try:
    Publisher(store, table, keep=2, grace_seconds=0).publish(run_id)
except RefusedError as err:
    sys.exit(0 if err.problems[0].code == "PUBLISH_FENCED" else str(err))
print("published", flush=True)
"""


def score_of(run: int, number: int) -> float:
    """A value that names its run and its entity."""
    return float(run * 1000 + number)


class History:
    """What readers were told, and what of it could not be."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.seen: Counter[str] = Counter()
        self.release_of_run: dict[int, int] = {}
        self.down: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def answered(self, who: str, asked: Sequence[int], release: int | None, answers: Sequence[Answer]) -> None:
        """Note the answers for these numbers; any behind them are of entities that are in no version."""
        who = f"{who}, {'one' if len(answers) == 1 else 'many'}"
        known, others = answers[: len(asked)], answers[len(asked) :]
        runs = {int(answer.outputs.get("score") or -1.0) // 1000 for answer in known}  # type: ignore[arg-type]
        with self._lock:
            self.seen[who] += 1
            if lost := [answer.id for answer in known if answer.status != "exact"]:
                self._violated(f"{who}: {len(lost)} entities lost, {lost[0]} of release {release}")
                return
            if statuses := {answer.status for answer in others} - {"unknown"}:
                self._violated(f"{who}: an entity that is nowhere is {statuses}")
            if len(runs) > 1:
                self._violated(f"{who}: rows of runs {sorted(runs)} in one batch")
                return
            (run,) = runs
            if [answer.outputs["score"] for answer in known] != [score_of(run, number) for number in asked]:
                self._violated(f"{who}: wrong values of run {run}")
            if self.release_of_run.setdefault(run, release or 0) != release:
                self._violated(f"{who}: run {run} as release {release} and {self.release_of_run[run]}")

    def failed(self, who: str, started: float, why: str) -> None:
        """Note an error or a flagged answer, which there may be while Redis is down."""
        now = time.monotonic()
        with self._lock:
            self.seen[f"{who}, down"] += 1
            if not any(begin <= now and started <= end + _STALL_SECONDS for begin, end in self.down):
                self._violated(f"{who}: {why}")

    def _violated(self, what: str) -> None:
        self.violations.append(what)


class World:
    """A store with many runs, a Redis, and a publisher of each kind."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.staging = Staging(folder / "store")
        self.redis = OwnRedis(folder / "redis")
        self.rng = rng
        self.history = History()
        self.kills = Counter[str]()
        self._next = 0
        self._publish_seconds = 0.0

    def new_run(self) -> str:
        scores = {entity: score_of(self._next, number) for number, entity in enumerate(IDS)}
        self._next += 1
        return str(self.staging.run(DAY, scores, verdict=Verdict.PASS))

    def publisher(self) -> Publisher:
        store = self.staging.store
        table = RedisTable(connect(self.redis.url), "flights", rows_of=rows_in(store))
        return Publisher(store, table, keep=2, grace_seconds=0)

    def publish(self) -> None:
        run_id, started = self.new_run(), time.monotonic()
        self.publisher().publish(run_id)
        self._publish_seconds = time.monotonic() - started

    def publish_and_kill(self) -> None:
        """Kill a publisher at a random point, which is one before it has published: else another one."""
        for _ in range(20):
            with self._process(self.new_run()) as process:
                assert process.stdout is not None
                self._go(process)
                time.sleep(self.rng.uniform(0, self._publish_seconds))
                process.kill()
                told = process.stdout.read()
                is_between = process.wait(10) == -signal.SIGKILL and told == b""
            self.kills["mid-publish" if is_between else "too late"] += 1
            if is_between:
                return
        raise AssertionError(f"no kill came before the end of a publication of {self._publish_seconds} s")

    def publish_two_at_once(self) -> None:
        with self._process(self.new_run()) as one, self._process(self.new_run()) as other:
            self._go(one, other)
            ends = [process.wait(30) for process in (one, other)]
        assert ends == [0, 0]

    def restart_redis(self) -> None:
        begin = time.monotonic()
        self.history.down.append((begin, float("inf")))
        self.redis.kill()
        time.sleep(self.rng.uniform(0.1, 0.6))
        self.redis.start()
        self.history.down[-1] = (begin, time.monotonic())

    @contextmanager
    def _process(self, run_id: str) -> Iterator["subprocess.Popen[bytes]"]:
        command = [sys.executable, "-c", _PUBLISH, str(self.staging.store.folder.parent), self.redis.url, run_id]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)

    @staticmethod
    def _go(*processes: "subprocess.Popen[bytes]") -> None:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()


def _asked(rng: random.Random) -> list[int]:
    """One entity, or many of them."""
    return [rng.randrange(ENTITIES)] if rng.random() < 0.5 else rng.sample(range(ENTITIES), 60)


def _ids(asked: Sequence[int]) -> list[str]:
    """Their ids; beside many, one that is nowhere."""
    ids = [IDS[number] for number in asked]
    return ids if len(ids) == 1 else [*ids, "UA:nowhere"]


def read_directly(world: World, seed: int, stop: threading.Event) -> None:
    rng, client = random.Random(seed), connect(world.redis.url, timeout_seconds=1)
    reader = Reader(client, "flights")
    while not stop.is_set():
        asked, started = _asked(rng), time.monotonic()
        try:
            head, answers = reader.lookup(_ids(asked))
        except UnavailableError as err:
            world.history.failed("reader", started, str(err))
            time.sleep(0.01)
        else:
            world.history.answered("reader", asked, head.release, answers)
        time.sleep(_PAUSE_SECONDS)


def read_on_a_loop(world: World, seed: int, stop: threading.Event) -> None:
    async def follow(reader: AsyncReader, rng: random.Random) -> None:
        while not stop.is_set():
            asked, started = _asked(rng), time.monotonic()
            try:
                head, answers = await reader.lookup(_ids(asked))
            except UnavailableError as err:
                world.history.failed("async reader", started, str(err))
                await asyncio.sleep(0.01)
            else:
                world.history.answered("async reader", asked, head.release, answers)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def main() -> None:
        lookups = Lookups(Connection(address_of(world.redis.url), timeout_seconds=1))
        reader = AsyncReader(lookups, "flights")
        await asyncio.gather(*(follow(reader, random.Random(seed + number)) for number in range(4)))
        lookups.close()

    asyncio.run(main())


def read_over_http(world: World, port: int, seed: int, stop: threading.Event) -> None:
    rng = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while not stop.is_set():
        asked, started = _asked(rng), time.monotonic()
        ids = _ids(asked)
        if len(ids) == 1:
            connection.request("GET", f"/v1/flights/{ids[0]}")
        else:
            body = json.dumps({"ids": ids})
            connection.request("POST", "/v1/flights/lookup", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        found = json.loads(response.read())
        if response.status != 200:
            world.history.violations.append(f"api: {response.status} {found}")
            continue
        answers = [Answer(**answer) for answer in found.get("answers", [found])]
        if flags := {answer.flag for answer in answers} - {None}:
            world.history.failed("api", started, f"flagged {flags}")
        else:
            world.history.answered("api", asked, found["release"], answers)
    connection.close()


def _steps(world: World) -> list[Callable[[], object]]:
    """What happens, in an order that the seed chooses; it begins and ends with a publication."""
    publications = PUBLICATIONS - 4  # two before the readers begin, one first and one last
    steps: list[Callable[[], object]] = [world.publish] * publications + [world.publish_and_kill] * KILLS
    steps += [world.publish_two_at_once, world.restart_redis]
    steps += [lambda: world.publisher().roll_back()] * ROLLBACKS
    world.rng.shuffle(steps)
    return [world.publish, *steps, world.publish]


@pytest.mark.parametrize("seed", [20130701, None], ids=["fixed seed", "random seed"])
def test_readers_see_one_whole_version_through_kills_rollbacks_and_a_restart(tmp_path: Path, seed: int | None) -> None:
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    print(f"seed {seed}")  # noqa: T201  # to run it again
    world = World(tmp_path, random.Random(seed))
    world.publish()
    world.publish()
    stop = threading.Event()
    with ExitStack() as stack:
        stack.callback(world.redis.kill)
        server = stack.enter_context(running_server(tmp_path, world.redis.url, ["flights"]))
        readers = [
            *(threading.Thread(target=read_directly, args=(world, seed + number, stop)) for number in range(2)),
            threading.Thread(target=read_on_a_loop, args=(world, seed + 10, stop)),
            threading.Thread(target=read_over_http, args=(world, server.port, seed + 20, stop)),
        ]
        for reader in readers:
            reader.start()
        stack.callback(lambda: [reader.join() for reader in readers])
        stack.callback(stop.set)
        for step in _steps(world):
            step()
        time.sleep(0.2)
        stop.set()
        for reader in readers:
            reader.join()

        head = RedisTable(connect(world.redis.url), "flights").head()
        live = world.staging.store.live()
        _, answers = Reader(connect(world.redis.url), "flights").lookup(IDS)

    seen = world.history.seen
    print(f"kills {dict(world.kills)}, answers {dict(seen)}")  # noqa: T201
    assert world.history.violations == []
    assert world.kills["mid-publish"] == KILLS
    assert min(seen[f"{who}, {size}"] for who in ("reader", "async reader", "api") for size in ("one", "many")) > 50
    assert head is not None
    assert live is not None
    assert (head.run_id, head.release) == (live.run_id, live.release)
    last = int(answers[0].outputs["score"]) // 1000  # type: ignore[arg-type]
    assert [answer.outputs["score"] for answer in answers] == [score_of(last, number) for number in range(ENTITIES)]


def _overwrite_in_place(world: World, head: Head, run: int) -> None:
    """How a version must not be published: over the rows that are served."""
    scores = [score_of(run, number) for number in range(ENTITIES)]
    routed = [["delay-1"] * ENTITIES, ["champion"] * ENTITIES, ["scored"] * ENTITIES]
    with connect(world.redis.url) as client:
        for entity, row in zip(IDS, encode_rows(COLUMNS, [scores, *routed]), strict=True):
            client.hset(bucket_key("flights", head.version, bucket_of(entity, head.buckets)), entity, row)


def _move_the_head_first(world: World, head: Head, run: int) -> None:
    """And how else not: the head before the rows."""
    coming = head.model_copy(update={"version": 900 + run, "release": 900 + run})
    with connect(world.redis.url) as client:
        client.set(head_key("flights"), coming.model_dump_json())
    _overwrite_in_place(world, coming, run)


@pytest.mark.parametrize("publish", [_overwrite_in_place, _move_the_head_first])
def test_a_publisher_that_is_wrong_is_seen_to_be(tmp_path: Path, publish: Callable[[World, Head, int], None]) -> None:
    world = World(tmp_path, random.Random(7))
    stop = threading.Event()
    world.publish()
    head = RedisTable(connect(world.redis.url), "flights").head()
    assert head is not None
    reading = threading.Thread(target=read_directly, args=(world, 7, stop))
    reading.start()
    try:
        for run in range(1, 30):
            publish(world, head, run)
    finally:
        stop.set()
        reading.join()
        world.redis.kill()

    assert world.history.violations
