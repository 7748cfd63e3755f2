import datetime as dt
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.checks import Slices
from schemas.errors import InputError
from validation.grouping import measure_slices
from validation.sketch import sketch_of
from validation.slices import SliceProfile, merge

DECLARED = Slices(columns=["origin"], pairs=[["origin", "month"]], positive_at=0.5)


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def by_origin(*batches: pa.RecordBatch) -> SliceProfile:
    (found,) = measure_slices(batches, Slices(columns=["origin"], positive_at=0.5), output="score")
    return found


def test_groups_of_several_batches_and_pairs_add_up() -> None:
    batches = [
        batch(origin=["EWR", "JFK", None], month=[1, 1, 2], score=[0.1, 0.5, 0.3]),
        batch(origin=["LGA", "EWR", "EWR"], month=[2, 2, 1], score=[0.7, 0.5, 0.2]),
    ]

    origin, pair = measure_slices(batches, DECLARED, output="score")

    assert [(group.values, group.rows, group.positives) for group in origin.groups] == [
        (("(null)",), 1, 0),
        (("EWR",), 3, 1),
        (("JFK",), 1, 1),
        (("LGA",), 1, 1),
    ]
    assert (pair.columns, [(group.values, group.rows) for group in pair.groups]) == (
        ("origin", "month"),
        [(("(null)", "2"), 1), (("EWR", "1"), 2), (("EWR", "2"), 1), (("JFK", "1"), 1), (("LGA", "2"), 1)],
    )


def test_every_statistic_of_a_group_equals_numpy_s() -> None:
    generator = np.random.default_rng(1)
    places = np.array(["EWR", "JFK", "LGA"])[generator.integers(0, 3, 30_000)]
    scores = np.where(places == "LGA", generator.normal(1e5, 1, 30_000), generator.beta(2, 5, 30_000))
    parts = np.array_split(np.arange(30_000), 7)

    found = by_origin(*(batch(origin=places[part], score=scores[part]) for part in parts))

    assert [group.values for group in found.groups] == [("EWR",), ("JFK",), ("LGA",)]
    for group in found.groups:
        mine = scores[places == group.values[0]]
        assert (group.rows, group.positives) == (len(mine), int((mine >= 0.5).sum()))
        assert group.mean == pytest.approx(mine.mean(), rel=1e-9)
        assert group.variance == pytest.approx(mine.var(), rel=1e-9)
        assert group.sketch == sketch_of(mine)


def test_rows_without_a_finite_prediction_are_counted_apart() -> None:
    found = by_origin(batch(origin=["EWR"] * 4 + ["JFK"], score=[0.5, None, math.nan, math.inf, None]))

    ewr, jfk = found.groups
    assert (ewr.rows, ewr.unusable, ewr.mean, ewr.positives) == (1, 3, 0.5, 1)
    assert (jfk.rows, jfk.unusable, jfk.mean) == (0, 1, None)


def test_any_plain_column_can_be_grouped_by() -> None:
    columns = {
        "text": pa.array(["a", "a"]),
        "coded": pa.array(["a", None]).dictionary_encode(),
        "whole": pa.array([1, 2]),
        "double": pa.array([1.0, 0.5]),
        "flag": pa.array([True, False]),
        "day": pa.array([dt.date(2013, 7, 1)] * 2),
        "nothing": pa.nulls(2, pa.string()),
    }

    found = measure_slices([batch(score=[0.1, 0.2], **columns)], Slices(columns=list(columns)), output="score")

    assert {each.columns[0]: [group.values[0] for group in each.groups] for each in found} == {
        "text": ["a"],
        "coded": ["(null)", "a"],
        "whole": ["1", "2"],
        "double": ["0.5", "1"],
        "flag": ["false", "true"],
        "day": ["2013-07-01"],
        "nothing": ["(null)"],
    }


def test_a_value_that_only_a_dictionary_holds_makes_no_group() -> None:
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array(["EWR", "JFK"]))

    assert [group.values for group in by_origin(batch(origin=coded, score=[0.1, 0.2])).groups] == [("EWR",)]


def test_no_rows_make_group_bys_without_groups() -> None:
    assert measure_slices([], DECLARED, output="score") == (
        SliceProfile(columns=("origin",), groups=()),
        SliceProfile(columns=("origin", "month"), groups=()),
    )


def test_columns_that_name_no_groups_are_refused() -> None:
    many = batch(origin=[str(number) for number in range(1001)], score=np.zeros(1001))
    with pytest.raises(InputError, match=r"checks\.slices\.columns: origin: 1001 groups and more"):
        by_origin(many)

    pairs = batch(
        origin=[str(number % 40) for number in range(1600)],
        month=[str(number // 40) for number in range(1600)],
        score=np.zeros(1600),
    )
    with pytest.raises(InputError, match=r"checks\.slices\.pairs: origin, month: 1600 groups and more"):
        measure_slices([pairs], DECLARED, output="score")


def test_a_thousand_groups_in_every_order_are_kept_apart() -> None:
    numbers = np.random.default_rng(2).permutation(1000)
    batches = [batch(origin=part.astype(str), score=part.astype(float)) for part in np.array_split(numbers, 3)]

    assert {group.values[0]: group.mean for group in by_origin(*batches).groups} == {
        str(number): float(number) for number in range(1000)
    }


rows = st.lists(
    st.tuples(
        st.sampled_from([None, "a", "b", "c"]),
        st.sampled_from([1, 2]),
        st.none() | st.floats(-1e6, 1e6) | st.just(math.nan),
    ),
    max_size=40,
)


def table(content: list[tuple[str | None, int, float | None]]) -> pa.RecordBatch:
    return batch(
        origin=pa.array([place for place, _, _ in content], pa.string()),
        month=pa.array([month for _, month, _ in content], pa.int64()),
        score=pa.array([score for _, _, score in content], pa.float64(), from_pandas=False),
    )


@settings(deadline=None)
@given(rows, rows)
def test_merging_parts_equals_measuring_both(
    a: list[tuple[str | None, int, float | None]], b: list[tuple[str | None, int, float | None]]
) -> None:
    parts = [measure_slices([table(part)], DECLARED, output="score") for part in (a, b)]
    whole = measure_slices([table(a + b)], DECLARED, output="score")
    batched = measure_slices([table(a), table(b)], DECLARED, output="score")

    for merged in (tuple(merge(one, other) for one, other in zip(*parts, strict=True)), batched):
        for left, right in zip(merged, whole, strict=True):
            assert [group.values for group in left.groups] == [group.values for group in right.groups]
            for one, other in zip(left.groups, right.groups, strict=True):
                same = {"mean", "variance"}
                assert one.model_dump(exclude=same) == other.model_dump(exclude=same)
                assert one.mean == (None if other.mean is None else pytest.approx(other.mean, rel=1e-9, abs=1e-6))
                assert one.variance == (
                    None if other.variance is None else pytest.approx(other.variance, rel=1e-9, abs=1e-3)
                )


def test_it_survives_json() -> None:
    found = by_origin(batch(origin=["EWR", None], score=[0.1, None]))

    assert SliceProfile.model_validate_json(found.model_dump_json()) == found
