"""A challenger by what came: paired, over the rows that both scored and whose label is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.report import ContestOutcome
from validation.contest_outcome import measure_outcome
from validation.parity import Floats

NAN = float("nan")


def outcome(
    champion: list[float], challenger: list[float], label: list[float], objective: str = "binary"
) -> ContestOutcome:
    columns: list[Floats] = [np.array(each, dtype=np.float64) for each in (champion, challenger, label)]
    return measure_outcome(
        "new", run_id="r", objective=objective, champion=columns[0], challenger=columns[1], label=columns[2]
    )


def test_only_rows_with_two_predictions_and_a_label_count() -> None:
    found = outcome([0.5, 0.5, NAN, 0.5], [0.9, NAN, 0.9, 0.2], [1.0, 1.0, 1.0, 0.0])

    assert found.rows == 2
    assert found.champion["auc"] == 0.5
    assert found.challenger["auc"] == 1.0
    assert found.difference is not None
    assert found.difference.value == pytest.approx((-np.log(0.9) - np.log(0.8)) / 2 + np.log(0.5))


def test_a_regression_is_measured_by_its_squared_error() -> None:
    found = outcome([1.0, 2.0, 3.0], [1.0, 2.0, 5.0], [1.0, 2.0, 4.0], "regression")

    assert (found.loss, found.difference and found.difference.value) == ("squared error", 0.0)
    assert found.champion["rmse"] == found.challenger["rmse"] == pytest.approx(np.sqrt(1 / 3))


def test_where_one_class_alone_came_there_is_a_loss_and_no_auc() -> None:
    found = outcome([0.1, 0.2], [0.2, 0.2], [0.0, 0.0])

    assert (found.champion, found.challenger) == ({}, {})
    assert found.difference is not None
    assert found.difference.value > 0


def test_nothing_is_told_where_no_label_is_known() -> None:
    found = outcome([0.1], [0.2], [NAN])

    assert (found.rows, found.difference, found.champion) == (0, None, {})


def test_a_certain_prediction_that_was_wrong_is_a_large_loss_and_a_number() -> None:
    found = outcome([0.5, 0.5], [0.0, 1.0], [1.0, 0.0])

    assert found.difference is not None
    assert 30 < found.difference.value < 40


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.0, 1.0, NAN])), max_size=40))
def test_swapping_the_models_turns_the_difference_round(rows: list[tuple[float, float, float]]) -> None:
    a, b, label = ([row[at] for row in rows] for at in range(3))

    one, other = outcome(a, b, label), outcome(b, a, label)

    assert (one.rows, one.champion, one.challenger) == (other.rows, other.challenger, other.champion)
    if one.difference and other.difference:
        assert one.difference.value == -other.difference.value
        assert one.difference.low == -other.difference.high
