"""Types read off the data: which columns are numbers, categories or dates, and which are no use."""

import datetime as dt
import math
import re
from array import array as packed
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Level = float | str | dt.date

MIN_PARSED_SHARE = 0.95
MAX_CATEGORIES = 1000
MAX_CATEGORY_SHARE = 0.5
# What tools write where a value is missing. They do not speak against a column of numbers or dates.
MISSING = frozenset({"na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "--", "?", "."})

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# 1,234 is as well a number of thousands as a decimal: it speaks for neither.
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+")
_LEADING_ZERO = re.compile(r"0[0-9]+")
_DAY = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ][0-9:.+\-Z ]*)?")
_SHOWN = 40
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)")


class Kind(StrEnum):
    NUMBER = "number"
    CATEGORY = "category"
    DATE = "date"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedColumn:
    """A column as a pipeline would read it.

    Attributes:
        levels: The different values, sorted.
        codes: Index of each row's level, -1 where it has none; shape (rows,).
        is_text: The file stores text, so SQL must trim and try_cast.
        decimal_comma: Numbers are written 12,5.
        has_not_finite: Some value would be read as NaN or infinite.
        lost: Values that are there but are no number or date, so they become NULL: how many, and up to three.
        unusable: Why the column is no feature, or None where it is one.
    """

    name: str
    kind: Kind
    levels: Sequence[Any]
    codes: Ints
    is_text: bool
    decimal_comma: bool = False
    has_not_finite: bool = False
    lost: tuple[int, tuple[str, ...]] = (0, ())
    unusable: str | None = None

    @property
    def filled(self) -> int:
        """Rows that have a value."""
        return int((self.codes >= 0).sum())

    @property
    def numbers(self) -> Floats:
        """Each row's number, or days since year 1 of a date; NaN where it has none."""
        values = [level.toordinal() if isinstance(level, dt.date) else level for level in self.levels]
        return np.array([*values, math.nan], dtype=np.float64)[self.codes]


def inspect_column(name: str, array: pa.ChunkedArray) -> InspectedColumn:
    """The type that the values of a column have, whatever they are stored as."""
    kind = array.type
    if pa.types.is_dictionary(kind) or pa.types.is_null(kind):
        kind = pa.string() if pa.types.is_null(kind) else kind.value_type
        array = array.cast(kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = _from_text(name, array)
    elif pa.types.is_boolean(kind):
        column = _column(name, Kind.CATEGORY, array.cast(pa.string()), _as_is, is_text=False)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        floats = pc.cast(array, pa.float64(), safe=False)
        column = _column(name, Kind.NUMBER, floats, _finite, is_text=False)
    elif pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.unit != "ns"):
        column = _from_days(name, array)
    else:
        column = _column(name, Kind.OTHER, pa.chunked_array([pa.nulls(len(array), pa.string())]), _as_is, is_text=False)
        is_time = pa.types.is_timestamp(kind)
        reason = "Spark reads no nanoseconds: write it in microseconds" if is_time else "no number, text or date"
        return replace(column, unusable=f"of type {kind}: {reason}")
    return _judged(column)


def _from_text(name: str, array: pa.ChunkedArray) -> InspectedColumn:
    values, codes = _encoded(array)
    counts = np.bincount(codes[codes >= 0], minlength=len(values)).tolist()
    texts: dict[str, int] = {}
    for value, count in zip(values, counts, strict=True):
        text = value.strip(" ")  # what Spark's trim() takes away
        texts[text] = texts.get(text, 0) + count
    written = {text: count for text, count in texts.items() if text and text.lower() not in MISSING}
    told = sum(written.values())
    is_code = any(_LEADING_ZERO.fullmatch(text) for text in texts)  # 007: as a number it would be 7
    decimal_comma = _has_decimal_commas(written)
    for kind, parse in ((Kind.NUMBER, _comma_number if decimal_comma else _number), (Kind.DATE, _day)):
        parsed = sum(count for text, count in texts.items() if parse(text) is not None)
        if told and parsed >= MIN_PARSED_SHARE * told and not (is_code and kind is Kind.NUMBER):
            column = _column(name, kind, array, parse, is_text=True)
            return replace(column, decimal_comma=decimal_comma and kind is Kind.NUMBER)
    return _column(name, Kind.CATEGORY, array, _as_is, is_text=True)


def _has_decimal_commas(texts: Collection[str]) -> bool:
    commas = [text for text in texts if "," in text]
    return not any("." in text for text in texts) and not all(_THOUSANDS.fullmatch(text) for text in commas)


def _from_days(name: str, array: pa.ChunkedArray) -> InspectedColumn:
    days = pc.cast(pc.cast(array, pa.date32(), safe=False), pa.int32())
    epoch = dt.date(1970, 1, 1).toordinal()

    def day(value: int) -> dt.date | None:
        ordinal = value + epoch
        return dt.date.fromordinal(ordinal) if 1 <= ordinal <= dt.date.max.toordinal() else None

    return _column(name, Kind.DATE, days, day, is_text=False)


def _column(
    name: str, kind: Kind, array: pa.ChunkedArray, read: Callable[[Any], Level | None], *, is_text: bool
) -> InspectedColumn:
    values, codes = _encoded(array)
    read_values = [read(value.strip(" ") if is_text else value) for value in values]
    levels: list[Any] = sorted({value for value in read_values if value is not None})
    index = {level: code for code, level in enumerate(levels)}
    recode = np.array([*(-1 if value is None else index[value] for value in read_values), -1], dtype=np.int32)
    lost = [code for code, value in enumerate(read_values) if value is None and str(values[code]).strip(" ")]
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    return InspectedColumn(
        name=name,
        kind=kind,
        levels=packed("d", levels) if kind is Kind.NUMBER else levels,
        codes=recode[codes],
        is_text=is_text,
        has_not_finite=kind is Kind.NUMBER and any(_is_not_finite(values[code]) for code in lost),
        lost=(int(counts[lost].sum()), tuple(str(values[code]) for code in lost[:3])),
    )


def _encoded(array: pa.ChunkedArray) -> tuple[list[Any], Ints]:
    """The different values as they are stored, and each row's index of them, -1 for null."""
    encoded = array.dictionary_encode().combine_chunks()
    return encoded.dictionary.to_pylist(), encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)


def _as_is(text: str) -> str | None:
    return text or None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(text: str) -> float | None:
    return _finite(float(text)) if _NUMBER.fullmatch(text.strip()) else None


def _comma_number(text: str) -> float | None:
    return _number(text.replace(",", "."))


def _is_not_finite(value: str | float) -> bool:
    text = str(value).strip().lower().replace(",", ".")
    return bool(_NOT_FINITE.fullmatch(text) or _NUMBER.fullmatch(text))


def _day(text: str) -> dt.date | None:
    match = _DAY.fullmatch(text)
    try:
        return dt.date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None


def _judged(column: InspectedColumn) -> InspectedColumn:
    rows, filled, count = len(column.codes), column.filled, len(column.levels)
    reason = None
    if not filled:
        reason = "no row has a value"
    elif count == 1 and filled == rows:
        reason = f"the same in every row: {shown(column.levels[0])}"
    elif column.kind is Kind.CATEGORY and (count > MAX_CATEGORIES or count >= MAX_CATEGORY_SHARE * filled):
        reason = f"{count:,} different texts in {filled:,} rows: free text, or an id"
    return replace(column, unusable=reason)


def plain(level: Level) -> str:
    """A level as people write it.

    >>> plain(1.0), plain(0.5), plain("yes")
    ('1', '0.5', 'yes')
    """
    return str(int(level)) if isinstance(level, float) and level.is_integer() and abs(level) < 2**53 else str(level)


def shown(level: Level) -> str:
    r"""A level as a message or a comment may show it: on one line, quoted, cut short.

    >>> print(shown("a\nb"), shown(2.0))
    'a\nb' 2
    """
    text = plain(level)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...") if isinstance(level, str) else text
