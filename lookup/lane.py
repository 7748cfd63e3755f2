"""The lane of plain lookups: those of one table that come in one tick are asked, answered and counted together.

Most requests ask for one entity, under the headers of the request before, and most of them are answered with its row.
One by one, each of them is a dozen objects and fifty calls; here it is an entry in a list. Whatever turns out not to be
plain is given its answer as any other request is.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from lookup.coalesce import Lookups
from lookup.follower import Found
from lookup.message import Asker, opening
from lookup.metrics import Metrics
from lookup.responses import validator
from lookup.served import Flagged, Outcome, ServedTable


class Plain(NamedTuple):
    """One plain lookup.

    Attributes:
        began: By `time.perf_counter`.
    """

    asker: Asker
    entity: str
    began: float


class _Tick:
    """The lookups of one tick."""

    def __init__(self, write: int) -> None:
        self.write = write
        self.ids: list[str] = []
        self.askers: list[Asker] = []
        self.began: list[float] = []


class Lane:
    """Plain lookups of one table."""

    def __init__(
        self, table: ServedTable, lookups: Lookups, metrics: Metrics, otherwise: Callable[[str, Plain, Outcome], None]
    ) -> None:
        """The lane of that table.

        Args:
            table: That is asked.
            lookups: What it asks through.
            metrics: Told of what is answered here.
            otherwise: Answers a lookup that turned out not to be plain, from what was found of it, and notes it.
        """
        self._table, self._lookups, self._metrics, self._otherwise = table, lookups, metrics, otherwise
        self._tick = _Tick(-1)

    def take(self, asker: Asker, entity: str) -> None:
        """Look an entity up, and answer who asks for it."""
        self._metrics.begin()
        tick, lookups = self._tick, self._lookups
        is_first = tick.write != lookups.writes or self._table.is_open
        if is_first:
            tick = self._tick = _Tick(lookups.writes)
        tick.ids.append(entity)
        tick.askers.append(asker)
        tick.began.append(time.perf_counter())
        if is_first:
            self._table.ask(tick.ids, partial(self._told, tick))

    def _told(self, tick: _Tick, outcome: Outcome) -> None:
        ids = tick.ids
        encoded = outcome.seen.encoded_each(ids, outcome.rows, time.time()) if isinstance(outcome, Found) else None
        if encoded is None or not isinstance(outcome, Found):
            for at in range(len(ids)):
                self._rest(tick, at, outcome)
            return
        bodies, status = encoded
        head = opening(200, validator(outcome.seen.head, status)[1])
        left = []
        for at, (body, asker) in enumerate(zip(bodies, tick.askers, strict=True)):
            if body is None or not asker.keep(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)):
                left.append(at)
        ended, began = time.perf_counter(), tick.began
        if left:
            began = [began[at] for at in sorted({*range(len(ids))}.difference(left))]
        self._metrics.lookups(self._table.name, status, len(began))
        self._metrics.end_all("entity", 200, [ended - each for each in began])
        for at in left:
            self._rest(tick, at, outcome)

    def _rest(self, tick: _Tick, at: int, outcome: Outcome) -> None:
        """Have one answered as any other request is."""
        if isinstance(outcome, Found):
            outcome = Found(outcome.seen, outcome.rows[at : at + 1])
        elif isinstance(outcome, Flagged):
            outcome = Flagged(outcome.answers[at : at + 1], outcome.failure)
        self._otherwise(self._table.name, Plain(tick.askers[at], tick.ids[at], tick.began[at]), outcome)
