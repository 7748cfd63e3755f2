"""Lookups on an event loop: all that are asked in one tick go to Redis in one write, under one head."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

from lookup.follower import ATTEMPTS, Asked, Command, Follower, Found, Pin, check_ids
from lookup.resp import Outcome, Request
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

        The future has an AlmanacError where Redis does not answer, or does not hold a table of this format. Whatever
        else goes wrong is its error too: it is never left without an outcome.
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
            with _told(lookups):
                asked, commands = follower.ask([entity for lookup in lookups for entity in lookup.ids])
                requests.append(Request(commands, partial(self._settle, follower, lookups, asked)))
        with _told([lookup for lookups in pending.values() for lookup in lookups]):
            self._redis.send(*requests)

    def _settle(self, follower: Follows, lookups: list[_Lookup], asked: Asked | None, outcome: Outcome) -> None:
        with _told(lookups):
            if isinstance(outcome, Exception):
                raise outcome
            asked_rows = sum(len(lookup.ids) for lookup in lookups) if asked else 0
            if (refused := _refused(outcome[asked_rows:])) is not None:
                raise refused
            self._share(follower, lookups, follower.settle(asked, outcome))

    def _share(self, follower: Follows, lookups: list[_Lookup], found: Found | None) -> None:
        """Give each lookup its rows; where there are none yet, all are asked once more."""
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


@contextmanager
def _told(lookups: Sequence[_Lookup]) -> Iterator[None]:
    """Tell those who wait what goes wrong inside, be it a defect of ours: it is their error, not their hang."""
    try:
        yield
    except Exception as err:  # noqa: BLE001  # each of them raises it where it is awaited
        for lookup in lookups:
            _fail(lookup, err)


def _fail(lookup: _Lookup, err: Exception) -> None:
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
            InputError: what Redis holds is not a table of this format, or it does not keep that release; or one of the
                ids is none: the lookups of the same tick are not harmed by it.
        """
        check_ids(ids)
        follower = self.follower if release is None else Pin(self.follower.table, release)
        found = await self._lookups.lookup(follower, ids)
        now = self._clock()
        return found.seen.head, found.seen.answers(ids, found.rows, now)
