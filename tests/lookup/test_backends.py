"""The table's contract on every server of this machine, on a cluster of three masters, and in memory."""

import asyncio
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lookup.cluster import Cluster
from lookup.coalesce import AsyncReader, Lookups
from lookup.connect import Client, address_of, connect
from lookup.memory import MemoryTable
from lookup.reader import Reader
from lookup.resp import Connection
from lookup.rows import Rows
from lookup.table import RedisTable
from schemas.answer import Answer
from schemas.head import Head
from tests.redis_servers import cluster, programs, running

pytest.register_assert_rewrite("tests.suites.table_contract")
from tests.suites.table_contract import Backend, TableContract  # noqa: E402  # rewritten, to show what was compared

PROGRAMS = programs()
CLUSTER, MEMORY = "cluster", "memory"


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="a machine of one's own may have fewer; CI has them all")
def test_no_backend_is_left_out_for_being_absent() -> None:
    families = {version.partition(".")[0] for version in PROGRAMS}
    of_the_system = [path for path in PROGRAMS.values() if not Path(path).is_relative_to(sys.prefix)]

    assert of_the_system, "no redis-server or valkey-server on PATH but those of wheels"
    if platform.machine() == "x86_64":  # there are no wheels for others
        assert families >= {"redis-6", "valkey-8", "valkey-9"}


class Kept:
    """The rows of each version, as the store of the pipeline has them."""

    def __init__(self) -> None:
        self._rows: dict[int, Rows] = {}
        self._rows_of: Callable[[Head], Rows] = lambda head: self._rows[head.version]

    def keep(self, head: Head, rows: Rows) -> None:
        self._rows[head.version] = rows

    def rows_from(self, rows_of: Callable[[Head], Rows]) -> None:
        self._rows_of = rows_of


class OnServer(Kept):
    """A Redis, or a cluster."""

    def __init__(self, url: str, client: Client) -> None:
        super().__init__()
        self._url, self._client = url, client
        self._reader = Reader(client, "flights")

    def table(self) -> RedisTable:
        return RedisTable(self._client, "flights", rows_of=lambda head: self._rows_of(head))

    def lookup(self, ids: Sequence[str], release: int | None = None) -> tuple[Head, list[Answer]]:
        return self._reader.lookup(ids, release=release)

    def lookup_async(self, ids: Sequence[str], release: int | None = None) -> tuple[Head, list[Answer]]:
        async def ask() -> tuple[Head, list[Answer]]:
            address = address_of(self._url)
            sends = Cluster(address) if address.is_cluster else Connection(address, timeout_seconds=5)
            lookups = Lookups(sends)
            try:
                return await AsyncReader(lookups, "flights").lookup(ids, release=release)
            finally:
                lookups.close()

        return asyncio.run(ask())


class InMemory(Kept):
    """The one for unit tests of services."""

    def __init__(self) -> None:
        super().__init__()
        self._table = MemoryTable("flights")

    def table(self) -> MemoryTable:
        return self._table

    def lookup(self, ids: Sequence[str], release: int | None = None) -> tuple[Head, list[Answer]]:
        return self._table.lookup(ids, release=release)

    def lookup_async(self, ids: Sequence[str], release: int | None = None) -> tuple[Head, list[Answer]]:
        async def ask() -> tuple[Head, list[Answer]]:
            return await AsyncReader(Lookups(self._table), "flights").lookup(ids, release=release)

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """The URL of a server of that version, or of the cluster; started when it is first asked for."""
    urls: dict[str, str] = {}
    with ExitStack() as stack:

        def url(name: str) -> str:
            if name not in urls:
                folder = tmp_path_factory.mktemp(name) / "data"
                if name == CLUSTER:
                    program = next(path for version, path in PROGRAMS.items() if not version.startswith("redis-6"))
                    urls[name] = stack.enter_context(cluster(program, folder)).url
                else:
                    urls[name] = stack.enter_context(running(PROGRAMS[name], folder)).url
            return urls[name]

        yield url


@pytest.fixture(params=[*sorted(PROGRAMS), CLUSTER, MEMORY])
def backend(request: pytest.FixtureRequest, servers: Callable[[str], str]) -> Iterator[Backend]:
    if request.param == MEMORY:
        yield InMemory()
        return
    url = servers(request.param)
    with connect(url) as client:
        client.flushall()
        yield OnServer(url, client)


@pytest.fixture(params=["bucket", "string"])
def layout(request: pytest.FixtureRequest) -> Any:
    return request.param


class TestTable(TableContract):
    """On each backend, in each layout."""


def test_a_service_fills_a_table_in_memory_with_what_its_test_needs() -> None:
    table = MemoryTable("flights", clock=lambda: 1_372_651_200.0)
    table.publish({"UA:1": {"score": 0.25}, "UA:2": {"score": 0.5}})
    table.publish({"UA:1": {"score": 0.75}})

    head, answers = table.lookup(["UA:1", "UA:2"])

    assert (head.release, head.scored_at) == (2, "2013-07-01T04:00:00Z")
    assert [(answer.status, answer.outputs, answer.age_seconds) for answer in answers] == [
        ("exact", {"score": 0.75}, 0.0),
        ("unknown", {}, 0.0),
    ]
    assert table.lookup(["UA:2"], release=1)[1][0].outputs == {"score": 0.5}
