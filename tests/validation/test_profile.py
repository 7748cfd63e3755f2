import datetime as dt
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from validation.profile import CategoryProfile, NumericProfile, Profile, merge, profile_batches
from validation.sketch import bounds, quantile


def batch(**columns: object) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def numeric(profile: Profile, column: str) -> NumericProfile:
    found = profile.columns[column]
    assert isinstance(found, NumericProfile)
    return found


def category(profile: Profile, column: str) -> CategoryProfile:
    found = profile.columns[column]
    assert isinstance(found, CategoryProfile)
    return found


def test_values_equal_numpy() -> None:
    values = np.random.default_rng(3).normal(1e4, 3, 100_000)
    parts = [batch(x=part) for part in np.array_split(values, 13)]

    found = numeric(profile_batches(parts), "x")

    assert (found.count, found.nulls, found.nans, found.infinite) == (100_000, 0, 0, 0)
    assert (found.min, found.max) == (values.min(), values.max())
    assert found.mean == pytest.approx(values.mean(), rel=1e-9)
    assert found.variance == pytest.approx(values.var(), rel=1e-9)
    assert quantile(found.sketch, 0.5) == pytest.approx(np.median(values), rel=0.01)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).normal(0, 1, 50_000),
        np.random.default_rng(2).lognormal(3, 2, 50_000),
        np.random.default_rng(3).beta(2, 5, 50_000),
        np.random.default_rng(4).standard_cauchy(50_000),
        np.random.default_rng(5).integers(0, 24, 50_000).astype(float),
        np.random.default_rng(6).poisson(0.2, 50_000).astype(float),
        np.full(50_000, -7.25),
    ],
    ids=["normal", "lognormal", "beta", "cauchy", "hours", "mostly zero", "constant"],
)
def test_every_statistic_equals_numpy_s_within_its_stated_error(values: np.ndarray) -> None:
    found = numeric(profile_batches([batch(x=part) for part in np.array_split(values, 7)]), "x")

    assert (found.count, found.min, found.max) == (50_000, values.min(), values.max())
    assert found.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-12)
    assert found.variance == pytest.approx(values.var(), rel=1e-9, abs=1e-12)
    for q in (0.01, 0.25, 0.5, 0.75, 0.99):
        exact = np.sort(values)[int(q * 49_999)]
        assert quantile(found.sketch, q) == pytest.approx(exact, rel=0.0101)
    distinct = len(np.unique(values))
    assert found.distinct == (distinct if distinct < 512 else pytest.approx(distinct, rel=0.09))


def test_the_fullest_bins_and_values_are_told() -> None:
    hours = [7.0] * 5 + [8.0] * 3 + [0.0, -0.0]
    found = profile_batches([batch(hour=hours, day=["Mon", "Tue", "Tue", "Sun"] + ["Sat"] * 6)])

    top = numeric(found, "hour").top(2)
    assert [rows for _, rows in top] == [5, 3]
    assert [value for value, _ in top] == pytest.approx([7, 8], rel=0.01)
    assert numeric(found, "hour").distinct == 3
    assert category(found, "day").top(2) == [("Sat", 6), ("Tue", 2)]
    assert numeric(profile_batches([batch(x=[6.5, 6.5])]), "x").top(5) == [(6.5, 2)]
    assert numeric(profile_batches([batch(x=pa.nulls(2, pa.float64()))]), "x").top(5) == []


def test_a_histogram_loses_no_row() -> None:
    found = numeric(profile_batches([batch(x=np.linspace(-1, 1, 2001))]), "x")

    assert found.histogram([-math.inf, 0, math.inf]).sum() == 2001
    assert found.histogram([-1.1, 0.0, 1.1]) == pytest.approx([1001, 1000], abs=1)
    bottom, top = bounds(0.5)
    assert found.histogram([bottom, top]).tolist() == [sum(bottom < x <= top for x in np.linspace(-1, 1, 2001))]


def test_integers_past_2_to_the_53_are_rounded() -> None:
    found = numeric(profile_batches([batch(x=pa.array([2**53, 2**53 + 1, 2**53 + 2], pa.int64()))]), "x")

    assert (found.count, found.distinct, found.max) == (3, 2, 2.0**53 + 2)


def test_null_nan_and_infinity_are_counted_apart_and_spoil_nothing() -> None:
    found = numeric(profile_batches([batch(x=pa.array([1.0, None, math.nan, math.inf, -math.inf, 3.0]))]), "x")

    assert (found.count, found.nulls, found.nans, found.infinite) == (2, 1, 1, 2)
    assert (found.min, found.max, found.mean, found.variance) == (1, 3, 2, 1)


def test_every_plain_type_has_a_profile() -> None:
    columns = {
        "whole": pa.array([1, 2**62], pa.int64()),
        "small": pa.array([1.5, 2.5], pa.float32()),
        "flag": pa.array([True, False]),
        "day": pa.array([dt.date(2013, 7, 1)] * 2),
        "coded": pa.array(["a", "b"]).dictionary_encode(),
        "doubled": pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", "a"])),
        "nothing": pa.nulls(2, pa.float64()),
    }

    found = profile_batches([batch(**columns)])

    assert numeric(found, "whole").max == 2.0**62
    assert numeric(found, "small").mean == 2.0
    assert category(found, "flag").values == {"false": 1, "true": 1}
    assert category(found, "day").values == {"2013-07-01": 2}
    assert category(found, "coded").values == {"a": 1, "b": 1}
    assert category(found, "doubled").values == {"a": 2}
    nothing = numeric(found, "nothing")
    assert (nothing.count, nothing.nulls, nothing.mean) == (0, 2, None)


def test_entity_ids_stay_out() -> None:
    assert list(profile_batches([batch(entity_id=["UA:1"], score=[0.5])]).columns) == ["score"]


def test_more_than_a_thousand_values_are_drawn_fairly_and_counted_exactly() -> None:
    values = [f"N{number % 4000}" for number in range(10_000)]
    parts = [batch(plane=values[:500]), batch(plane=values[500:7000]), batch(plane=values[7000:])]

    found = category(profile_batches(parts), "plane")

    exact = Counter(values)
    assert len(found.values) == 1000
    assert found.values == {value: exact[value] for value in found.values}
    assert found.other == 10_000 - sum(found.values.values())
    assert found.distinct == pytest.approx(4000, rel=0.1)


@pytest.mark.filterwarnings("error")
def test_numbers_too_large_for_a_mean_leave_it_unknown() -> None:
    found = numeric(profile_batches([batch(x=[1.7e308, 1.7e308]), batch(x=[-1.7e308])]), "x")

    assert (found.count, found.max, found.mean, found.variance) == (3, 1.7e308, None, None)


def test_no_batches_make_an_empty_profile() -> None:
    assert profile_batches([]) == Profile(rows=0, columns={})


def test_parts_with_other_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="columns differ: x, y"):
        profile_batches([batch(x=[1.0]), batch(y=[1.0])])
    with pytest.raises(ValueError, match="x is numeric in one part and category in another"):
        profile_batches([batch(x=[1.0]), batch(x=["1"])])


def test_a_nested_column_is_refused() -> None:
    with pytest.raises(TypeError, match="column x is list"):
        profile_batches([batch(x=[[1.0]])])


def test_it_survives_json() -> None:
    profile = profile_batches([batch(x=[1.0, None], c=["a", None])])

    assert Profile.model_validate_json(profile.model_dump_json()) == profile


rows = st.lists(
    st.tuples(
        st.none() | st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf]),
        st.none() | st.sampled_from("abcdef"),
    ),
    max_size=40,
)


def table(content: list[tuple[float | None, str | None]]) -> pa.RecordBatch:
    return batch(
        x=pa.array([x for x, _ in content], pa.float64(), from_pandas=False),
        c=pa.array([c for _, c in content], pa.string()),
    )


@settings(deadline=None)
@given(rows, rows)
def test_merging_profiles_equals_profiling_both(
    a: list[tuple[float | None, str | None]], b: list[tuple[float | None, str | None]]
) -> None:
    merged, whole = merge(profile_batches([table(a)]), profile_batches([table(b)])), profile_batches([table(a + b)])

    assert merged.rows == whole.rows
    assert merged.columns["c"] == whole.columns["c"]
    left, right = numeric(merged, "x"), numeric(whole, "x")
    same = {"mean", "variance"}
    assert left.model_dump(exclude=same) == right.model_dump(exclude=same)
    assert left.mean == (right.mean if right.mean is None else pytest.approx(right.mean, rel=1e-9, abs=1e-9))
    scale = max(abs(right.min or 0), abs(right.max or 0), 1.0) ** 2
    assert left.variance == (
        right.variance if right.variance is None else pytest.approx(right.variance, rel=1e-9, abs=1e-9 * scale)
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=3000), st.integers(0, 3000))
def test_the_values_kept_do_not_depend_on_where_the_table_is_cut(values: list[int], cut: int) -> None:
    texts = [str(value) for value in values]
    parts = [batch(c=pa.array(part, pa.string())) for part in (texts[:cut], texts[cut:])]

    assert profile_batches(parts) == profile_batches([batch(c=pa.array(texts, pa.string()))])
