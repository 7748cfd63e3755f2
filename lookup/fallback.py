"""What a reader is answered: the row, as long as it is fresh; else a prior, the declared default, or `unknown`."""

import datetime as dt
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from schemas.answer import Answer, Status
from schemas.head import Head, Serving, Value
from schemas.row import decode_row
from schemas.run import CARRIED, ROUTE_COLUMNS, SCORED_AT

EXPIRED = "EXPIRED"
_NOT_OUTPUTS = {*ROUTE_COLUMNS, SCORED_AT}

Priors = Mapping[str, bytes]
"""The hash of priors of one version: prior field -> row."""


class Seen(NamedTuple):
    """A version as a reader knows it.

    Attributes:
        head: Of the version.
        priors: All of its priors; they are few, and needed most when Redis is away.
    """

    head: Head
    priors: Priors = MappingProxyType({})


def answer(seen: Seen, entity: str, row: bytes | None, now: float) -> Answer:
    """The answer for one entity of a version.

    Args:
        seen: The version.
        entity: The id that was asked for.
        row: Its row, None where the version has none.
        now: Seconds since 1970.

    Raises:
        RowDecodeError: the row is not one of this version.
    """
    head = seen.head
    if row is None:
        return fallback(seen, head.serving, entity, now)
    values = decode_row(head.columns, row)
    carried_at = values.get(SCORED_AT)
    scored = float(carried_at) if isinstance(carried_at, int) else head.scored_epoch
    age = now - scored
    if _is_past(age, head.serving.drop_after_seconds):
        return fallback(seen, head.serving, entity, now, flag=EXPIRED)
    status: Status = "carried" if values["status"] == CARRIED else "exact"
    return Answer(
        id=entity,
        status="stale" if _is_past(age, head.serving.stale_after_seconds) else status,
        outputs={name: value for name, value in values.items() if name not in _NOT_OUTPUTS},
        release=head.release,
        model=_text(values["model"]),
        variant=_text(values["variant"]),
        scored_at=head.scored_at if carried_at is None else utc(scored),
        age_seconds=_age(age),
    )


def fallback(seen: Seen | None, serving: Serving, entity: str, now: float, *, flag: str | None = None) -> Answer:
    """The answer without a row: the entity's most specific prior, else the default, else `unknown`.

    Args:
        seen: The version; None where no head could be read.
        serving: What is declared: the head's own, or what the server was started with.
        entity: The id that was asked for.
        now: Seconds since 1970.
        flag: Why it is answered so, where that is not because the version has no such row.
    """
    release = None
    if seen is not None:
        head, release = seen.head, seen.head.release
        age = now - head.scored_epoch
        # What has been dropped for its age takes its means with it.
        is_dropped = _is_past(age, head.serving.drop_after_seconds)
        for field, segment in () if is_dropped else head.serving.prior_fields(entity):
            if (row := seen.priors.get(field)) is None:
                continue
            values = decode_row(head.columns[: _outputs(head)], row)
            return Answer(
                id=entity, status="prior", outputs=values, release=release,
                scored_at=head.scored_at, age_seconds=_age(age), segment=segment, flag=flag,
            )  # fmt: skip
        if is_dropped:
            flag = flag or EXPIRED
    default = serving.default
    status: Status = "unknown" if default is None else "default"
    return Answer(id=entity, status=status, outputs={**(default or {})}, release=release, flag=flag)


def is_stale(head: Head, now: float) -> bool:
    """Whether the version is older than its pipeline wants to answer from."""
    return _is_past(now - head.scored_epoch, head.serving.stale_after_seconds) or _is_past(
        now - head.scored_epoch, head.serving.drop_after_seconds
    )


def utc(seconds: float) -> str:
    """RFC 3339 of seconds since 1970."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _outputs(head: Head) -> int:
    """How many columns are outputs: they come first."""
    return sum(column.name not in _NOT_OUTPUTS for column in head.columns)


def _is_past(age: float, limit_seconds: int | None) -> bool:
    # An age that is not known (NaN) is past every limit: it cannot be proven fresh.
    return limit_seconds is not None and not age < limit_seconds


def _age(age: float) -> float | None:
    return None if math.isnan(age) else round(max(age, 0.0), 3)


def _text(value: Value) -> str | None:
    return None if value is None else str(value)
