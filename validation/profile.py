"""Statistics of a table from one scan, and how those of two parts become those of the whole."""

import hashlib
import heapq
import math
from collections.abc import Collection, Iterable
from functools import reduce
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from schemas.run import ENTITY_ID
from validation import sketch as sketches
from validation.sketch import Floats, Sketch

MAX_VALUES = 1000


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NumericProfile(_Record):
    """Numbers of a column.

    Attributes:
        count: Those that are numbers: neither null, nor NaN, nor infinite. The statistics are of them alone.
        mean: None where there is no number, or where it is too large for a double; so is `variance`.
        variance: Of the whole population: divided by `count`.
    """

    kind: Literal["numeric"] = "numeric"
    count: int
    nulls: int
    nans: int
    infinite: int
    min: FiniteFloat | None
    max: FiniteFloat | None
    mean: FiniteFloat | None
    variance: FiniteFloat | None
    sketch: Sketch


class CategoryProfile(_Record):
    """Values of a column that is not a number: text, booleans, dates.

    Attributes:
        count: Those that are not null.
        values: Value -> rows, exact; all of them up to 1,000, then the 1,000 with the smallest hash, a fair draw.
        other: Rows of values that are not listed.
    """

    kind: Literal["category"] = "category"
    count: int
    nulls: int
    values: dict[str, int]
    other: int

    @property
    def distinct(self) -> int:
        """How many values there are: exact up to 1,000, then an estimate within about 6 % (two times in three 3 %).

        Source:
            Bar-Yossef et al., Counting distinct elements in a data stream, RANDOM 2002: if k hashes fill a share h of
            their range, there are k / h.
        """
        if not self.other:
            return len(self.values)
        return round((len(self.values) - 1) / (max(_hash(value) for value in self.values) / 2**64))


ColumnProfile = Annotated[NumericProfile | CategoryProfile, Field(discriminator="kind")]


class Profile(_Record):
    """Every column of a table, or of a part of it."""

    rows: int
    columns: dict[str, ColumnProfile]


def profile_batches(batches: Iterable[pa.RecordBatch], *, skip: Collection[str] = (ENTITY_ID,)) -> Profile:
    """The profile of a table that arrives in batches; memory is bounded by one batch and 1,000 values a column.

    Args:
        batches: All with the same columns.
        skip: Columns left out. Entity ids are, so that a profile names nobody.

    Raises:
        ValueError: batches have different columns.
        TypeError: a column holds lists or structures.
    """
    return reduce(merge, (_profile(batch, skip) for batch in batches), Profile(rows=0, columns={}))


def merge(a: Profile, b: Profile) -> Profile:
    """The profile of two parts of a table together.

    Raises:
        ValueError: the parts have different columns.
    """
    if not a.rows and not a.columns:
        return b
    if not b.rows and not b.columns:
        return a
    if a.columns.keys() != b.columns.keys():
        raise ValueError(f"columns differ: {', '.join(sorted(a.columns.keys() ^ b.columns.keys()))}")
    columns = {name: _merged(name, column, b.columns[name]) for name, column in a.columns.items()}
    return Profile(rows=a.rows + b.rows, columns=columns)


def _profile(batch: pa.RecordBatch, skip: Collection[str]) -> Profile:
    columns = {name: _column(name, batch.column(name)) for name in batch.schema.names if name not in skip}
    return Profile(rows=batch.num_rows, columns=columns)


def _column(name: str, column: pa.Array) -> ColumnProfile:
    kind = column.type
    if pa.types.is_nested(kind):
        raise TypeError(f"column {name} is {kind}: only plain columns have a profile")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        # Unsafe, because an integer past 2**53 is to be rounded, not refused.
        return _numeric(pc.cast(column, pa.float64(), safe=False))
    return _category(pc.cast(column, pa.string()))


def _numeric(column: pa.Array) -> NumericProfile:
    present = column.drop_null().to_numpy(zero_copy_only=False)
    values: Floats = present[np.isfinite(present)]
    nans = int(np.isnan(present).sum())
    with np.errstate(over="ignore", invalid="ignore"):
        mean, variance = (_finite(values.mean()), _finite(values.var())) if len(values) else (None, None)
    return NumericProfile(
        count=len(values),
        nulls=column.null_count,
        nans=nans,
        infinite=len(present) - len(values) - nans,
        min=float(values.min()) if len(values) else None,
        max=float(values.max()) if len(values) else None,
        mean=mean,
        variance=variance,
        sketch=sketches.sketch_of(values),
    )


def _category(column: pa.Array) -> CategoryProfile:
    counted = pc.value_counts(column.drop_null())
    values = zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
    return _listed(dict(values), count=len(column) - column.null_count, nulls=column.null_count)


def _merged(name: str, a: ColumnProfile, b: ColumnProfile) -> ColumnProfile:
    if isinstance(a, NumericProfile) and isinstance(b, NumericProfile):
        return _merged_numeric(a, b)
    if isinstance(a, CategoryProfile) and isinstance(b, CategoryProfile):
        values = {value: a.values.get(value, 0) + b.values.get(value, 0) for value in {**a.values, **b.values}}
        return _listed(values, count=a.count + b.count, nulls=a.nulls + b.nulls)
    raise ValueError(f"columns differ: {name} is {a.kind} in one part and {b.kind} in another")


def _merged_numeric(a: NumericProfile, b: NumericProfile) -> NumericProfile:
    mean, variance = _moments(a, b)
    return NumericProfile(
        count=a.count + b.count,
        nulls=a.nulls + b.nulls,
        nans=a.nans + b.nans,
        infinite=a.infinite + b.infinite,
        min=min((low for low in (a.min, b.min) if low is not None), default=None),
        max=max((high for high in (a.max, b.max) if high is not None), default=None),
        mean=mean,
        variance=variance,
        sketch=sketches.merge(a.sketch, b.sketch),
    )


def _moments(a: NumericProfile, b: NumericProfile) -> tuple[float | None, float | None]:
    """Mean and variance of both parts together.

    Source:
        Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, COMPSTAT 1982.
    """
    if not a.count or not b.count:
        filled = a if a.count else b
        return filled.mean, filled.variance
    if a.mean is None or b.mean is None:
        return None, None
    share = b.count / (a.count + b.count)
    delta = b.mean - a.mean
    mean = _finite(a.mean + delta * share)
    if a.variance is None or b.variance is None:
        return mean, None
    return mean, _finite(a.variance * (1 - share) + b.variance * share + delta * delta * share * (1 - share))


def _listed(values: dict[str, int], *, count: int, nulls: int) -> CategoryProfile:
    # Smallest hashes first: a value among the smallest of the whole is among those of every part that has it, so
    # its count is exact however the table was cut.
    kept = values if len(values) <= MAX_VALUES else heapq.nsmallest(MAX_VALUES, values, key=_order)
    listed = {value: values[value] for value in sorted(kept)}
    return CategoryProfile(count=count, nulls=nulls, values=listed, other=count - sum(listed.values()))


def _order(value: str) -> tuple[int, str]:
    return _hash(value), value


def _hash(value: str) -> int:
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "big")


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
