"""A challenger by what came: paired, over the rows that both scored and whose label is known."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.bundle import Objective
from schemas.report import ContestOutcome
from validation.contest_outcome import Foreseen, measure_outcome
from validation.parity import Floats

NAN = float("nan")


def outcome(
    champion: list[float],
    challenger: list[float],
    label: list[float],
    objective: Objective = "binary",
    min_rows: int = 1,
    **columns: list[str | None],
) -> ContestOutcome:
    numbers: list[Floats] = [np.array(each, dtype=np.float64) for each in (champion, challenger, label)]
    by = [(name,) for name in columns] + ([tuple(columns)] if len(columns) > 1 else [])
    table = pa.table({"label": numbers[2], **columns})
    return measure_outcome("new", Foreseen(objective, *numbers), run_id="r", table=table, by=by, min_rows=min_rows)


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


def test_each_group_is_told_by_its_own_labelled_rows() -> None:
    found = outcome(
        [0.1, 0.9, 0.5, 0.5, 0.5, 0.5], [0.9, 0.1, 0.2, 0.8, NAN, 0.5], [0.0, 1.0, 0.0, 1.0, 1.0, NAN],
        min_rows=2,
        origin=["EWR", "EWR", "JFK", "JFK", "JFK", None], haul=["long", "long", "long", "short", "long", None],
    )  # fmt: skip

    told = {(group.columns, group.values): group for group in found.groups}
    assert [(key, group.rows) for key, group in told.items()] == [
        ((("origin",), ("EWR",)), 2),
        ((("origin",), ("JFK",)), 2),
        ((("haul",), ("long",)), 3),
        ((("origin", "haul"), ("EWR", "long")), 2),
    ]
    newark, kennedy = told[("origin",), ("EWR",)], told[("origin",), ("JFK",)]
    assert (newark.champion["auc"], newark.challenger["auc"]) == (1.0, 0.0)
    assert (kennedy.champion["auc"], kennedy.challenger["auc"]) == (0.5, 1.0)
    assert newark.difference.value == pytest.approx(np.log(0.9) - np.log(0.1))
    assert kennedy.difference.value == pytest.approx(np.log(0.5) - np.log(0.8))


class Watched:
    """A table of which is seen what was taken."""

    def __init__(self, table: pa.Table, taken: list[list[str]]) -> None:
        self._table, self._taken = table, taken

    def select(self, columns: list[str]) -> "Watched":
        return Watched(self._table.select(columns), self._taken)

    def take(self, places: pa.Array) -> pa.Table:
        self._taken.append(self._table.column_names)
        return self._table.take(places)


@pytest.mark.parametrize(
    ("by", "taken"), [([], []), ([("haul",)], [["haul"]]), ([("haul", "origin"), ("haul",)], [["haul", "origin"]])]
)
def test_only_columns_that_are_grouped_by_are_copied(by: list[tuple[str, ...]], taken: list[list[str]]) -> None:
    table = pa.table({"label": [1.0, NAN], "origin": ["EWR", "JFK"], "wide": ["x" * 999] * 2, "haul": ["long", None]})
    foreseen = Foreseen("regression", np.ones(2), np.ones(2), np.array([1.0, NAN]))
    seen: list[list[str]] = []

    found = measure_outcome("new", foreseen, run_id="r", table=Watched(table, seen), by=by)

    assert seen == taken
    assert [group.columns for group in found.groups] == by


def test_a_group_where_one_class_alone_came_has_a_difference_and_no_metric() -> None:
    found = outcome([0.1, 0.2, 0.5], [0.2, 0.3, 0.5], [0.0, 0.0, 1.0], min_rows=2, origin=["EWR", "EWR", "JFK"])

    (group,) = found.groups
    assert (group.values, group.champion, group.challenger) == (("EWR",), {}, {})
    assert group.difference.value > 0


def test_of_many_groups_the_largest_fifty_are_told() -> None:
    names = [f"g{number:02}" for number in range(60) for _ in range(1 + (number == 59))]

    found = outcome([1.0] * 61, [1.0] * 61, [1.0] * 61, "regression", name=names)

    assert [group.values[0] for group in found.groups] == ["g59", *(f"g{number:02}" for number in range(49))]


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.0, 1.0]), st.sampled_from("abc")), min_size=1
    )
)
def test_groups_add_up_to_all_rows(rows: list[tuple[float, float, float, str]]) -> None:
    a, b, label = ([float(row[at]) for row in rows] for at in range(3))

    found = outcome(a, b, label, name=[row[3] for row in rows])

    assert sum(group.rows for group in found.groups) == found.rows == len(rows)
    assert found.difference is not None
    whole = sum(group.difference.value * group.rows for group in found.groups) / found.rows
    assert whole == pytest.approx(found.difference.value)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.0, 1.0, NAN])), max_size=40))
def test_swapping_the_models_turns_the_difference_round(rows: list[tuple[float, float, float]]) -> None:
    a, b, label = ([row[at] for row in rows] for at in range(3))

    one, other = outcome(a, b, label), outcome(b, a, label)

    assert (one.rows, one.champion, one.challenger) == (other.rows, other.challenger, other.champion)
    if one.difference and other.difference:
        assert one.difference.value == -other.difference.value
        assert one.difference.low == -other.difference.high
