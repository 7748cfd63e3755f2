"""Statistics of a column for Great Expectations, from a profile alone, with the values that Spark gives them."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa

from validation.known_column import Column, Found, Options, texts_given
from validation.profile import NumericProfile

# As many as Great Expectations' own metrics list where nothing else is said.
_DISTINCT_SHOWN = 20
_NO_MEAN = (pa.int8(), pa.int16())


def column_metric(column: Column, metric: str, options: Options) -> Found | None:
    """The value of a metric such as `column.max`; None: ask the data."""
    return _STATISTICS[metric](column, options) if metric in _STATISTICS else None


def _smallest(column: Column, options: Options) -> Found | None:  # noqa: ARG001  # all have one signature
    numbers = column.numbers
    if numbers is None or numbers.infinite:
        return None
    return Found(_typed(column, numbers.min))


def _largest(column: Column, options: Options) -> Found | None:  # noqa: ARG001  # all have one signature
    numbers = column.numbers
    if numbers is None:
        return None
    if numbers.nans:
        return Found(None)  # Spark's maximum is NaN, which Great Expectations takes for None
    return None if numbers.infinite else Found(_typed(column, numbers.max))


def _typed(column: Column, value: float | None) -> float | None:
    return int(value) if value is not None and pa.types.is_integer(column.type) else value


def _mean(column: Column, options: Options) -> Found | None:  # noqa: ARG001  # all have one signature
    # Great Expectations has no mean of bytes and shorts, and raises.
    return None if column.type in _NO_MEAN else _moment(column, lambda numbers: numbers.mean)


def _deviation(column: Column, options: Options) -> Found | None:  # noqa: ARG001  # all have one signature
    if column.numbers is not None and column.filled == 1:
        return Found(None)  # of a sample, and one value is none
    return _moment(column, _of_sample)


def _of_sample(numbers: NumericProfile) -> float | None:
    # The profile's variance is that of a whole population.
    return None if numbers.variance is None else math.sqrt(numbers.variance * (numbers.count / (numbers.count - 1)))


def _moment(column: Column, statistic: Callable[[NumericProfile], float | None]) -> Found | None:
    """NaN makes every moment NaN, which Great Expectations takes for None, as it does that of no values."""
    numbers = column.numbers
    if numbers is None:
        return None
    if numbers.nans or not column.filled:
        return Found(None)
    value = None if numbers.infinite else statistic(numbers)
    return None if value is None else Found(value)


def _filled(column: Column, options: Options) -> Found:  # noqa: ARG001  # all have one signature
    return Found(column.filled)


def _filled_share(column: Column, options: Options) -> Found:  # noqa: ARG001  # all have one signature
    return Found(column.filled / column.rows if column.rows else 0)


def _of_texts(column: Column, options: Options, *, of: Callable[[dict[str, int]], Any]) -> Found | None:  # noqa: ARG001  # all have one signature
    return None if column.texts is None else Found(of(column.texts))


def _most_common(texts: dict[str, int]) -> list[str]:
    most = max(texts.values(), default=0)
    return sorted(value for value, rows in texts.items() if rows == most)


def _unlisted(column: Column, options: Options, *, of: Callable[[list[str]], Any]) -> Found | None:
    texts, given = column.texts, texts_given(options)
    return None if texts is None or given is None else Found(of(sorted(texts.keys() - set(given))))


def _missing(column: Column, options: Options, *, of: Callable[[list[str]], Any]) -> Found | None:
    texts, given = column.texts, texts_given(options)
    return None if texts is None or given is None else Found(of([value for value in given if value not in texts]))


def _some(values: list[str]) -> list[str]:
    return values[:_DISTINCT_SHOWN]


def _top_share(column: Column, options: Options) -> Found | None:  # noqa: ARG001  # all have one signature
    if not column.filled:
        return Found(None)
    if column.values is not None:
        return Found(max(column.values.values()) / column.filled)
    # Of numbers a profile knows no value but the smallest and the largest.
    numbers = column.numbers
    constant = numbers is not None and numbers.count == column.filled and numbers.min == numbers.max
    return Found(1.0) if constant else None


_STATISTICS: dict[str, Callable[[Column, Options], Found | None]] = {
    "column.min": _smallest,
    "column.max": _largest,
    "column.mean": _mean,
    "column.standard_deviation": _deviation,
    "column.non_null_count": _filled,
    "column.non_null_proportion": _filled_share,
    "column.distinct_values": partial(_of_texts, of=set),
    "column.distinct_values.count": partial(_of_texts, of=len),
    "column.unique_proportion": partial(_of_texts, of=lambda texts: len(texts) / sum(texts.values()) if texts else 0),
    "column.most_common_value": partial(_of_texts, of=_most_common),
    "column.distinct_values.not_in_set": partial(_unlisted, of=_some),
    "column.distinct_values.not_in_set.count": partial(_unlisted, of=len),
    "column.distinct_values.missing_from_column": partial(_missing, of=_some),
    "column.distinct_values.missing_from_column.count": partial(_missing, of=len),
    "column.top_value_share": _top_share,
}
