"""The lane of plain lookups: those of one table that come in one tick are asked, answered and counted together.

Most requests ask for one entity, under the headers of the request before, and most of them are answered with its row.
One by one, each of them is a dozen objects and fifty calls; here it is an entry in a list. Whatever turns out not to be
plain is given its answer as any other request is.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from lookup.coalesce import IDS_AT_ONCE, Lookups
from lookup.follower import Found
from lookup.keyring import Keyring, Refusal
from lookup.message import Asker, Take, opening
from lookup.metrics import Metrics
from lookup.responses import validator
from lookup.served import Flagged, Outcome, ServedTable

logger = logging.getLogger(__name__)

_PLAIN_HEADERS = {"authorization", "content-type"}


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
    """Plain lookups of one table.

    Attributes:
        name: Of the table.
    """

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
        self.name = table.name
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
            self._table.ask_apart(tick.ids, partial(self._told, tick))
        elif len(tick.ids) >= IDS_AT_ONCE:
            lookups.flush()

    def _told(self, tick: _Tick, outcome: Outcome | list[Outcome]) -> None:
        if self._tick is tick:  # which was refused, so that nothing was written; or nobody has asked since
            self._tick = _Tick(-1)
        for at in self._kept(tick, outcome) if isinstance(outcome, Found) else range(len(tick.ids)):
            try:
                self._otherwise(
                    self.name, Plain(tick.askers[at], tick.ids[at], tick.began[at]), _outcome_of(outcome, at)
                )
            except Exception:  # a defect of ours: it must not be the end of the others
                logger.exception("a lookup was not answered")

    def _kept(self, tick: _Tick, found: Found) -> list[int]:
        """Answer the plain ones together; the places of all others are returned."""
        try:
            encoded = found.seen.encoded_each(tick.ids, found.rows, time.time())
        except Exception:  # a defect of ours: the general way may do without what has it
            logger.exception("lookups were not answered together")
            encoded = None
        if encoded is None:
            return [*range(len(tick.ids))]
        bodies, status = encoded
        head = opening(200, validator(found.seen.head, status)[1])
        left, kept = [], []
        for at, (body, asker) in enumerate(zip(bodies, tick.askers, strict=True)):
            if body is not None and asker.keep(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)):
                kept.append(tick.began[at])
            else:
                left.append(at)
        if kept:
            ended = time.perf_counter()
            self._metrics.lookups(self.name, status, len(kept))
            self._metrics.end_all("entity", 200, [ended - began for began in kept])
        return left


def _outcome_of(outcome: Outcome | list[Outcome], at: int) -> Outcome:
    """What one of those who asked together is told."""
    match outcome:
        case list():
            return outcome[at]
        case Found(seen, rows):
            return Found(seen, rows[at : at + 1])
        case Flagged(answers, failure):
            return Flagged(answers[at : at + 1], failure)
    return outcome


class Lanes:
    """The lanes of all tables, and who may use them."""

    def __init__(self, lanes: Sequence[Lane], keyring: Keyring | None) -> None:
        self._lanes = {lane.name.encode(): lane for lane in lanes}
        self._keyring = keyring

    def taker(self, headers: Mapping[str, str]) -> Take | None:
        """Who takes plain lookups with these headers; None where what they are answered follows from other headers."""
        if not headers.keys() <= _PLAIN_HEADERS:
            return None
        return partial(self._take, headers.get("authorization"))

    def _take(self, authorization: str | None, asker: Asker, table: bytes, entity: bytes) -> bool:
        if (lane := self._lanes.get(table)) is None:
            return False
        if self._keyring:
            try:
                verdict = self._keyring.check(authorization, lane.name, 1)
            except Exception:  # noqa: BLE001  # told where requests are answered one by one, as a refusal is
                return False
            if isinstance(verdict, Refusal):  # who is refused pays nothing
                return False
        lane.take(asker, entity.decode())
        return True
