"""How many rows an expectation of each row does not allow, and some of their values, from a profile alone."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from validation.known_column import Column, Found, Options, inside, is_number, numeric_range, texts_given


@dataclass(frozen=True)
class _Unexpected:
    """Rows that are not allowed.

    Attributes:
        count: Of them.
        examples: Their values, or None where the profile cannot name any.
    """

    count: int
    examples: list[Any] | None


def rows_metric(column: Column, metric: str, options: Options) -> Found | None:
    """The value of `<what is asked of each row>.unexpected_count` or `.unexpected_values`; None: ask the data."""
    condition, _, wanted = metric.rpartition(".")
    unexpected = _CONDITIONS[condition](column, options) if condition in _CONDITIONS else None
    if unexpected is None:
        return None
    if wanted == "unexpected_count":
        return Found(unexpected.count)
    if wanted == "unexpected_values" and unexpected.examples is not None and "result_format" in options:
        return Found(unexpected.examples[: options["result_format"]["partial_unexpected_count"]])
    return None


def _same(value: object, count: int) -> _Unexpected:
    # More examples than anybody asks for; fewer than would cost anything.
    return _Unexpected(count, [value] * min(count, 100))


def _some(values: Mapping[str, int]) -> _Unexpected:
    """The most frequent are the examples, each once."""
    return _Unexpected(sum(values.values()), sorted(values, key=lambda value: (-values[value], value)))


def _null(column: Column, options: Options) -> _Unexpected:  # noqa: ARG001  # all have one signature
    return _same(None, column.profile.nulls)


def _not_null(column: Column, options: Options) -> _Unexpected:  # noqa: ARG001  # all have one signature
    return _Unexpected(column.filled, None if column.filled else [])


def _not_finite(column: Column, options: Options) -> _Unexpected | None:  # noqa: ARG001  # all have one signature
    numbers = column.numbers
    if numbers is None:
        return None
    # The profile does not tell plus from minus.
    return _Unexpected(numbers.nans + numbers.infinite, None) if numbers.infinite else _same(math.nan, numbers.nans)


def _out_of_range(column: Column, options: Options) -> _Unexpected | None:
    numbers = column.numbers
    if numbers is None or numbers.infinite or not numeric_range(options):
        return None
    if not all(inside(end, options) for end in (numbers.min, numbers.max) if end is not None):
        return None  # some are outside: the data knows which
    # Spark holds NaN to be above every number.
    return _same(math.nan, numbers.nans if options.get("max_value") is not None else 0)


def _by_set(column: Column, options: Options, *, forbidden: bool) -> _Unexpected | None:
    texts, given = column.texts, texts_given(options)
    if texts is None or given is None:
        return None
    listed = set(given)
    return _some({value: rows for value, rows in texts.items() if (value in listed) == forbidden})


def _by_length(column: Column, options: Options, *, allowed: Callable[[int, Options], bool]) -> _Unexpected | None:
    texts = column.texts
    ends = [options.get(key) for key in ("value", "min_value", "max_value") if options.get(key) is not None]
    if texts is None or not ends or not all(is_number(end) and float(end).is_integer() for end in ends):
        return None
    return _some({value: rows for value, rows in texts.items() if not allowed(len(value), options)})


_CONDITIONS: dict[str, Callable[[Column, Options], _Unexpected | None]] = {
    "column_values.nonnull": _null,
    "column_values.null": _not_null,
    "column_values.finite": _not_finite,
    "column_values.between": _out_of_range,
    "column_values.in_set": partial(_by_set, forbidden=False),
    "column_values.not_in_set": partial(_by_set, forbidden=True),
    "column_values.value_length.between": partial(_by_length, allowed=inside),
    "column_values.value_length.equals": partial(
        _by_length, allowed=lambda length, options: bool(length == options["value"])
    ),
}
