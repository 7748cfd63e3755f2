"""One table as the API serves it: answers of the live release, and flagged ones when Redis cannot be asked."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lookup.breaker import Breaker
from lookup.coalesce import Follows, Lookups
from lookup.fallback import fallback
from lookup.follower import Follower, Found, Pin
from schemas.answer import Answer
from schemas.errors import AlmanacError, InputError
from schemas.head import Head, Serving

STORE_LOST = "STORE_LOST"
_PINS = 16


class Answered(NamedTuple):
    """Answers in the order of the ids asked.

    Attributes:
        head: Of the version that they are of; None where none could be asked.
        answers: One for each id.
        failure: Why they are flagged; None where they are not.
    """

    head: Head | None
    answers: list[Answer]
    failure: AlmanacError | None = None

    @property
    def flag(self) -> str | None:
        return self.answers[0].flag if self.failure and self.answers else None


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

    async def lookup(self, ids: Sequence[str]) -> Answered:
        """The answers of the live release; flagged ones, without waiting long, where Redis cannot be asked.

        Raises:
            InputError: what Redis holds is not a table of this format. That is not guessed around.
        """
        if (refusal := self._breaker.refusal()) is not None:
            return self._flagged(ids, refusal)
        try:
            found = await self._lookups.lookup(self._follower, ids)
        except AlmanacError as err:
            self._note(err)
            if isinstance(err, InputError):
                raise
            return self._flagged(ids, err)
        self._breaker.succeeded()
        return self._answered(ids, found)

    async def pinned(self, ids: Sequence[str], release: int) -> Answered:
        """The answers of that release, as long as Redis keeps it.

        Raises:
            InputError: `RELEASE_UNKNOWN` or `RELEASE_GONE`, or what Redis holds is not a table of this format.
            AlmanacError: Redis cannot be asked: no other release may answer for this one.
        """
        if (refusal := self._breaker.refusal()) is not None:
            raise refusal.with_traceback(None)  # it is raised many times: each would leave its frames on it
        try:
            found = await self._lookups.lookup(self._pin(release), ids)
        except AlmanacError as err:
            self._note(err)
            raise
        self._breaker.succeeded()
        return self._answered(ids, found)

    def _note(self, why: AlmanacError) -> None:
        """Tell the breaker; a Redis that says what it does not hold has answered."""
        if isinstance(why, InputError) or why.problems[0].code == "NO_VERSION":
            self._breaker.succeeded()
        else:
            self._breaker.failed(why)

    def _answered(self, ids: Sequence[str], found: Found) -> Answered:
        now, seen = self._clock(), found.seen
        return Answered(seen.head, seen.answers(ids, found.rows, now))

    def _flagged(self, ids: Sequence[str], why: AlmanacError) -> Answered:
        seen, now = self._follower.seen, self._clock()
        code = why.problems[0].code
        flag = STORE_LOST if code == "NO_VERSION" and seen else code
        serving = seen.head.serving if seen else self._serving
        return Answered(None, [fallback(seen, serving, id_, now, flag=flag, is_away=True) for id_ in ids], why)

    def _pin(self, release: int) -> Follows:
        pin = self._pins.pop(release, None) or Pin(self.name, release)
        self._pins[release] = pin
        if len(self._pins) > _PINS:
            self._pins.popitem(last=False)
        return pin
