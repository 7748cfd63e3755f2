"""Redis as `lookup.client` asks it: one server and its replicas, or a cluster."""

import asyncio
import threading
from collections.abc import Sequence

from lookup.balance import Ask
from lookup.cluster import connection_to
from lookup.coalesce import AsyncReader, Lookups
from lookup.connect import Client, address_of, connect
from lookup.reader import Reader
from schemas.answer import Answer


class RedisWorkers:
    """A Redis and its replicas, or a cluster, each with a connection pool that is made when it is first needed."""

    def __init__(self, urls: Sequence[str], timeout_seconds: float) -> None:
        for url in urls:
            address_of(url)  # what is none is said now
        self._timeout_seconds = timeout_seconds
        self._clients: dict[str, Client] = {}
        self._readers: dict[tuple[str, str], Reader] = {}
        self._lock = threading.Lock()

    def ask(self, ask: Ask) -> list[Answer]:
        reader = self._readers.get((ask.worker, ask.table)) or self._reader(ask.worker, ask.table)
        return reader.lookup(ask.ids, release=ask.release)[1]

    def _reader(self, url: str, table: str) -> Reader:
        with self._lock:  # a cluster is asked for its nodes at once, by one thread
            if url not in self._clients:
                self._clients[url] = connect(url, timeout_seconds=self._timeout_seconds)
            return self._readers.setdefault((url, table), Reader(self._clients[url], table))

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


class AsyncRedisWorkers:
    """A Redis and its replicas, or a cluster, one connection to each node, made when it is first needed."""

    def __init__(self, urls: Sequence[str], timeout_seconds: float) -> None:
        self._addresses = {url: address_of(url) for url in urls}
        self._timeout_seconds = timeout_seconds
        self._lookups: dict[str, Lookups] = {}
        self._readers: dict[tuple[str, str], AsyncReader] = {}

    async def ask(self, ask: Ask) -> list[Answer]:
        if (lookups := self._lookups.get(ask.worker)) is None:
            address, loop = self._addresses[ask.worker], asyncio.get_running_loop()
            connection = connection_to(address, loop, timeout_seconds=self._timeout_seconds)
            lookups = self._lookups[ask.worker] = Lookups(connection, loop=loop)
        if (reader := self._readers.get((ask.worker, ask.table))) is None:
            reader = self._readers[ask.worker, ask.table] = AsyncReader(lookups, ask.table)
        return (await reader.lookup(ask.ids, release=ask.release))[1]

    async def close(self) -> None:
        for lookups in self._lookups.values():
            lookups.close()
