"""Lookups on an event loop: all that are asked in one tick go to Redis in one write, under one head."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from lookup.commands import Commands
from lookup.follower import ATTEMPTS, Asked, Follower, Found, Pin, check_ids
from lookup.resp import Outcome, Request, settle
from schemas.answer import Answer
from schemas.errors import AlmanacError, UnavailableError
from schemas.head import Head


class Follows(Protocol):
    """What to ask of one table, and what the replies mean (`Follower`, `Pin`)."""

    def ask(self, ids: Sequence[str]) -> tuple[Asked | None, Commands]: ...
    def settle(self, asked: Asked | None, replies: Sequence[Any]) -> Found | None: ...
    def moving(self) -> UnavailableError: ...


class Sends(Protocol):
    """What commands are sent over (`Connection`, `Cluster`)."""

    def send(self, *requests: Request) -> None: ...
    def close(self) -> None: ...


logger = logging.getLogger(__name__)

# More are not held back for the end of the tick: Redis looks them up while the rest is read.
IDS_AT_ONCE = 1000

Told = Found | Exception
"""Rows, or why there are none: an AlmanacError where Redis does not answer, or does not hold a table of this format."""
Apart = list[Told]
"""What each of several who ask in one lookup is told, where it is not the same."""
_REPLIES = frozenset({bytes, type(None)})


class _Lookup(NamedTuple):
    ids: Sequence[str]
    done: Callable[[Any], None]
    is_apart: bool
    attempt: int

    def tell(self, told: Told | Apart) -> None:
        try:
            self.done(told)
        except Exception:  # a defect of who asked: it must not be the end of those who asked with it
            logger.exception("a lookup's outcome was not taken")


class Lookups:
    """Gathers the lookups of a tick, and asks them together: in one write, or in as many as keep Redis at work.

    Attributes:
        writes: How many there were. Until there is another one, the ids of a lookup may become more.
    """

    def __init__(self, redis: Sends, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._redis = redis
        self._loop = loop or asyncio.get_running_loop()
        self._pending: dict[Follows, list[_Lookup]] = {}
        self._ids = 0
        self.writes = 0

    def ask(self, follower: Follows, ids: Sequence[str], done: Callable[[Told], None]) -> None:
        """Look these ids up; `done` is called once with their rows, all of one version, or with why there are none.

        Whatever goes wrong, be it a defect of ours, is an outcome: who asked is never left without one.
        """
        self._add(follower, _Lookup(ids, done, is_apart=False, attempt=1))

    def ask_apart(self, follower: Follows, ids: Sequence[str], done: Callable[[Told | Apart], None]) -> None:
        """The same for several who ask for an id each: where some rows cannot be had, each is told of its own."""
        self._add(follower, _Lookup(ids, done, is_apart=True, attempt=1))

    def lookup(self, follower: Follows, ids: Sequence[str]) -> asyncio.Future[Found]:
        """The same for one who waits."""
        found: asyncio.Future[Found] = self._loop.create_future()
        self.ask(follower, ids, partial(settle, found))
        return found

    def close(self) -> None:
        self._redis.close()

    def _add(self, follower: Follows, lookup: _Lookup) -> None:
        if not self._pending:
            self._loop.call_soon(self.flush)
        self._pending.setdefault(follower, []).append(lookup)
        self._ids += len(lookup.ids)
        if self._ids >= IDS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Send what is pending."""
        if not self._pending:  # all was sent before the tick's end
            return
        pending, self._pending, self._ids = self._pending, {}, 0
        self.writes += 1
        requests = []
        for follower, lookups in pending.items():
            ids = [entity for lookup in lookups for entity in lookup.ids]
            try:
                asked, commands = follower.ask(ids)
            except Exception as err:  # noqa: BLE001  # an outcome: theirs, and not that of other tables' lookups
                _tell(lookups, err)
            else:
                requests.append(Request(commands, partial(self._settle, follower, lookups, asked, len(ids))))
        try:
            self._redis.send(*requests)
        except Exception as err:  # noqa: BLE001  # nothing was sent
            _tell([lookup for lookups in pending.values() for lookup in lookups], err)

    def _settle(
        self, follower: Follows, lookups: list[_Lookup], asked: Asked | None, ids: int, outcome: Outcome
    ) -> None:
        try:
            if isinstance(outcome, Exception):
                raise outcome
            are_sound = _REPLIES.issuperset(map(type, outcome))  # nearly always
            if not are_sound and (refused := _refused(outcome[ids if asked else 0 :])) is not None:
                raise refused
            found = follower.settle(asked, outcome)
        except Exception as err:  # noqa: BLE001  # their outcome
            _tell(lookups, err)
        else:
            self._share(follower, lookups, found, are_sound=are_sound)

    def _share(self, follower: Follows, lookups: list[_Lookup], found: Found | None, *, are_sound: bool) -> None:
        """Give each lookup its rows, or its error; where there are no rows yet, all are asked once more."""
        start = 0
        for lookup in lookups:
            if found is not None:
                rows = found.rows[start : start + len(lookup.ids)]
                start += len(lookup.ids)
                if are_sound or (refused := _refused(rows)) is None:
                    lookup.tell(Found(found.seen, rows))
                elif lookup.is_apart:
                    lookup.tell([_refused((row,)) or Found(found.seen, (row,)) for row in rows])
                else:
                    lookup.tell(refused)
            elif lookup.attempt < ATTEMPTS:
                self._add(follower, lookup._replace(attempt=lookup.attempt + 1))
            else:
                lookup.tell(follower.moving())


def _refused(replies: Sequence[Any]) -> AlmanacError | None:
    """The first error among the replies."""
    return next((reply for reply in replies if isinstance(reply, AlmanacError)), None)


def _tell(lookups: Sequence[_Lookup], err: Exception) -> None:
    for lookup in lookups:
        lookup.tell(err)


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
