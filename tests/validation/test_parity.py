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


def test_classes_are_measured_by_their_probabilities_and_by_the_likeliest() -> None:
    predicted = np.array([[0.5, 0.25, 0.25, 0.0], [0.2, 0.2, 0.6, 2.0]])
    measured = measure("multiclass", np.array([0.0, 1.0]), predicted)
    assert measured == pytest.approx({"accuracy": 0.5, "multi_logloss": -(np.log(0.5) + np.log(0.2)) / 2})


def test_a_ranking_is_measured_within_its_groups_where_they_are_known() -> None:
    labels, scores = np.array([2.0, 0.0, 1.0, 0.0]), np.array([0.1, 0.2, 5.0, 4.0])
    assert measure("ranking", labels, scores) == pytest.approx({"spearman": -0.31622776601683794})
    assert measure("ranking", labels, scores, ["a", "a", "b", "b"])["ndcg"] == pytest.approx((1 / np.log2(3) + 1) / 2)


def test_of_several_outputs_the_one_that_differs_is_named() -> None:
    expected = np.array([[0.1, 0.2], [0.3, 0.4]])
    with pytest.raises(InputError, match=r"holdout row 1 is scored .*0\.5.*; expected .*0\.4"):
        max_difference(expected, np.array([[0.1, 0.2], [0.3, 0.5]]), model="m")
