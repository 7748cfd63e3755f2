"""Lookups on an event loop: all that are asked in one tick go to Redis in one write, under one head."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from lookup.follower import ATTEMPTS, Asked, Command, Follower, Found, Pin
from lookup.resp import Request
from schemas.answer import Answer
from schemas.errors import AlmanacError, UnavailableError
from schemas.head import Head


class Follows(Protocol):
    """What to ask of one table, and what the replies mean (`Follower`, `Pin`)."""

    def ask(self, ids: Sequence[str]) -> tuple[Asked | None, list[Command]]: ...
    def settle(self, asked: Asked | None, replies: Sequence[Any]) -> Found | None: ...
    def moving(self) -> UnavailableError: ...


class Sends(Protocol):
    """What commands are sent over (`Connection`, `Cluster`)."""

    def send(self, *requests: Request) -> None: ...
    def close(self) -> None: ...


class _Lookup(NamedTuple):
    ids: Sequence[str]
    found: asyncio.Future[Found]
    attempt: int


class Lookups:
    """Gathers the lookups of a tick, and asks them together."""

    def __init__(self, redis: Sends, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._redis = redis
        self._loop = loop or asyncio.get_running_loop()
        self._pending: dict[Follows, list[_Lookup]] = {}

    def lookup(self, follower: Follows, ids: Sequence[str]) -> asyncio.Future[Found]:
        """The rows of these ids, all of one version.

        The future has an AlmanacError where Redis does not answer, or does not hold a table of this format.
        """
        found: asyncio.Future[Found] = self._loop.create_future()
        self._add(follower, _Lookup(ids, found, 1))
        return found

    def close(self) -> None:
        self._redis.close()

    def _add(self, follower: Follows, lookup: _Lookup) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.setdefault(follower, []).append(lookup)

    def _flush(self) -> None:
        pending, self._pending = self._pending, {}
        requests = []
        for follower, lookups in pending.items():
            asked, commands = follower.ask([entity for lookup in lookups for entity in lookup.ids])
            requests.append(Request(commands, partial(self._settle, follower, lookups, asked)))
        self._redis.send(*requests)

    def _settle(
        self, follower: Follows, lookups: list[_Lookup], asked: Asked | None, outcome: list[Any] | AlmanacError
    ) -> None:
        try:
            asked_rows = sum(len(lookup.ids) for lookup in lookups) if asked else 0
            for reply in [outcome] if isinstance(outcome, AlmanacError) else outcome[asked_rows:]:
                if isinstance(reply, AlmanacError):
                    raise reply
            found = follower.settle(asked, outcome)  # type: ignore[arg-type]  # what is no list was raised
        except AlmanacError as err:
            for lookup in lookups:
                _fail(lookup, err)
            return
        start = 0
        for lookup in lookups:
            if found is not None:
                rows = found.rows[start : start + len(lookup.ids)]
                start += len(lookup.ids)
                if (refused := _refused(rows)) is not None:
                    _fail(lookup, refused)
                elif not lookup.found.done():  # a client that went away took its request with it
                    lookup.found.set_result(Found(found.seen, rows))
            elif lookup.attempt < ATTEMPTS:
                self._add(follower, lookup._replace(attempt=lookup.attempt + 1))
            else:
                _fail(lookup, follower.moving())


def _refused(rows: Sequence[Any]) -> AlmanacError | None:
    for row in rows:
        if isinstance(row, AlmanacError):
            return row
    return None


def _fail(lookup: _Lookup, err: AlmanacError) -> None:
    if not lookup.found.done():
        lookup.found.set_exception(err)


class AsyncReader:
    """Looks entities of one table up on an event loop."""

    def __init__(self, lookups: Lookups, table: str, *, clock: Callable[[], float] = time.time) -> None:
        self._lookups = lookups
        self.follower = Follower(table)
        self._clock = clock

    async def lookup(self, ids: Sequence[str], *, release: int | None = None) -> tuple[Head, list[Answer]]:
        """The answers in the order of `ids`, all of the version in the head returned beside them.

        Args:
            ids: Entity ids.
            release: To be answered from this release, while Redis keeps it; from the live one, when left out.

        Raises:
            UnavailableError: Redis does not answer, or nothing is published.
            InputError: what Redis holds is not a table of this format, or it does not keep that release.
        """
        follower = self.follower if release is None else Pin(self.follower.table, release)
        found = await self._lookups.lookup(follower, ids)
        now = self._clock()
        return found.seen.head, [found.seen.answer(id_, row, now) for id_, row in zip(ids, found.rows, strict=True)]
