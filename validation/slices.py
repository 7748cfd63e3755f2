"""The mean prediction of declared groups, against that of the same groups in the live release."""

from collections.abc import Iterable, Sequence
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, FiniteFloat

from schemas.checks import Slices
from schemas.errors import InputError, Problem
from schemas.report import CheckResult, Verdict
from validation.gate import at_levels, in_words, not_evaluated

MAX_VALUES = 1000
NULL = "(null)"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SliceMean(_Record):
    """The predictions of the rows that share one value.

    Attributes:
        rows: Those whose prediction is a finite number.
        total: Their sum.
        unusable: Rows whose prediction is null, NaN or infinite.
    """

    rows: int = 0
    total: FiniteFloat = 0.0
    unusable: int = 0

    @property
    def mean(self) -> float:
        """Raises ZeroDivisionError where there is no row."""
        return self.total / self.rows


class SliceMeans(_Record):
    """Column -> value -> the predictions of its rows; a null value is `(null)`."""

    columns: dict[str, dict[str, SliceMean]]


def measure_slices(batches: Iterable[pa.RecordBatch], *, columns: Sequence[str], output: str) -> SliceMeans:
    """The groups of every column, in one scan.

    Args:
        batches: Hold the columns and the output side by side.
        columns: What to group by, each on its own.
        output: The prediction that is averaged.

    Raises:
        InputError: a column has more than 1,000 values.
    """
    empty = SliceMeans(columns={column: {} for column in columns})
    return reduce(merge, (_measure(batch, columns, output) for batch in batches), empty)


def merge(a: SliceMeans, b: SliceMeans) -> SliceMeans:
    """The groups of two parts of a table together; both measure the same columns.

    Raises:
        InputError: a column has more than 1,000 values.
        KeyError: a column is measured in only one part.
    """
    merged = {column: _merged(a.columns[column], b.columns[column]) for column in {**a.columns, **b.columns}}
    for column, values in merged.items():
        if len(values) > MAX_VALUES:
            where, found = f"checks.slices.columns: {column}", f"{len(values)} values and more"
            raise InputError(Problem("VERIFY_SLICE_VALUES", where, found, f"at most {MAX_VALUES} groups"))
    return SliceMeans(columns=merged)


def check_slices(current: SliceMeans, live: SliceMeans | None, declared: Slices) -> list[CheckResult]:
    """One result for each declared column: its group that moved most, of those with enough rows on both sides."""
    return [_check_column(column, current, live, declared) for column in declared.columns]


def _check_column(column: str, current: SliceMeans, live: SliceMeans | None, declared: Slices) -> CheckResult:
    name, least, shift = f"slices by {column}", declared.min_rows, declared.shift
    expected = f"means of groups of {least} rows or more move by {in_words(shift)}"
    now, before = (side.columns.get(column, {}) if side else {} for side in (current, live))
    judged = [value for value in now if value in before and min(now[value].rows, before[value].rows) >= least]
    problem = _problem(now, f"{column} of this run")
    if live is not None:
        problem = problem or _problem(before, f"{column} of the live release")
        problem = problem or (
            "" if judged else f"no group of {column} has {least} rows both now and in the live release"
        )
    if problem:
        return not_evaluated(name, "slices", observed=problem, expected=expected)
    if live is None:
        verdict, observed = Verdict.PASS, "first release: nothing to compare with"
    else:
        moved, value = max((abs(now[value].mean - before[value].mean), value) for value in judged)
        verdict = at_levels(moved, shift)
        observed = (
            f"{value} moved most, by {moved:.3f}: the mean of its {now[value].rows:,} rows went from "
            f"{before[value].mean:.3f} to {now[value].mean:.3f}; {len(judged)} of {len(now)} groups judged"
        )
    return CheckResult(name=name, family="slices", verdict=verdict, observed=observed, expected=expected)


def _problem(groups: dict[str, SliceMean], where: str) -> str:
    unusable = sum(group.unusable for group in groups.values())
    if unusable:
        return f"{where}: {unusable:,} rows have no finite prediction"
    return "" if any(group.rows for group in groups.values()) else f"{where}: no rows were measured"


def _measure(batch: pa.RecordBatch, columns: Sequence[str], output: str) -> SliceMeans:
    prediction = pc.cast(batch.column(output), pa.float64())
    usable = pc.fill_null(pc.is_finite(prediction), False)
    table = pa.table({"usable": usable, "prediction": pc.if_else(usable, prediction, 0.0)})
    return SliceMeans(columns={column: _groups(table, batch.column(column)) for column in columns})


def _groups(table: pa.Table, column: pa.Array) -> dict[str, SliceMean]:
    grouped = table.append_column("value", pc.fill_null(pc.cast(column, pa.string()), NULL)).group_by("value")
    sums = grouped.aggregate([("usable", "sum"), ("usable", "count"), ("prediction", "sum")]).to_pylist()
    return {row["value"]: _mean(row["usable_sum"], row["prediction_sum"], row["usable_count"]) for row in sums}


def _mean(rows: int, total: float, all_rows: int) -> SliceMean:
    return SliceMean(rows=rows, total=total, unusable=all_rows - rows)


def _merged(a: dict[str, SliceMean], b: dict[str, SliceMean]) -> dict[str, SliceMean]:
    return {value: _sum(a.get(value, SliceMean()), b.get(value, SliceMean())) for value in {**a, **b}}


def _sum(a: SliceMean, b: SliceMean) -> SliceMean:
    return SliceMean(rows=a.rows + b.rows, total=a.total + b.total, unusable=a.unusable + b.unusable)
