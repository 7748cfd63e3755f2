"""What changed between two releases, entity by entity, and whether that is more than was declared."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.checks import Churn
from schemas.diff import Diff, Mover
from schemas.report import CheckResult, Verdict
from schemas.run import ENTITY_ID, WITHHELD
from validation.gate import not_evaluated
from validation.pairing import Pair, pairs
from validation.ranking import ranked
from validation.rundata import MODEL, ROUTE, STATUS, Codes, RunFiles
from validation.shifts import Shifts

Floats = npt.NDArray[np.float64]


def diff_runs(
    before: RunFiles,
    after: RunFiles,
    *,
    outputs: Sequence[str],
    tolerance: float = 0.0,
    top: int = 0,
    groups: Sequence[tuple[str, ...]] = (),
    correlate: bool = True,
) -> Diff:
    """Every difference of two runs, exact, whatever the order and the number of their files.

    In memory are two million rows of each run at most, and about 64 bytes for each entity that both have.

    Args:
        before: The run that is compared with.
        after: The run that is compared.
        outputs: Columns that both predict; what moved is said of the first.
        tolerance: By how much an output may move and still be unchanged.
        top: How many of the largest movers are named.
        groups: Columns of the features files to group by, each alone or with others.
        correlate: Whether to compute the rank correlation; without it a comparison takes two thirds of the time.

    Raises:
        InputError: a file is missing or damaged, or has an entity twice.
    """
    columns = list(dict.fromkeys(column for group in groups for column in group))
    codes = {**{name: Codes(most=None) for name in ROUTE}, **{column: Codes() for column in columns}}
    tally = _Tally(outputs, tolerance, top, codes[STATUS])
    grouped = [Shifts(group, codes, outputs[0]) for group in groups]
    for pair in pairs(before, after, outputs=outputs, codes=codes, slices=columns):
        tally.add(pair)
        for each in grouped:
            each.add(pair)
    return tally.diff(grouped, correlate=correlate)


def check_churn(diff: Diff | None, declared: Churn, *, first_release: bool) -> list[CheckResult]:
    """One result for each declared limit.

    Args:
        diff: From the live release to the run; None where they were not compared.
        declared: The limits.
        first_release: Whether there is no live release.
    """
    limits = {"added": declared.max_added, "removed": declared.max_removed, "changed": declared.max_changed}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if not given:
        observed = "no limit is declared"
        return [CheckResult(name="churn", family="churn", verdict=Verdict.PASS, observed=observed, expected="any")]
    return [_check_share(name, limit, diff, declared, first_release) for name, limit in given.items()]


def _check_share(name: str, limit: float, diff: Diff | None, declared: Churn, first_release: bool) -> CheckResult:
    title = f"entities {name}"
    expected = f"at most {limit:.2%} of those before"
    if name == "changed" and declared.tolerance:
        expected += f", by more than {declared.tolerance:g}"
    if first_release:
        observed = "first release: nothing to compare with"
        return CheckResult(name=title, family="churn", verdict=Verdict.PASS, observed=observed, expected=expected)
    problem = _incomparable(diff, declared)
    if diff is None or problem:
        return not_evaluated(title, "churn", observed=problem, expected=expected)
    count = {"added": diff.added, "removed": diff.removed, "changed": diff.changed}[name]
    share = count / diff.before
    verdict = Verdict.PASS if share <= limit else Verdict.FAIL
    observed = f"{count:,} of {diff.before:,} ({share:.2%})"
    return CheckResult(name=title, family="churn", verdict=verdict, observed=observed, expected=expected)


def _incomparable(diff: Diff | None, declared: Churn) -> str:
    if diff is None:
        return "the live release was not compared with"
    if diff.before == 0 or diff.after == 0:
        return f"no rows in {'the live release' if diff.before == 0 else 'this run'}"
    if diff.tolerance != declared.tolerance:
        return f"compared with a tolerance of {diff.tolerance:g}"
    return f"{diff.not_finite:,} rows have no finite {diff.output}" if diff.not_finite else ""


class _Tally:
    """The counts over all parts, and what must be kept of each for the ranks at the end."""

    def __init__(self, outputs: Sequence[str], tolerance: float, top: int, statuses: Codes) -> None:
        self._statuses = statuses
        self._outputs, self._tolerance, self._top = outputs, tolerance, top
        self._before = self._after = self._added = self._removed = self._not_finite = 0
        self._changed = dict.fromkeys(outputs, 0)
        self._routes = dict.fromkeys(ROUTE, 0)
        self._scores: list[tuple[Floats, Floats]] = []
        self._movers: list[pa.Table] = []

    def add(self, pair: Pair) -> None:
        self._before += pair.before.num_rows
        self._after += pair.after.num_rows
        self._added += pair.added.size
        self._removed += pair.removed.size
        for name in self._outputs:
            old, new = _kept(pair, name)
            self._changed[name] += int(_moved(old, new, self._tolerance).sum())
        for name in ROUTE:
            old, new = _kept(pair, name)
            self._routes[name] += int((old != new).sum())
        sides = [side.column(self._outputs[0]).to_numpy() for side in (pair.before, pair.after)]
        self._not_finite += self._without_number(pair.before, sides[0]) + self._without_number(pair.after, sides[1])
        old, new = sides[0][pair.kept_before], sides[1][pair.kept_after]
        finite = np.isfinite(old) & np.isfinite(new)
        self._scores.append((old[finite], new[finite]))
        if self._top:
            ids = pair.before.column(ENTITY_ID).take(pa.array(pair.kept_before[finite]))
            self._movers.append(_largest(ids, old[finite], new[finite], self._top))

    def _without_number(self, rows: pa.Table, scores: Floats) -> int:
        # A row that is withheld has none on purpose.
        withheld = np.array([value == WITHHELD for value in self._statuses.values], np.bool_)
        return int((~np.isfinite(scores) & ~withheld[rows.column(STATUS).to_numpy()]).sum())

    def diff(self, groups: Iterable[Shifts], *, correlate: bool) -> Diff:
        kept = self._before - self._removed
        changed = self._changed[self._outputs[0]]
        empty = np.empty(0)
        old = np.concatenate([empty, *(pair[0] for pair in self._scores)])
        new = np.concatenate([empty, *(pair[1] for pair in self._scores)])
        self._scores = []
        shifts = {" and ".join(group.columns): group.found() for group in groups}
        return Diff(
            output=self._outputs[0],
            tolerance=self._tolerance,
            before=self._before,
            after=self._after,
            added=self._added,
            removed=self._removed,
            kept=kept,
            unchanged=kept - changed,
            changed=changed,
            changed_outputs=self._changed,
            model_changes=self._routes[MODEL],
            status_changes=self._routes[STATUS],
            not_finite=self._not_finite,
            churn=(self._added + self._removed + changed) / self._before if self._before else None,
            movers=self._named(),
            slices=tuple(shift for found in shifts.values() if not isinstance(found, str) for shift in found),
            unsliced={name: found for name, found in shifts.items() if isinstance(found, str)},
            **ranked(old, new, correlate=correlate),
        )

    def _named(self) -> tuple[Mover, ...]:
        if not self._movers:
            return ()
        rows = _first(pa.concat_tables(self._movers), self._top).drop_columns(["move"])
        return tuple(Mover.model_validate(row) for row in rows.to_pylist())


def _kept(pair: Pair, name: str) -> tuple[Any, Any]:
    """The values of the kept entities before and after."""
    before, after = pair.before.column(name).to_numpy(), pair.after.column(name).to_numpy()
    return before[pair.kept_before], after[pair.kept_after]


def _moved(old: Floats, new: Floats, tolerance: float) -> npt.NDArray[np.bool_]:
    """Where a value moved by more than `tolerance`; NaN stands for what is missing, and is equal to itself."""
    with np.errstate(invalid="ignore"):
        same = (old == new) | (np.abs(new - old) <= tolerance) | (np.isnan(old) & np.isnan(new))
    return np.asarray(~same)


def _largest(ids: pa.ChunkedArray, old: Floats, new: Floats, top: int) -> pa.Table:
    move = np.abs(new - old)
    # What is smaller than the last of the largest cannot be among them; ties stay in, for their ids decide.
    least = np.partition(move, -top)[-top] if move.size > top else 0.0
    chosen = np.flatnonzero((move >= least) & (move > 0))
    columns = {"before": old[chosen], "after": new[chosen], "move": move[chosen]}
    table = pa.table({ENTITY_ID: ids.take(pa.array(chosen)), **columns})
    return _first(table, top)


def _first(movers: pa.Table, top: int) -> pa.Table:
    order = pc.sort_indices(movers, sort_keys=[("move", "descending"), (ENTITY_ID, "ascending")])
    return movers.take(order[:top])
