"""Lookups in a Redis Cluster: each command goes to the master of its key's slot, the guard when all rows are there."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from lookup.commands import Command
from lookup.connect import READ_SECONDS, Address
from lookup.resp import Connection, Request, settle
from lookup.slots import SlotMap
from schemas.errors import AlmanacError, Problem, UnavailableError

_MOVED = "STORE_IS_CLUSTER"


class Cluster:
    """Sends requests as `Connection` does, to all masters of a cluster.

    The last command of a request is its guard: it is sent when the replies to the others are in, so that it is run
    behind them. Where a slot has moved, the map of slots is read anew, and the request is made once more; a key that
    has gone ahead of its slot is asked for where it is. A master that is away fails only the requests that need it.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout_seconds: float = READ_SECONDS,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._loop = loop or asyncio.get_running_loop()
        self._entry = Connection(address, timeout_seconds=timeout_seconds, loop=self._loop)
        self._told_by = self._entry
        self._slots: SlotMap | None = None
        self._masters: dict[Address, Connection] = {}
        self._tasks: set[asyncio.Task[list[Any]]] = set()

    def send(self, *requests: Request) -> None:
        """Make all requests; each master gets its commands of one tick in one write."""
        for request in requests:
            task = self._loop.create_task(self._answered([*request.commands]))
            self._tasks.add(task)
            task.add_done_callback(partial(self._tell, request))

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in (self._entry, *self._masters.values()):
            connection.close()

    def _tell(self, request: Request, task: "asyncio.Task[list[Any]]") -> None:
        """What came of a request, whatever it is: a defect of ours is an outcome too."""
        self._tasks.discard(task)
        if task.cancelled():
            where = repr(self._address)
            request.done(UnavailableError(Problem("STORE_DOWN", where, "closed", "a Redis that answers")))
        elif (failure := task.exception()) is not None:
            request.done(cast("Exception", failure))
        else:
            request.done(task.result())

    async def _answered(self, commands: Sequence[Command]) -> list[Any]:
        replies = await self._replies(commands)
        if any(_is_moved(reply) for reply in replies):
            self._slots = None
            replies = await self._replies(commands)
        return replies

    async def _replies(self, commands: Sequence[Command]) -> list[Any]:
        slots = self._slots = self._slots or await self._map()
        rows = await self._spread(slots, commands[:-1])
        return rows + await self._spread(slots, commands[-1:])

    async def _map(self) -> SlotMap:
        """The slots as the first node tells them that answers; the one that told them last is asked first."""
        failures = []
        for connection in dict.fromkeys((self._told_by, self._entry, *self._masters.values())):
            try:
                (found,) = await self._ask(connection, [("CLUSTER", "SLOTS")])
                if not isinstance(found, AlmanacError):
                    self._told_by = connection
                    return SlotMap(found, self._address)
                failures.append(found)
            except AlmanacError as err:
                failures.append(err)
        raise failures[0]

    async def _spread(self, slots: SlotMap, commands: Sequence[Command]) -> list[Any]:
        """The replies in the order of the commands; of a master that is away, its error in place of each."""
        by_master: dict[Address, list[int]] = {}
        for position, command in enumerate(commands):
            by_master.setdefault(slots.owner(command[1].encode()), []).append(position)
        replies: list[Any] = [None] * len(commands)

        async def ask(master: Address, positions: list[int]) -> None:
            try:
                found = await self._ask(self._to(master), [commands[position] for position in positions])
            except AlmanacError as err:
                self._slots = None  # another node may have taken its place
                found = [err] * len(positions)
            for position, reply in zip(positions, found, strict=True):
                node = self._gone_ahead_to(reply)
                replies[position] = await self._ask_ahead(node, commands[position]) if node else reply

        await asyncio.gather(*(ask(master, positions) for master, positions in by_master.items()))
        return replies

    def _gone_ahead_to(self, reply: Any) -> Address | None:
        """Where a key of a slot that is being moved is already: `ASK 7000 127.0.0.1:6381`."""
        if not _is_moved(reply) or not reply.problems[0].found.startswith("ASK "):
            return None
        host, _, port = reply.problems[0].found.split(" ")[2].rpartition(":")
        return self._address._replace(host=host or self._address.host, port=int(port), path=None)

    async def _ask_ahead(self, node: Address, command: Command) -> Any:
        try:
            return (await self._ask(self._to(node), [("ASKING",), command]))[1]
        except AlmanacError as err:
            return err

    def _to(self, master: Address) -> Connection:
        if master not in self._masters:
            self._masters[master] = Connection(master, timeout_seconds=self._timeout_seconds, loop=self._loop)
        return self._masters[master]

    async def _ask(self, connection: Connection, commands: Sequence[Command]) -> list[Any]:
        answered: asyncio.Future[list[Any]] = self._loop.create_future()
        connection.send(Request(commands, partial(settle, answered)))
        return await answered


def connection_to(
    address: Address, loop: asyncio.AbstractEventLoop, *, timeout_seconds: float = READ_SECONDS
) -> Connection | Cluster:
    """What lookups are sent over: one connection, or one to each master of a cluster."""
    kind = Cluster if address.is_cluster else Connection
    return kind(address, timeout_seconds=timeout_seconds, loop=loop)


def _is_moved(reply: Any) -> bool:
    return isinstance(reply, AlmanacError) and reply.problems[0].code == _MOVED
