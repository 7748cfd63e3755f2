"""Model trust: a bundle must reproduce its holdout's predictions and the metrics that it promises."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from schemas.errors import InputError, Problem

Floats = NDArray[np.float64]

_METRIC_TOLERANCE = 1e-9


def max_difference(expected: Floats, actual: Floats, *, model: str) -> float:
    """The largest absolute difference, which must be 0.0: the same file and library give the same bits.

    Args:
        expected: Predictions stored in the bundle, shape (rows,).
        actual: Predictions made now, shape (rows,).
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
        row = int(np.nanargmax(np.where(np.isnan(difference), np.inf, difference)))
        raise InputError(
            Problem(
                "BUNDLE_PARITY",
                where,
                f"holdout row {row} is scored {actual[row]!r}",
                f"{expected[row]!r}, as when it was made",
            )
        )
    return float(difference.max())


def measure(objective: str, labels: Floats, scores: Floats) -> dict[str, float]:
    """Holdout metrics of a model.

    Args:
        objective: `binary` (labels 0 or 1, scores in [0, 1]) or `regression`.
        labels: Shape (rows,).
        scores: Shape (rows,).

    Returns:
        For binary: auc, log_loss (nats), base_rate, mean_score; for regression: r2, rmse, mae.

    Raises:
        InputError: a binary holdout has one class only, so that no AUC exists.
    """
    from sklearn import metrics  # a second of import time that the executors need not pay

    if objective == "regression":
        return {
            "r2": float(metrics.r2_score(labels, scores)),
            "rmse": float(metrics.root_mean_squared_error(labels, scores)),
            "mae": float(metrics.mean_absolute_error(labels, scores)),
        }
    if np.unique(labels).size != 2:  # two classes
        raise InputError(
            Problem("BUNDLE_HOLDOUT", "holdout labels", f"only {np.unique(labels).tolist()}", "both 0 and 1")
        )
    return {
        "auc": float(metrics.roc_auc_score(labels, scores)),
        "log_loss": float(metrics.log_loss(labels, scores)),
        "base_rate": float(labels.mean()),
        "mean_score": float(scores.mean()),
    }


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
