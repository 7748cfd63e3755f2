"""A challenger and those who served, against what came of the entities that both scored."""

import numpy as np

from schemas.bundle import Objective
from schemas.errors import InputError
from schemas.report import ContestOutcome
from validation.intervals import mean_interval
from validation.parity import Floats, measure

_SMALLEST = float(np.finfo(np.float64).eps)


def measure_outcome(
    name: str,
    *,
    run_id: str,
    objective: Objective,
    champion: Floats,
    challenger: Floats,
    label: Floats,
    confidence: float = 0.95,
) -> ContestOutcome:
    """How well both models foresaw it, over the rows that have two finite predictions and a label.

    The difference is paired, a row against itself: what makes an entity hard to foresee weighs on both models alike,
    and leaves the interval.

    Args:
        name: Of the challenger.
        run_id: Of the earlier run.
        objective: `binary` (log loss) or `regression` (squared error).
        champion: What would serve without the challenger, shape (rows,); NaN where it did not score.
        challenger: The same of the challenger.
        label: NaN where it is not known yet.
        confidence: Of the interval.
    """
    usable = np.isfinite(champion) & np.isfinite(challenger) & np.isfinite(label)
    champion, challenger, label = champion[usable], challenger[usable], label[usable]
    losses = [_losses(objective, scores, label) for scores in (champion, challenger)]
    difference = losses[1] - losses[0]
    rows = int(label.size)
    return ContestOutcome(
        name=name,
        run_id=run_id,
        rows=rows,
        loss="log loss" if objective == "binary" else "squared error",
        champion=_metrics(objective, label, champion),
        challenger=_metrics(objective, label, challenger),
        difference=mean_interval(float(difference.mean()), float(difference.var()), rows, confidence) if rows else None,
    )


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
