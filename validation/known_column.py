"""A column as its profile knows it: what of it is exact, for Great Expectations to be answered with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import pyarrow as pa

from validation.profile import CategoryProfile, ColumnProfile, NumericProfile

# Whole numbers below it are exact in a profile, which keeps doubles.
_EXACT = 2**53

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """The value of a metric, which may itself be None."""

    value: Any


@dataclass(frozen=True)
class Column:
    """A column of a table, without its rows.

    Attributes:
        type: As in the files.
        profile: Of the column.
        rows: Of the table.
    """

    type: pa.DataType
    profile: ColumnProfile
    rows: int

    @property
    def filled(self) -> int:
        """Rows that are not null."""
        return self.rows - self.profile.nulls

    @property
    def numbers(self) -> NumericProfile | None:
        """The profile, where it holds the column's numbers exactly."""
        profile = self.profile
        if not isinstance(profile, NumericProfile):
            return None
        if pa.types.is_float32(self.type) or pa.types.is_float64(self.type):
            return profile
        whole = pa.types.is_signed_integer(self.type)
        return profile if whole and max(abs(profile.min or 0), abs(profile.max or 0)) < _EXACT else None

    @property
    def values(self) -> dict[str, int] | None:
        """Every value that is not null, as text, and its rows; None where there are too many, or numbers."""
        profile = self.profile
        return profile.values if isinstance(profile, CategoryProfile) and not profile.other else None

    @property
    def texts(self) -> dict[str, int] | None:
        """The same of a column of text: the values are what the data holds."""
        kind = self.type.value_type if pa.types.is_dictionary(self.type) else self.type
        return self.values if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def inside(value: float, options: Options) -> bool:
    """Whether a value is in the range that an expectation gives."""
    low, high = options.get("min_value"), options.get("max_value")
    if low is not None and (value < low or (options.get("strict_min") and value == low)):
        return False
    return high is None or value < high or (value == high and not options.get("strict_max"))


def numeric_range(options: Options) -> bool:
    """Whether an expectation gives a range, and all of its ends are numbers."""
    ends = [end for end in (options.get("min_value"), options.get("max_value")) if end is not None]
    return bool(ends) and all(is_number(end) for end in ends)


def texts_given(options: Options) -> list[str] | None:
    """The set of values that an expectation gives; None unless all are text, which alone Spark compares as it is."""
    given = options.get("value_set")
    if not isinstance(given, list | set | tuple):
        return None
    return list(given) if all(isinstance(value, str) for value in given) else None
