"""The target of a user's table: two classes or a quantity, and the columns that give it away."""

from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

import numpy as np

from jobs.inspection import MISSING, Floats, InspectedColumn, Ints, Kind, Level, plain, shown
from schemas.errors import InputError, Problem

MIN_LEAK_ROWS = 10
MIN_ROWS = 20
POSITIVE = frozenset({"yes", "y", "true", "t", "1", "on", "positive", "pos", "churned", "churn"})
NEGATIVE = frozenset({"no", "n", "false", "f", "0", "-1", "off", "negative", "neg"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is predicted.

    Attributes:
        outcome: 1 and 0, or the number; NaN where the row has none. Shape (rows,).
        positive: The level that is 1, lower-case where it is text, and the one that is 0; None in a regression.
        why: From what this was decided.
    """

    column: InspectedColumn
    objective: Literal["binary", "regression"]
    outcome: Floats
    positive: Level | None
    negative: Level | None
    why: str


def inspect_target(column: InspectedColumn) -> Target:
    """What the column's values make of it: two values are classes, more numbers a quantity.

    Raises:
        InputError: it is empty, has one value only, is a date, or has three or more text classes.
    """
    levels, codes = _classes(column)
    if column.kind in (Kind.DATE, Kind.OTHER) or len(levels) < 2:
        only = f"one value only: {shown(levels[0])}" if len(levels) == 1 else column.unusable
        raise _refused(column, "SCAFFOLD_TARGET", only or "dates", "two classes, or a number of more than one value")
    if len(levels) == 2:
        return _binary(column, levels, codes)
    if column.kind is Kind.NUMBER:
        return Target(
            column=column,
            objective="regression",
            outcome=column.numbers,
            positive=None,
            negative=None,
            why=f"{len(levels):,} different numbers, so a quantity is predicted",
        )
    rest = f" and {len(levels) - 10:,} more" if len(levels) > 10 else ""
    found = f"{len(levels):,} classes: {', '.join(map(shown, levels[:10]))}{rest}"
    expected = "two classes, or a number: more classes are not supported yet; make a yes/no column of one of them"
    raise _refused(column, "SCAFFOLD_TARGET_CLASSES", found, expected)


def _classes(column: InspectedColumn) -> tuple[list[Any], Ints]:
    """The target's levels: text without case, and without marks of a missing value where one would be a third class."""
    if column.kind is not Kind.CATEGORY:
        return list(column.levels), column.codes
    lowered = [level.lower() for level in column.levels]
    levels = sorted(set(lowered))
    if len(levels) > 2:
        levels = [level for level in levels if level not in MISSING]
    index = {level: code for code, level in enumerate(levels)}
    return levels, np.array([*(index.get(level, -1) for level in lowered), -1], dtype=np.int32)[column.codes]


def _binary(column: InspectedColumn, levels: list[Any], codes: Ints) -> Target:
    counts = np.bincount(codes[codes >= 0], minlength=2)
    names = [plain(level) for level in levels]
    known = [name in POSITIVE for name in names]
    if sum(known) != 1:
        known = [name in NEGATIVE for name in reversed(names)]
    positive, reason = int(np.argmin(counts)), "because it is the rarer one"
    if sum(known) == 1:
        positive, reason = known.index(True), "by its name"
    one, zero = (f"{shown(levels[code])} ({counts[code]:,} rows)" for code in (positive, 1 - positive))
    return Target(
        column=column,
        objective="binary",
        outcome=np.where(codes < 0, np.nan, codes == positive).astype(np.float64),
        positive=levels[positive],
        negative=levels[1 - positive],
        why=f"two values: {one} counts as 1 {reason}, {zero} as 0",
    )


def check_size(target: Target) -> None:
    """Refuse what is too little to learn from and to measure on: a split would leave a side with hardly any of it.

    Raises:
        InputError: fewer than `MIN_ROWS` rows have the rarer class, or a number.
    """
    outcome = target.outcome[~np.isnan(target.outcome)]
    if target.positive is None or target.negative is None:
        count, what = outcome.size, "rows have a number"
    else:
        ones = int(outcome.sum())
        count, rarer = min((ones, target.positive), (outcome.size - ones, target.negative), key=itemgetter(0))
        what = f"rows have the rarer class, {shown(rarer)}"
    if count < MIN_ROWS:
        found = f"only {count:,} {what}: too few to learn from and to measure on"
        raise _refused(target.column, "SCAFFOLD_TOO_SMALL", found, f"at least {MIN_ROWS}; give a longer table")


def gives_away(column: InspectedColumn, target: Target) -> str | None:
    """How a column tells the target row by row, or None where it does not (or too few rows could say so)."""
    known = ~np.isnan(target.outcome)
    present = column.codes >= 0
    if known.sum() < MIN_LEAK_ROWS:
        return None
    if target.objective == "binary" and _is_one_to_one(present[known].astype(np.int32), target.outcome[known]):
        return "it is filled for one class only, and always"
    both = known & present
    if both.sum() < max(MIN_LEAK_ROWS, known.sum() / 2):
        return None
    if column.kind is Kind.CATEGORY:
        is_same = _is_one_to_one(column.codes[both], target.outcome[both]) and column.unusable is None
        return "each of its values stands for one value of the target" if is_same else None
    if column.kind is Kind.OTHER:
        return None
    return "its correlation with the target is 1" if _is_linear(column.numbers[both], target.outcome[both]) else None


def _is_one_to_one(codes: Ints, outcome: Floats) -> bool:
    pairs = len(set(zip(codes.tolist(), outcome.tolist(), strict=True)))
    return pairs == len(set(codes.tolist())) == len(set(outcome.tolist())) > 1


def _is_linear(left: Floats, right: Floats) -> bool:
    def standardised(values: Floats) -> Floats:
        scaled = values / max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
        centred = scaled - scaled.mean()
        return np.asarray(centred / max(float(np.sqrt((centred**2).sum())), 1e-12), dtype=np.float64)

    return abs(float(standardised(left) @ standardised(right))) >= 1 - 1e-9


def _refused(column: InspectedColumn, code: str, found: str, expected: str) -> InputError:
    return InputError(Problem(code, f"target '{column.name}'", found, expected))
