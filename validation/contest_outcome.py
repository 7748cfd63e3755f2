"""A challenger and those who served, against what came of the entities that both scored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.bundle import Objective
from schemas.errors import InputError
from schemas.report import ContestOutcome, OutcomeGroup
from validation.grouping import GroupRows, largest_groups
from validation.intervals import mean_interval
from validation.parity import Floats, measure
from validation.sketch import Ints

MAX_SHOWN = 50
_SMALLEST = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What two models said of the same rows, and what came of them.

    Attributes:
        objective: `binary` (log loss) or `regression` (squared error).
        champion: What would serve without the challenger, shape (rows,); NaN where it did not score.
        challenger: The same of the challenger.
        label: NaN where it is not known yet.
    """

    objective: Objective
    champion: Floats
    challenger: Floats
    label: Floats

    def at(self, places: Ints) -> "Foreseen":
        """Of some of the rows."""
        return Foreseen(self.objective, self.champion[places], self.challenger[places], self.label[places])


def measure_outcome(
    name: str,
    foreseen: Foreseen,
    *,
    run_id: str,
    table: pa.Table,
    by: Sequence[tuple[str, ...]] = (),
    min_rows: int = 1,
    confidence: float = 0.95,
) -> ContestOutcome:
    """How well both models foresaw it, over the rows that have two finite predictions and a label.

    The difference is paired, a row against itself: what makes an entity hard to foresee weighs on both models alike,
    and leaves the interval.

    Args:
        name: Of the challenger.
        foreseen: The rows.
        run_id: Of the earlier run.
        table: The same rows, with the columns that are grouped by.
        by: What to group by: columns, or pairs of them (`Slices.groups`).
        min_rows: That have all three numbers; groups of fewer are not told of.
        confidence: Of each interval.

    Raises:
        InputError: a column, or a pair, has more than 1,000 groups.
    """
    usable = np.flatnonzero(
        np.isfinite(foreseen.champion) & np.isfinite(foreseen.challenger) & np.isfinite(foreseen.label)
    )
    known = foreseen.at(usable)
    return ContestOutcome(
        name=name,
        run_id=run_id,
        loss="log loss" if foreseen.objective == "binary" else "squared error",
        groups=tuple(_group(known, group, confidence) for group in _groups(table, usable, by, min_rows)),
        **_told(known, confidence),
    )


def _groups(table: pa.Table, usable: Ints, by: Sequence[tuple[str, ...]], min_rows: int) -> Iterable[GroupRows]:
    if not by:
        return ()
    columns = table.select(sorted({column for columns in by for column in columns}))
    return largest_groups(columns.take(pa.array(usable)), by, least=min_rows, most=MAX_SHOWN)


def _group(known: Foreseen, group: GroupRows, confidence: float) -> OutcomeGroup:
    told = _told(known.at(group.places), confidence)
    return OutcomeGroup(columns=group.columns, values=group.values, **told)


def _told(known: Foreseen, confidence: float) -> dict[str, Any]:
    rows, label = int(known.label.size), known.label
    losses = [_losses(known.objective, scores, label) for scores in (known.champion, known.challenger)]
    difference = losses[1] - losses[0]
    return {
        "rows": rows,
        "champion": _metrics(known.objective, label, known.champion),
        "challenger": _metrics(known.objective, label, known.challenger),
        "difference": mean_interval(float(difference.mean()), float(difference.var()), rows, confidence)
        if rows
        else None,
    }


def _losses(objective: Objective, scores: Floats, label: Floats) -> Floats:
    if objective != "binary":
        return np.square(scores - label)
    likely = np.clip(np.where(label == 1.0, scores, 1.0 - scores), _SMALLEST, 1.0)
    return np.asarray(-np.log(likely))


def _metrics(objective: Objective, label: Floats, scores: Floats) -> dict[str, float]:
    try:
        return measure(objective, label, scores) if label.size > 1 else {}
    except InputError:  # of one class alone no AUC exists
        return {}
