"""What is decided for a user's table before a file is written: names, features, label and split, each with its why."""

import datetime as dt
import itertools
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from jobs.inspection import InspectedColumn, Kind, Level, plain, shown
from jobs.tablefile import TableFile
from jobs.targets import Target
from schemas.errors import InputError, Problem
from schemas.run import ENTITY_ID, REASONS, ROUTE_COLUMNS
from schemas.strict import COLUMN_PATTERN

HOLDOUT_SHARE = 0.2
_HOLDOUT_BOUNDS = (0.05, 0.5)
_DAYS_TRIED = 50
_LARGEST = 1e300
_MAX_NAME = 100
# Columns that a run adds beside the features.
_TAKEN = frozenset({ENTITY_ID, REASONS, *ROUTE_COLUMNS, "score"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFeature:
    """One feature.

    Attributes:
        expression: Spark SQL over the source; None for a key column, which is selected as it is.
        why: From what it was decided.
        filled: Share of rows that have a value.
        bounds: Where a number is expected, None for no bounds; and why there.
        values: Of a category, sorted.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    expression: str | None
    why: str
    filled: float
    bounds: tuple[float, float] | None = None
    bounds_why: str = "what was seen, with half its width more on each side"
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSplit:
    """By time where `by` is given, else at random by entity."""

    by: str | None
    at: dt.date | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that the three files say.

    Attributes:
        source_path: As pipeline.yaml names it.
        repeated: Rows that only repeat another one.
        left_out: Column -> why it is no feature.
        forbidden: Column -> why features.sql may not see it.
    """

    name: str
    source: str
    source_path: str
    file: TableFile
    key: Sequence[str]
    repeated: int
    target: Target
    label: str
    features: Sequence[PlannedFeature]
    left_out: Mapping[str, str]
    forbidden: Mapping[str, str]
    split: PlannedSplit
    today: dt.date


def column_sql(name: str) -> str:
    """The column in backticks.

    >>> print(column_sql("a`b"))
    `a``b`
    """
    return f"`{name.replace('`', '``')}`"


def value_sql(column: InspectedColumn) -> str:
    """Spark SQL for the column's value as double, string or date, NULL where there is none. Right in ANSI mode."""
    name = column_sql(column.name)
    if column.kind is Kind.CATEGORY:
        return f"nullif(trim({name}), '')" if column.is_text else f"CAST({name} AS STRING)"
    if column.kind is Kind.DATE:
        return f"try_cast(substr(trim({name}), 1, 10) AS DATE)" if column.is_text else f"CAST({name} AS DATE)"
    number = _parsed_sql(column) if column.is_text else f"CAST({name} AS DOUBLE)"
    # NaN is above infinity in Spark.
    return (
        f"CASE WHEN abs({number}) < CAST('Infinity' AS DOUBLE) THEN {number} END" if column.has_not_finite else number
    )


def _parsed_sql(column: InspectedColumn) -> str:
    text = f"trim({column_sql(column.name)})"
    if column.decimal_comma:
        text = f"replace({text}, ',', '.')"
    return f"try_cast({text} AS DOUBLE)"


def label_sql(target: Target) -> str:
    """Spark SQL for the label: 1, 0 or NULL, or the number."""
    column = target.column
    if target.positive is None or target.negative is None:
        return value_sql(column)
    name = column_sql(column.name)
    if column.kind is Kind.NUMBER:
        value = _parsed_sql(column) if column.is_text else name
    else:
        value = f"lower(trim({name}))" if column.is_text else f"lower(CAST({name} AS STRING))"
    one, zero = _literal(target.positive), _literal(target.negative)
    return f"CASE WHEN {value} IN ({one}) THEN 1 WHEN {value} IN ({zero}) THEN 0 END"


def _literal(level: Level) -> str:
    if isinstance(level, str):
        return "'{}'".format(level.replace("\\", "\\\\").replace("'", "\\'"))
    text = plain(level)
    return text if re.fullmatch(r"-?\d{1,15}", text) else f"{text}D"


def plan_features(
    columns: Sequence[InspectedColumn], key: Sequence[str]
) -> tuple[list[PlannedFeature], dict[str, str]]:
    """The features that these columns give, and why each other column gives none."""
    left_out = {column.name: column.unusable for column in columns if column.unusable}
    for column in columns:
        if column.name in key and (len(key) == 1 or column.kind is Kind.NUMBER):
            left_out[column.name] = "it names the entity"
    used = [column for column in columns if column.name not in left_out]
    wanted = [feature for column in used for feature in _features_of(column, column.name in key)]
    kept = {feature.name for feature in wanted if feature.expression is None}
    free = [feature for feature in wanted if feature.expression is not None]
    names = iter(unique_names([feature.name for feature in free], {*_TAKEN, *key}))
    return [feature if feature.name in kept else replace(feature, name=next(names)) for feature in wanted], left_out


def unique_names(wanted: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """A column name that the declaration allows for each wanted one; those that are allowed as they are stay.

    >>> unique_names(["Monthly fee (€)", "2nd", "Monthly_fee", "monthly fee"])
    ['Monthly_fee_2', 'c_2nd', 'Monthly_fee', 'monthly_fee_3']
    """
    used = {name.lower() for name in taken}
    names: dict[int, str] = {}
    for position in sorted(range(len(wanted)), key=lambda position: not _is_plain(wanted[position])):
        base = wanted[position] if _is_plain(wanted[position]) else ascii_name(wanted[position], default="column")
        numbered = (f"{base}_{count}" for count in itertools.count(2))
        names[position] = next(name for name in itertools.chain([base], numbered) if name.lower() not in used)
        used.add(names[position].lower())
    return [names[position] for position in range(len(wanted))]


def ascii_name(text: str, *, default: str) -> str:
    """Letters, digits and underscores that come closest to the text."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9]+", "_", letters).strip("_")[:_MAX_NAME] or default
    return f"c_{name}" if name[0].isdigit() else name


def _is_plain(name: str) -> bool:
    return bool(re.fullmatch(COLUMN_PATTERN, name)) and len(name) <= _MAX_NAME and not name.startswith("__")


def _features_of(column: InspectedColumn, is_key: bool) -> Iterator[PlannedFeature]:
    rows, value = len(column.codes), value_sql(column)
    share = column.filled / rows
    seen = f"{shown(column.name)}: a {column.kind} in {column.filled:,} of {rows:,} rows"
    seen += ", written with decimal commas" if column.decimal_comma else ""
    if column.lost[0]:
        seen += f"; {column.lost[0]:,} values become NULL, such as {', '.join(map(shown, column.lost[1]))}"
    if column.kind is Kind.NUMBER:
        bounds = widened(column.levels[0], column.levels[-1])
        yield PlannedFeature(name=column.name, kind="numeric", expression=value, why=seen, filled=share, bounds=bounds)
    elif column.kind is Kind.CATEGORY:
        count = f"{len(column.levels):,} different values"
        yield PlannedFeature(
            name=column.name,
            kind="categorical",
            expression=None if is_key else value,
            why=f"{seen}, {count}",
            filled=share,
            values=tuple(column.levels),
        )
    else:
        calendar: dict[str, tuple[str, str, tuple[float, float] | None]] = {
            "day_of_week": (f"dayofweek({value})", "1 is Sunday", (1.0, 7.0)),
            "month": (f"month({value})", "1 to 12", (1.0, 12.0)),
            "age_days": (f"datediff(:ds, {value})", "days up to the logical date", None),
        }
        for suffix, (expression, what, limits) in calendar.items():
            yield PlannedFeature(
                name=f"{column.name}_{suffix}",
                kind="numeric",
                expression=f"CAST({expression} AS DOUBLE)",
                why=f"{seen}, {column.levels[0]} to {column.levels[-1]}; {what}",
                filled=share,
                bounds=limits,
                bounds_why=what,
            )


def widened(low: float, high: float) -> tuple[float, float]:
    """The range with half its width more on each side, in round numbers.

    >>> widened(0.0, 71.0)
    (-35.5, 106.5)
    """
    if max(abs(low), abs(high)) > _LARGEST:
        return -1.7976931348623157e308, 1.7976931348623157e308
    width = (high - low) or abs(high) or 1.0
    digits = 2 - math.floor(math.log10(width))
    return round(low - width / 2, digits), round(high + width / 2, digits)


def plan_split(columns: Sequence[InspectedColumn], target: Target, date: str | None) -> PlannedSplit:
    """By time where exactly one column of dates can be split on, or `date` names one; else at random.

    Args:
        columns: Those that do not give the target away.
        target: What both sides of the split must have.
        date: A column's name, or None to choose.

    Raises:
        InputError: the column that `date` names cannot be split on.
    """
    dates = [column for column in columns if column.kind is Kind.DATE]
    if date is not None:
        dates = [column for column in dates if column.name == date]
    names = ", ".join(shown(column.name) for column in dates)
    if len(dates) == 1 and (at := _split_day(dates[0], target)):
        day, share = at
        missing = len(target.outcome) - dates[0].filled
        what = "the date given" if date else "the one column of dates"
        why = f"{names} is {what}; from {day} on are {share:.0%} of the rows read"
        why += f"; {missing:,} rows without a date are left out" if missing else ""
        return PlannedSplit(by=value_sql(dates[0]), at=day, why=why)
    if date is not None:
        found = "no column of dates (YYYY-MM-DD) that the features may see"
        if dates:
            found = "no day has 5 % to 50 % of the labelled rows from it on, with both outcomes before and after"
        raise InputError(
            Problem("SCAFFOLD_DATE", f"date '{date}'", found, "a column to split by time; or leave it out")
        )
    if len(dates) > 1:
        why = f"several columns of dates, {names}: name the one that says when with --date-column"
    elif dates:
        why = f"{names}, the one column of dates, has no day with both outcomes before and after it"
    else:
        why = "no column of dates"
    return PlannedSplit(by=None, at=None, why=why)


def _split_day(column: InspectedColumn, target: Target) -> tuple[dt.date, float] | None:
    """The day that holds out the share nearest to 20 %, with outcomes to learn and to measure; and that share."""
    known = (column.codes >= 0) & ~np.isnan(target.outcome)
    codes, outcome = column.codes[known], target.outcome[known]
    counts = np.bincount(codes, minlength=len(column.levels))
    shares = counts[::-1].cumsum()[::-1] / max(1, codes.size)
    nearest = np.argsort(np.abs(shares - HOLDOUT_SHARE), kind="stable")[:_DAYS_TRIED]
    for code in nearest.tolist():
        held_out = codes >= code
        outcomes = min(np.unique(outcome[~held_out]).size, np.unique(outcome[held_out]).size)
        if _HOLDOUT_BOUNDS[0] <= shares[code] <= _HOLDOUT_BOUNDS[1] and outcomes > 1:
            return column.levels[code], float(shares[code])
    return None
