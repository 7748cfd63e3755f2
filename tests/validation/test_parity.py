"""A model is trusted for what it does now, never for what it said."""

import numpy as np
import pytest

from schemas.errors import InputError
from validation.parity import max_difference, measure, metric_problems

SCORES = np.array([0.1, 0.4, 0.8])
LABELS = np.array([0.0, 0.0, 1.0, 1.0])


def test_equal_predictions_do_not_differ() -> None:
    assert max_difference(SCORES, SCORES.copy(), model="m") == 0.0


@pytest.mark.parametrize("actual", [np.nextafter(0.8, 1), np.nan, np.inf])
def test_the_row_that_differs_is_named(actual: float) -> None:
    with pytest.raises(InputError, match=r"bundle m: holdout row 2 is scored .*; expected .*0\.8.* \[BUNDLE_PARITY\]"):
        max_difference(SCORES, np.array([0.1, 0.4, actual]), model="m")


def test_of_several_rows_the_worst_is_named() -> None:
    with pytest.raises(InputError, match="holdout row 1 "):
        max_difference(SCORES, np.array([0.11, 0.9, 0.81]), model="m")


@pytest.mark.parametrize(
    ("expected", "actual"), [(SCORES, SCORES[:2]), (SCORES[:0], SCORES[:0]), (SCORES, SCORES.reshape(3, 1))]
)
def test_a_holdout_needs_one_prediction_a_row(expected: np.ndarray, actual: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match="BUNDLE_HOLDOUT"):
        max_difference(expected, actual, model="m")


def test_a_binary_model_is_measured() -> None:
    measured = measure("binary", LABELS, np.array([0.1, 0.6, 0.5, 0.9]))
    assert measured == pytest.approx(
        {"auc": 0.75, "log_loss": 0.45499, "base_rate": 0.5, "mean_score": 0.525}, abs=1e-4
    )


def test_a_regression_is_measured() -> None:
    measured = measure("regression", np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    assert measured == pytest.approx({"r2": 0.5, "rmse": 3**-0.5, "mae": 1 / 3})


def test_one_class_has_no_auc() -> None:
    with pytest.raises(InputError, match=r"only \[1\.0\]; expected both 0 and 1"):
        measure("binary", np.ones(3), SCORES)


@pytest.mark.parametrize(
    ("measured", "promised", "floors", "named"),
    [
        ({"auc": 0.8}, {"auc": 0.8}, {"auc": 0.8}, []),
        ({"auc": 0.8}, {"auc": 0.8 + 1e-12}, {}, []),
        ({"auc": 0.8}, {"auc": 0.81}, {}, ["bundle m: auc"]),
        ({"auc": 0.8}, {"auc": 0.79}, {}, ["bundle m: auc"]),
        ({"auc": 0.8}, {}, {"auc": 0.81}, ["bundle m: auc"]),
        ({"auc": float("nan")}, {}, {"auc": 0.5}, ["bundle m: auc"]),
        ({}, {"auc": 0.8}, {"r2": 0.1}, ["bundle m: auc", "bundle m: r2"]),
    ],
)
def test_a_metric_is_as_promised_and_not_below_its_floor(
    measured: dict[str, float], promised: dict[str, float], floors: dict[str, float], named: list[str]
) -> None:
    problems = metric_problems(measured, promised, floors, model="m")
    assert [problem.where for problem in problems] == named
    assert {problem.code for problem in problems} <= {"BUNDLE_METRIC"}
