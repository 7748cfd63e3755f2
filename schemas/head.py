"""The head of a lookup table: the one value that readers follow, and all that they must know of a version."""

import datetime as dt
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InputError, Problem
from schemas.keys import head_key, key_values, prior_field

FORMAT = 2
Layout = Literal["bucket", "string"]
Value = float | int | str | None


class ColumnSpec(BaseModel):
    """One element of a row's MessagePack array.

    An `enum` column holds an index into `values`, so that a long model id costs one byte a row. So does a `float64`
    column that has some: a class that was predicted.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    type: Literal["float64", "float32", "int64", "string", "enum"]
    values: tuple[str, ...] = ()


class Serving(BaseModel):
    """How the readers of a version answer beyond its rows; part of a run, so that a rollback brings it back.

    Attributes:
        key: The columns that an entity id joins.
        segments: Groups of entities that have a prior, each by some of the key columns, the most specific first.
        default: Outputs of an entity that has neither a row nor a prior; none where nothing is declared.
        stale_after_seconds: Age from which a prediction is answered as `stale`.
        drop_after_seconds: Age from which it is not answered at all, but its fallback.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: tuple[str, ...] = ()
    segments: tuple[tuple[str, ...], ...] = ()
    default: dict[str, float | str] | None = None
    stale_after_seconds: Annotated[int, Field(ge=1)] | None = None
    drop_after_seconds: Annotated[int, Field(ge=1)] | None = None

    def prior_fields(self, entity: str) -> Iterator[tuple[str, str]]:
        """Each prior that may answer for the entity, the most specific first: its field, and its segment's columns."""
        values = key_values(entity)
        if len(values) != len(self.key):
            return
        of = dict(zip(self.key, values, strict=True))
        for position, columns in enumerate(self.segments):
            yield prior_field(position, (of[column] for column in columns)), ",".join(columns)


class Head(BaseModel):
    """All that a reader must know of the version it reads: the value of the head key, as JSON.

    Attributes:
        format: Of these bytes; a reader refuses a newer one. 1, or 2 where the layout is `string`.
        release: The release that is served.
        date: Its logical date, YYYY-MM-DD.
        version: Part of the bucket keys. One release may have several in turn: keys that were dropped are not reused.
        token: Fencing token of the publisher that set this head; a smaller one cannot replace it.
        layout: `bucket` keeps the rows of about 64 entities in one hash, `string` each row in a key of its own.
        buckets: Modulus of the entity id's CRC-32.
        entities: Rows in the version.
        priors: Rows in its hash of priors; 0 where there is none.
        columns: The order of a row's array; the first ones are outputs.
        scored_at: When the run's predictions were computed.
        serving: What else its readers go by.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = 1
    table: str
    release: Annotated[int, Field(ge=1)]
    date: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    version: Annotated[int, Field(ge=1)]
    token: Annotated[int, Field(ge=1)]
    layout: Layout = "bucket"
    buckets: Annotated[int, Field(ge=1)]
    entities: Annotated[int, Field(ge=0)]
    columns: tuple[ColumnSpec, ...]
    run_id: str
    scored_at: str
    priors: Annotated[int, Field(ge=0)] = 0
    serving: Serving = Serving()

    @cached_property
    def scored_epoch(self) -> float:
        """When the run was scored, in seconds since 1970; NaN where `scored_at` is no time with a zone."""
        return epoch(self.scored_at)


def epoch(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time; NaN where it is none, or has no zone."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return found.timestamp() if found.tzinfo else math.nan


def read_head(raw: bytes, table: str) -> Head:
    """The head in these bytes.

    Raises:
        InputError: they are not a head, or one of a newer format.
    """
    try:
        head = Head.model_validate_json(raw)
    except ValueError as err:
        raise InputError(
            Problem(
                "STORE_POINTER_FORMAT", head_key(table), f"not a head: {raw[:60]!r}", "the JSON that publish writes"
            )
        ) from err
    if head.format > FORMAT:
        raise InputError(
            Problem(
                "FORMAT_TOO_NEW", head_key(table), f"format {head.format}", f"at most {FORMAT}; upgrade this reader"
            )
        )
    return head
