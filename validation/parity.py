"""Model trust: a bundle must reproduce its holdout's predictions and the metrics that it promises."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import Objective
from schemas.errors import InputError, Problem

Floats = NDArray[np.float64]

_METRIC_TOLERANCE = 1e-9


def max_difference(expected: Floats, actual: Floats, *, model: str) -> float:
    """The largest absolute difference, which must be 0.0: the same file and library give the same bits.

    Args:
        expected: Predictions stored in the bundle, shape (rows,) or (rows, outputs).
        actual: Predictions made now, of the same shape.
        model: Named by the error.

    Raises:
        InputError: the shapes differ, there are no rows, or any prediction differs.
    """
    where = f"bundle {model}"
    if expected.size == 0 or expected.shape != actual.shape:
        raise InputError(
            Problem(
                "BUNDLE_HOLDOUT",
                where,
                f"{actual.shape} predictions for {expected.shape} holdout rows",
                "one a row, at least one",
            )
        )
    difference = np.abs(expected - actual)
    if not np.array_equal(expected, actual):
        at = np.unravel_index(np.argmax(np.where(np.isnan(difference), np.inf, difference)), difference.shape)
        row = int(at[0])
        raise InputError(
            Problem(
                "BUNDLE_PARITY",
                where,
                f"holdout row {row} is scored {actual[at]!r}",
                f"{expected[at]!r}, as when it was made",
            )
        )
    return float(difference.max())


def measure(
    objective: Objective, labels: Floats, scores: Floats, groups: Sequence[object] | None = None
) -> dict[str, float]:
    """Holdout metrics of a model.

    Args:
        objective: `binary` (labels 0 or 1, scores in [0, 1]), `regression`, `multiclass` (labels are places of
            classes, scores their probabilities and the likeliest place) or `ranking` (labels are relevances).
        labels: Shape (rows,).
        scores: Shape (rows,) or (rows, outputs).
        groups: Of a ranking: which rows are ranked against one another, shape (rows,); all, where it is not known.

    Returns:
        For binary: auc, log_loss (nats), base_rate, mean_score; for regression: r2, rmse, mae; for multiclass:
        accuracy, multi_logloss (nats); for ranking: spearman, and ndcg where groups are known.

    Raises:
        InputError: a binary holdout has one class only, so that no AUC exists.
    """
    scores = scores.reshape(len(labels), -1)
    if objective == "multiclass":
        return _of_classes(labels.astype(np.int64), scores[:, :-1], scores[:, -1])
    if objective == "ranking":
        return _of_ranks(labels, scores[:, 0], groups)
    from sklearn import metrics  # a second of import time that the executors need not pay

    score = scores[:, 0]
    if objective == "regression":
        return {
            "r2": float(metrics.r2_score(labels, score)),
            "rmse": float(metrics.root_mean_squared_error(labels, score)),
            "mae": float(metrics.mean_absolute_error(labels, score)),
        }
    if np.unique(labels).size != 2:  # two classes
        raise InputError(
            Problem("BUNDLE_HOLDOUT", "holdout labels", f"only {np.unique(labels).tolist()}", "both 0 and 1")
        )
    return {
        "auc": float(metrics.roc_auc_score(labels, score)),
        "log_loss": float(metrics.log_loss(labels, score)),
        "base_rate": float(labels.mean()),
        "mean_score": float(score.mean()),
    }


def _of_classes(labels: NDArray[np.int64], probabilities: Floats, likeliest: Floats) -> dict[str, float]:
    # Probabilities of one class against the others do not add up to one; those of ONNX do so in single precision.
    shares = probabilities / probabilities.sum(axis=1, keepdims=True)
    own = np.clip(shares[np.arange(len(labels)), labels], np.finfo(np.float64).eps, 1.0)
    return {"accuracy": float((likeliest == labels).mean()), "multi_logloss": float(-np.log(own).mean())}


def _of_ranks(labels: Floats, score: Floats, groups: Sequence[object] | None) -> dict[str, float]:
    from scipy.stats import rankdata

    ranks = [rankdata(each) - (len(each) + 1) / 2 for each in (labels, score)]
    spread = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    found = {"spearman": float((ranks[0] * ranks[1]).sum()) / spread if spread else 0.0}
    if groups is not None:
        _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        gains = [_ndcg(labels[codes == code], score[codes == code]) for code in range(int(codes.max()) + 1)]
        found["ndcg"] = float(np.mean(gains))
    return found


def _ndcg(labels: Floats, score: Floats) -> float:
    """Normalized discounted cumulative gain of one group, with gains of 2^relevance - 1; of equal ones, 1.

    Source:
        Burges et al., Learning to Rank using Gradient Descent, ICML 2005.

    >>> round(_ndcg(np.array([0.0, 1.0, 2.0]), np.array([0.1, 0.9, 0.5])), 4)
    0.7967
    """
    gains, discounts = 2.0**labels - 1, 1 / np.log2(np.arange(2, len(labels) + 2))
    best = float((np.sort(gains)[::-1] * discounts).sum())
    return float((gains[np.argsort(-score, kind="stable")] * discounts).sum()) / best if best else 1.0


def metric_problems(
    measured: Mapping[str, float], promised: Mapping[str, float], floors: Mapping[str, float], *, model: str
) -> list[Problem]:
    """Where what was measured is not what was promised, or is below a floor."""
    where = f"bundle {model}"
    problems = [
        Problem(
            "BUNDLE_METRIC",
            f"{where}: {name}",
            f"{measured.get(name)} on its holdout",
            f"{value}, as its manifest says",
        )
        for name, value in promised.items()
        if not np.isclose(measured.get(name, np.nan), value, rtol=0, atol=_METRIC_TOLERANCE)
    ]
    problems += [
        Problem("BUNDLE_METRIC", f"{where}: {name}", f"{measured.get(name, float('nan')):.4f}", f"at least {floor}")
        for name, floor in floors.items()
        if not measured.get(name, float("-inf")) >= floor
    ]
    return problems
