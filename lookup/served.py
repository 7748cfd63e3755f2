"""One table as the API serves it: answers of the live release, and flagged ones when Redis cannot be asked."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from lookup.breaker import Breaker
from lookup.coalesce import Apart, Follows, Lookups, Told
from lookup.fallback import fallback
from lookup.follower import Follower, Found, Pin
from schemas.answer import Answer
from schemas.errors import AlmanacError, InputError
from schemas.head import Head, Serving

STORE_LOST = "STORE_LOST"
_PINS = 16


class Flagged(NamedTuple):
    """Answers without the store, in the order of the ids asked.

    Attributes:
        answers: One for each id.
        failure: Why they are flagged.
    """

    answers: list[Answer]
    failure: AlmanacError

    @property
    def flag(self) -> str | None:
        return self.answers[0].flag if self.answers else None


Outcome = Found | Flagged | Exception


class ServedTable:
    """Answers for one table, from one event loop."""

    def __init__(
        self,
        name: str,
        serving: Serving,
        lookups: Lookups,
        breaker: Breaker,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The table of that name.

        Args:
            name: Of the table.
            serving: As declared: what is answered when no head was ever read.
            lookups: To the Redis that has it.
            breaker: Of this table alone.
            clock: Seconds since 1970.
        """
        self.name = name
        self._serving = serving
        self._lookups = lookups
        self._breaker = breaker
        self._follower = Follower(name)
        self._pins: OrderedDict[int, Pin] = OrderedDict()
        self._clock = clock

    @property
    def is_open(self) -> bool:
        """Whether Redis is not asked for now."""
        return self._breaker.is_open

    def ask(self, ids: Sequence[str], done: Callable[[Outcome], None], release: int | None = None) -> None:
        """Look these ids up; `done` is called once, now or later.

        Args:
            ids: Entity ids.
            done: Gets the rows of the live release; flagged answers, without waiting long, where Redis cannot be asked;
                an InputError where what Redis holds is not a table of this format: that is not guessed around.
            release: To be answered from this one, as long as Redis keeps it: no other may answer for it, so that what
                keeps it from being read is an error, `RELEASE_UNKNOWN` and `RELEASE_GONE` among them.
        """
        if (refusal := self._breaker.refusal()) is not None:
            done(refusal if release is not None else self._flagged(ids, refusal))
            return
        follower = self._follower if release is None else self._pin(release)
        self._lookups.ask(follower, ids, partial(self._told, ids, done, release))

    def ask_apart(self, ids: Sequence[str], done: Callable[[Outcome | list[Outcome]], None]) -> None:
        """The same for several who ask the live release for an id each; a list has the outcome of each.

        Until they are asked of Redis (`Lookups.writes`), ids may be added.
        """
        if (refusal := self._breaker.refusal()) is not None:
            done(self._flagged(ids, refusal))
        else:
            self._lookups.ask_apart(self._follower, ids, partial(self._told_apart, ids, done))

    async def head(self) -> Head | AlmanacError:
        """The live head, or why it cannot be read."""
        told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.ask((), told.set_result)
        match await told:
            case Found(seen):
                return seen.head
            case Flagged(_, failure) | (AlmanacError() as failure):
                return failure
            case defect:
                raise defect

    def _told(self, ids: Sequence[str], done: Callable[[Outcome], None], release: int | None, told: Told) -> None:
        done(self._outcome(ids, release, told))

    def _told_apart(
        self, ids: Sequence[str], done: Callable[[Outcome | list[Outcome]], None], told: Told | Apart
    ) -> None:
        if isinstance(told, list):
            done([self._outcome([entity], None, each) for entity, each in zip(ids, told, strict=True)])
        else:
            done(self._outcome(ids, None, told))

    def _outcome(self, ids: Sequence[str], release: int | None, told: Told) -> Outcome:
        if isinstance(told, AlmanacError):
            self._note(told)
            is_guessed = release is None and not isinstance(told, InputError)
            return self._flagged(ids, told) if is_guessed else told
        if not isinstance(told, Exception):  # a defect of ours says nothing of Redis
            self._breaker.succeeded()
        return told

    def _note(self, why: AlmanacError) -> None:
        """Tell the breaker; a Redis that says what it does not hold has answered."""
        if isinstance(why, InputError) or why.problems[0].code == "NO_VERSION":
            self._breaker.succeeded()
        else:
            self._breaker.failed(why)

    def _flagged(self, ids: Sequence[str], why: AlmanacError) -> Flagged:
        seen, now = self._follower.seen, self._clock()
        code = why.problems[0].code
        flag = STORE_LOST if code == "NO_VERSION" and seen else code
        serving = seen.head.serving if seen else self._serving
        return Flagged([fallback(seen, serving, id_, now, flag=flag, is_away=True) for id_ in ids], why)

    def _pin(self, release: int) -> Follows:
        pin = self._pins.pop(release, None) or Pin(self.name, release)
        self._pins[release] = pin
        if len(self._pins) > _PINS:
            self._pins.popitem(last=False)
        return pin
