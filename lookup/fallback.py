"""What a reader is answered: the row, as long as it is fresh; else a prior, the declared default, or `unknown`."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lookup.plain import PlainAnswers, route_positions
from schemas.answer import Answer, Status
from schemas.errors import RowDecodeError
from schemas.head import Head, Serving
from schemas.row import PlainDecoder, RowDecoder
from schemas.run import CARRIED, ROUTE_COLUMNS, SCORED, SCORED_AT
from schemas.run import WITHHELD as WITHHELD_STATUS

EXPIRED = "EXPIRED"
WITHHELD = "WITHHELD"
# Flags of one answer; any other is of a table that cannot be read, and so of all answers.
OF_ONE_ANSWER = (None, EXPIRED, WITHHELD)
_LONG_AGO = -1e300
_NOT_OUTPUTS = {*ROUTE_COLUMNS, SCORED_AT}

Priors = Mapping[str, bytes]
"""The hash of priors of one version: prior field -> row."""


class Seen:
    """A version as a reader knows it; what every answer needs of it is worked out once.

    Attributes:
        head: Of the version.
        priors: All of its priors; they are few, and needed most when Redis is away.
    """

    __slots__ = (
        "_decode",
        "_decode_prior",
        "_encoded",
        "_outputs",
        "_plain",
        "_route",
        "_routed",
        "_scored",
        "_stale_after",
        "_until",
        "head",
        "priors",
    )

    def __init__(self, head: Head, priors: Priors = MappingProxyType({})) -> None:
        self.head, self.priors = head, priors
        self._decode = RowDecoder(head.columns)
        outputs = [spec for spec in head.columns if spec.name not in _NOT_OUTPUTS]
        self._decode_prior = RowDecoder(outputs)
        self._outputs = tuple(spec.name for spec in outputs)
        names = self._decode.names
        self._plain = PlainDecoder(head.columns)
        routed = route_positions([spec.name for spec in head.columns if spec.type == "enum"])
        self._routed = (
            routed if self._plain.is_of_use and len(self._outputs) + self._plain.enums == len(names) else None
        )
        self._encoded = PlainAnswers(head, self._plain, self._routed, self._outputs) if self._routed else None
        self._route = [names.index(name) if name in names else None for name in (*ROUTE_COLUMNS, SCORED_AT)]
        limits = (head.serving.stale_after_seconds, head.serving.drop_after_seconds)
        # A time that cannot be read is past every limit: what is scored then cannot be proven fresh.
        is_unknown = math.isnan(head.scored_epoch) and any(limits)
        self._scored = _LONG_AGO if is_unknown else head.scored_epoch
        self._stale_after = _limit(head.serving.stale_after_seconds)
        self._until = _limit(head.serving.drop_after_seconds)

    def answers(self, ids: Sequence[str], rows: Sequence[bytes | None], now: float) -> list[Answer]:
        """The answers for these entities, as `answer` gives each; what is the same for all is worked out once.

        Raises:
            RowDecodeError: a row is not one of this version.
        """
        if self._routed is None or (state := self._state(now)) is None:
            return [self.answer(entity, row, now) for entity, row in zip(ids, rows, strict=True)]
        status, seconds = state
        model, variant, how = self._routed
        head, names, decode = self.head, self._outputs, self._plain
        found = []
        for entity, row in zip(ids, rows, strict=True):
            plain = decode(row) if row is not None else None
            if plain is None or plain.choices[how] != SCORED:
                found.append(self.answer(entity, row, now))
                continue
            numbers, choices = plain
            answer = Answer(
                id=entity,
                status=status,
                outputs=dict(zip(names, numbers, strict=True)),
                release=head.release,
                model=choices[model],
                variant=choices[variant],
                scored_at=head.scored_at,
                age_seconds=seconds,
            )
            found.append(answer)
        return found

    def encoded(
        self, ids: Sequence[str], rows: Sequence[bytes | None], now: float, around: tuple[bytes, bytes] = (b"", b"")
    ) -> tuple[bytes, Status] | None:
        """The JSON of `answers`, with commas between them and `around` them, and their status; None where they are not
        all alike.
        """
        if self._encoded is None or (state := self._state(now)) is None:
            return None
        found = self._encoded.many(ids, rows, *state, around)
        return None if found is None else (found, state[0])

    def encoded_each(
        self, ids: Sequence[str], rows: Sequence[bytes | None], now: float
    ) -> tuple[list[bytes | None], Status] | None:
        """The JSON of each of `answers`, None where one is not plain, and the status of all others."""
        if self._encoded is None or (state := self._state(now)) is None:
            return None
        return self._encoded.each(ids, rows, *state), state[0]

    def _state(self, now: float) -> tuple[Status, float | None] | None:
        """Status and age of what was scored in the version's run; None where it is too old to be answered."""
        age = now - self._scored
        if age >= self._until:
            return None
        return "stale" if age >= self._stale_after else "exact", _age(age)

    def answer(self, entity: str, row: bytes | None, now: float) -> Answer:
        """The answer for one entity.

        Args:
            entity: The id that was asked for.
            row: Its row, None where the version has none.
            now: Seconds since 1970.

        Raises:
            RowDecodeError: the row is not one of this version.
        """
        head = self.head
        if row is None:
            return fallback(self, head.serving, entity, now)
        values = self._decode(row)
        model, variant, status, own_time = (None if at is None else values[at] for at in self._route)
        age = now - (self._scored if own_time is None else float(own_time))
        if status == WITHHELD_STATUS:
            return Answer(
                id=entity, status="unknown", outputs={}, release=head.release,
                scored_at=head.scored_at, age_seconds=_age(age), flag=WITHHELD,
            )  # fmt: skip
        if age >= self._until:
            return fallback(self, head.serving, entity, now, flag=EXPIRED)
        is_stale = age >= self._stale_after
        return Answer(
            id=entity,
            status="stale" if is_stale else "carried" if status == CARRIED else "exact",
            # Outputs are the first columns.
            outputs=dict(zip(self._outputs, values, strict=False)),
            release=head.release,
            model=model,  # type: ignore[arg-type]  # an enum's values are text
            variant=variant,  # type: ignore[arg-type]
            scored_at=head.scored_at if own_time is None else utc(float(own_time)),
            age_seconds=_age(age),
        )

    def prior(self, entity: str, now: float, flag: str | None, *, is_away: bool = False) -> Answer | None:
        """The answer from the most specific prior of the entity; None where there is none, or all are too old.

        Raises:
            RowDecodeError: it is damaged. While Redis is away, the next one answers instead.
        """
        age = now - self._scored
        if not self.priors or age >= self._until:
            return None
        for field, segment in self.head.serving.prior_fields(entity):
            if (row := self.priors.get(field)) is None:
                continue
            try:
                outputs = dict(zip(self._outputs, self._decode_prior(row), strict=True))
            except RowDecodeError:
                if is_away:  # flagged as less than it could be: one damaged prior must not make it an error
                    continue
                raise
            return Answer(
                id=entity, status="prior", outputs=outputs, release=self.head.release,
                scored_at=self.head.scored_at, age_seconds=_age(age), segment=segment, flag=flag,
            )  # fmt: skip
        return None

    def age(self, now: float) -> float | None:
        """Seconds since the version was scored; None where its time cannot be read."""
        return _age(now - self._scored)

    def is_expired(self, now: float) -> bool:
        """Whether the version is too old to be answered from."""
        return now - self._scored >= self._until

    def is_stale(self, now: float) -> bool:
        """Whether the version is older than its pipeline wants to answer from."""
        return now - self._scored >= min(self._stale_after, self._until)


def fallback(
    seen: Seen | None, serving: Serving, entity: str, now: float, *, flag: str | None = None, is_away: bool = False
) -> Answer:
    """The answer without a row: the entity's most specific prior, else the default, else `unknown`.

    Args:
        seen: The version; None where no head could be read.
        serving: What is declared: the head's own, or what the server was started with.
        entity: The id that was asked for.
        now: Seconds since 1970.
        flag: Why it is answered so, where that is not because the version has no such row.
        is_away: Whether that is because Redis cannot be asked.

    Raises:
        RowDecodeError: the prior is damaged, and Redis is not away.
    """
    if seen is not None:
        if found := seen.prior(entity, now, flag, is_away=is_away):
            return found
        if seen.is_expired(now):  # what has been dropped for its age takes its means with it
            flag = flag or EXPIRED
    default = serving.default
    status: Status = "unknown" if default is None else "default"
    return Answer(
        id=entity, status=status, outputs={**(default or {})}, release=seen.head.release if seen else None,
        scored_at=seen.head.scored_at if seen else None, age_seconds=seen.age(now) if seen else None, flag=flag,
    )  # fmt: skip


def utc(seconds: float) -> str:
    """RFC 3339 of seconds since 1970."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _limit(seconds: int | None) -> float:
    return math.inf if seconds is None else seconds


def _age(age: float) -> float | None:
    return None if math.isnan(age) or age > -_LONG_AGO / 2 else round(max(age, 0.0), 3)
