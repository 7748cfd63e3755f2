"""Bad states of a Redis: one clear error each, what is live as it was, and a next publication that succeeds."""

import asyncio
import datetime as dt
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from lookup.acl import User, publisher
from lookup.coalesce import AsyncReader, Lookups
from lookup.connect import address_of, connect
from lookup.publisher import Outcome, Publisher
from lookup.reader import Reader
from lookup.resp import Connection
from lookup.table import RedisTable
from lookup.wire import Wire
from schemas.errors import DeclarationError, InputError, RefusedError, UnavailableError
from schemas.keys import bucket_key, head_key, versions_key
from tests.redis_servers import Node, make_user, programs, running, wait_until

PROGRAMS = programs()
MONDAY, TUESDAY, WEDNESDAY = (dt.date(2013, 7, day) for day in (1, 2, 3))
ENTITIES = 5_000
OLD, NEW = ({f"UA:{number}": score for number in range(ENTITIES)} for score in (0.25, 0.5))


@pytest.fixture(params=sorted(PROGRAMS))
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with running(PROGRAMS[request.param], tmp_path / "redis") as started:
        yield started


@pytest.fixture
def one_node(tmp_path: Path) -> Iterator[Node]:
    """For what does not depend on the server: the newest one."""
    with running(PROGRAMS[max(PROGRAMS)], tmp_path / "redis") as started:
        yield started


class State(NamedTuple):
    """A table with its Monday live, and Tuesday's run staged."""

    node: Node
    client: redis.Redis
    table: RedisTable
    staging: Any
    run: str

    def publish(self, **options: Any) -> Outcome:
        return Publisher(self.staging.store, self.table, **options).publish(self.run).outcome

    def served(self) -> tuple[int, set[float]]:
        with connect(self.node.url) as client:
            head, answers = Reader(client, "flights").lookup([f"UA:{number}" for number in range(1000)])
        return head.release, {answer.outputs["score"] for answer in answers}


def _state(node: Node, staging: Any) -> Iterator[State]:
    with connect(node.url) as client:
        table = RedisTable(client, "flights")  # type: ignore[arg-type]
        Publisher(staging.store, table).publish(staging.run(MONDAY, OLD))
        yield State(node, client, table, staging, staging.run(TUESDAY, NEW))  # type: ignore[arg-type]


@pytest.fixture
def state(node: Node, staging: Any) -> Iterator[State]:
    yield from _state(node, staging)


@pytest.fixture
def one(one_node: Node, staging: Any) -> Iterator[State]:
    yield from _state(one_node, staging)


@pytest.fixture
def half_way(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Lets something happen after half of a version's rows were sent."""

    def arrange(happens: Callable[[], object]) -> None:
        send = Wire.send

        def interrupted(wire: Wire, commands: Any, count: int, **pace: Any) -> None:
            if count <= 1:
                send(wire, commands, count, **pace)
                return
            data = bytes(commands)
            cut = data.index(b"*5\r\n$7\r\nRESTORE", len(data) // 2)
            sent = data[:cut].count(b"*5\r\n$7\r\nRESTORE")
            send(wire, data[:cut], sent, **pace)
            happens()
            send(wire, data[cut:], count - sent, **pace)

        monkeypatch.setattr(Wire, "send", interrupted)

    return arrange


def recovers(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Monday is served, whole, until Tuesday is published."""
    assert state.served() == (1, {0.25})
    monkeypatch.undo()
    assert state.publish() is Outcome.LIVE
    assert state.served() == (2, {0.5})


def test_memory_that_ends_half_way_stops_the_load(state: State, half_way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    half_way(lambda: state.client.config_set("maxmemory", 1))

    with pytest.raises(UnavailableError, match=r"more memory \(maxmemory\) for this version \[STORE_FULL\]"):
        state.publish()

    state.client.config_set("maxmemory", 0)
    recovers(state, monkeypatch)


def test_a_connection_that_is_cut_half_way_stops_the_load(
    state: State, half_way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut() -> None:
        mine = {client["id"] for client in state.client.client_list() if client["cmd"].startswith("client")}
        for client in state.client.client_list():
            if client["id"] not in mine:
                state.client.client_kill_filter(_id=client["id"])

    half_way(cut)

    with pytest.raises(UnavailableError, match="STORE_DOWN"):
        state.publish()

    recovers(state, monkeypatch)


def test_a_server_that_hangs_half_way_stops_the_load_in_bounded_time(
    one: State, half_way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookup.wires.Wire", partial(Wire, timeout_seconds=0.3))
    half_way(lambda: one.node.process.send_signal(signal.SIGSTOP))

    with pytest.raises(UnavailableError, match=r"expected an answer in time \[STORE_TIMEOUT\]"):
        one.publish()

    one.node.process.send_signal(signal.SIGCONT)
    recovers(one, monkeypatch)


def test_a_disk_that_fails_half_way_stops_the_load(one: State, half_way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        one.client.config_set("save", "3600 1000000")
        with suppress(redis.RedisError):
            one.client.bgsave()
        wait_until(lambda: one.client.info("persistence")["rdb_last_bgsave_status"] == "err", "a failed save")

    folder = Path(one.client.config_get("dir")["dir"])
    (folder / "dump.rdb").mkdir()
    half_way(fail)

    with pytest.raises(UnavailableError, match=r"expected a Redis whose disk writes work \[STORE_PERSISTENCE\]"):
        one.publish()

    one.client.config_set("stop-writes-on-bgsave-error", "no")
    recovers(one, monkeypatch)


def test_a_server_that_becomes_a_replica_half_way_stops_the_load(
    one: State, half_way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_way(lambda: one.client.replicaof("127.0.0.1", "1"))

    with pytest.raises(DeclarationError, match=r"expected the primary, not a replica \[STORE_READONLY\]"):
        one.publish()

    one.client.replicaof("NO", "ONE")
    recovers(one, monkeypatch)


def test_a_replica_that_stands_still_stops_the_flip(
    node: Node, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookup.wires._WAIT_SECONDS", 1)
    options = ("--replicaof", "127.0.0.1", str(node.port))
    state.client.config_set("repl-diskless-sync", "yes")
    state.client.config_set("repl-diskless-sync-delay", 0)
    with running(_program(node), tmp_path / "replica", *options) as replica:
        wait_until(lambda: _online(state.client), "a replica")
        replica.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(
                UnavailableError, match=r"0 replicas have the rows after .* s; expected 1.*STORE_REPLICAS"
            ):
                state.publish()
        finally:
            replica.process.send_signal(signal.SIGCONT)
        recovers(state, monkeypatch)
        wait_until(lambda: replica.ask("GET", head_key("flights")) == node.ask("GET", head_key("flights")), "the head")


def _online(client: redis.Redis) -> bool:
    return client.info("replication").get("slave0", {}).get("state") == "online"


def _program(node: Node) -> str:
    return str(node.process.args[0])  # type: ignore[index]


def test_replicas_that_are_asked_for_and_not_there_stop_the_flip(one: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookup.wires._WAIT_SECONDS", 1)

    with pytest.raises(UnavailableError, match=r"0 replicas have the rows after .* s; expected 2.*STORE_REPLICAS"):
        one.publish(replicas=2)

    recovers(one, monkeypatch)


def test_a_server_that_reads_its_files_is_told(one: State, monkeypatch: pytest.MonkeyPatch) -> None:
    one.client.save()
    one.node.process.kill()
    one.node.process.wait()
    slowly = ("--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")  # 20 ms a key
    command: Any = one.node.process.args
    with subprocess.Popen([*command, *slowly], stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _is_loading(one.node), "loading")
            with pytest.raises(UnavailableError, match=r"a Redis that has read its files; try again \[STORE_LOADING\]"):
                one.publish()
            with pytest.raises(UnavailableError, match="STORE_LOADING"):
                one.served()
            wait_until(one.node.answers, "loaded")
            recovers(one, monkeypatch)
        finally:
            process.kill()


def _is_loading(node: Node) -> bool:
    try:
        node.ask("GET", "x")
    except redis.BusyLoadingError:
        return True
    except redis.ConnectionError:  # it does not listen yet
        pass
    return False


def _async(url: str, ids: list[str]) -> Any:
    async def ask() -> Any:
        lookups = Lookups(Connection(address_of(url)))
        try:
            return await AsyncReader(lookups, "flights").lookup(ids)
        finally:
            lookups.close()

    return asyncio.run(ask())


def test_a_head_that_names_a_version_without_rows_is_healed_by_a_publication(one: State) -> None:
    """Without its rows each entity is unknown: no reader can tell that from an entity that was not scored."""
    head = one.table.head()
    assert head is not None
    one.client.delete(*[bucket_key("flights", head.version, bucket) for bucket in range(head.buckets)])
    assert {answer.status for answer in _async(one.node.url, ["UA:1"])[1]} == {"unknown"}

    assert Publisher(one.staging.store, one.table).restore().was_whole is False

    assert one.served() == (1, {0.25})
    assert one.publish() is Outcome.LIVE


def test_a_head_of_an_unknown_version_is_not_written_over(one: State, monkeypatch: pytest.MonkeyPatch) -> None:
    head = one.table.head()
    assert head is not None
    foreign = head.model_copy(update={"version": 99, "token": 99, "run_id": "2013-07-01-ffffffffffff"})
    one.client.set(head_key("flights"), foreign.model_dump_json())

    with pytest.raises(RefusedError, match=r"table 'flights': release 1 of run .*-ffffffffffff.*STORE_FOREIGN"):
        one.publish()
    assert one.client.get(head_key("flights")) == foreign.model_dump_json().encode()

    one.client.set(head_key("flights"), head.model_dump_json())
    recovers(one, monkeypatch)


@pytest.mark.parametrize("key", ["head", "versions", "left", "bucket"])
def test_another_products_key_under_a_name_of_ours_is_refused_and_kept(
    state: State, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {
        "head": head_key("flights"),
        "versions": versions_key("flights"),
        "left": f"{versions_key('flights')}:left",
        "bucket": bucket_key("flights", 3, 5),  # of the version that comes next
    }[key]
    kept = state.client.dump(name)
    state.client.delete(name)
    state.client.rpush(name, "theirs")

    with pytest.raises((InputError, RefusedError), match=r"STORE_TYPE|STORE_FOREIGN|STORE_ERROR") as error:
        state.publish()

    assert len(error.value.problems) == 1
    assert "UA:" not in str(error.value)
    assert state.client.lrange(name, 0, -1) == [b"theirs"]
    state.client.delete(name)
    if kept:
        state.client.restore(name, 0, kept)
    recovers(state, monkeypatch)


def test_other_keys_under_our_prefix_are_no_matter_and_stay(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ("almanac", "almanac:flights", "almanac:flights:note", "almanac:{flights}", "almanac:{flights}:head:x")
    for name in theirs:
        state.client.set(name, "theirs")

    recovers(state, monkeypatch)

    assert state.client.mget(theirs) == [b"theirs"] * len(theirs)


def test_a_clock_that_went_backwards_keeps_a_version_too_long_and_never_too_short(one: State) -> None:
    one.publish()
    in_an_hour = int(one.client.time()[0]) + 3600
    (left,) = one.client.hkeys(f"{versions_key('flights')}:left")
    one.client.hset(f"{versions_key('flights')}:left", left, in_an_hour)

    assert one.table.retire(keep=1, grace_seconds=0) == []
    assert len(one.table.versions()) == 2
    one.client.hset(f"{versions_key('flights')}:left", left, in_an_hour - 7200)
    assert one.table.retire(keep=1, grace_seconds=0) == [int(left)]
    assert one.served() == (2, {0.5})


@pytest.mark.parametrize(
    "right", ["+get", "+hset", "+hget", "+hvals", "+hlen", "+unlink", "+evalsha", "+time", "+info", "+hgetall"]
)
def test_a_right_that_the_publisher_lacks_is_one_clear_error(one: State, right: str, monkeypatch: Any) -> None:
    assert right[1:] in " ".join(publisher().rules)
    lacking = User("lacking", tuple(rule for rule in publisher().rules if rule != right))
    with connect(make_user(one.node.url, lacking)) as client:
        table = RedisTable(client, "flights")
        with pytest.raises(DeclarationError, match="STORE_ACL") as error:
            Publisher(one.staging.store, table, keep=1, grace_seconds=0).publish(one.run)

    assert len(error.value.problems) == 1
    assert one.served() in ((1, {0.25}), (2, {0.5}))
    monkeypatch.undo()
    assert one.publish() in (Outcome.LIVE, Outcome.ALREADY_LIVE)
    assert one.served() == (2, {0.5})


def test_a_user_who_may_not_restore_loads_the_same_rows(state: State) -> None:
    plain = User("plain", tuple(rule for rule in publisher().rules if rule != "+restore"))
    head = state.table.head()
    assert head is not None
    restored = state.table.checksum(head)
    state.client.flushall()
    with connect(make_user(state.node.url, plain)) as client:
        table = RedisTable(client, "flights")
        again = Publisher(state.staging.store, table)
        again.restore()
        now = table.head()
        assert now is not None
        assert table.checksum(now) == restored
    assert state.served() == (1, {0.25})
