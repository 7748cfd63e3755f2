import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from validation.sketch import (
    Sketch,
    bins_of,
    bounds,
    count_at_most,
    count_bins,
    counts_between,
    fullest,
    merge,
    quantile,
    sketch_of,
)

numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=60).map(np.array)


def exact_rank(values: np.ndarray, q: float) -> float:
    return float(np.sort(values)[math.floor(q * (len(values) - 1))])


@settings(deadline=None)
@given(numbers.filter(len), st.floats(0, 1))
def test_every_quantile_is_within_one_percent(values: np.ndarray, q: float) -> None:
    exact = exact_rank(values, q)

    assert quantile(sketch_of(values), q) == pytest.approx(exact, rel=0.01 + 1e-9, abs=2.3e-308)


@pytest.mark.parametrize("q", [0, 0.01, 0.1, 0.5, 0.9, 0.999, 1])
def test_the_accuracy_holds_on_a_million_scores(q: float) -> None:
    values = np.random.default_rng(7).beta(2, 5, 1_000_000)

    assert quantile(sketch_of(values), q) == pytest.approx(exact_rank(values, q), rel=0.01)


@settings(deadline=None)
@given(numbers)
def test_a_bin_is_the_ceiling_of_the_logarithm_to_the_base_gamma(values: np.ndarray) -> None:
    tiny, log_gamma = float(np.finfo(np.float64).tiny), math.log(1.01 / 0.99)
    shift = 1 - math.ceil(math.log(tiny) / log_gamma)
    expected = [
        0 if abs(x) < tiny else int(np.sign(x) * (np.ceil(np.log(np.abs(x)) / log_gamma) + shift)) for x in values
    ]

    assert bins_of(values.astype(float)).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50) | st.integers(-142_000, 142_000), max_size=60))
def test_bins_are_counted_alike_whether_they_are_close_or_far_apart(bins: list[int]) -> None:
    found, counts = count_bins(np.array(bins, np.int64))

    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == Counter(bins)
    assert found.tolist() == sorted(set(bins))


def test_the_fullest_bins_come_first() -> None:
    sketch = sketch_of(np.array([5.0, 5.0, 5.0, 0.0, 0.0, -1.0]))

    assert [(round(value, 1), count) for value, count in fullest(sketch, 2)] == [(5.0, 3), (0.0, 2)]
    assert len(fullest(sketch, 10)) == 3


@settings(deadline=None)
@given(numbers, numbers)
def test_merging_equals_sketching_both(a: np.ndarray, b: np.ndarray) -> None:
    whole = sketch_of(np.concatenate([a, b]).astype(float))

    assert merge(sketch_of(a.astype(float)), sketch_of(b.astype(float))) == whole


@settings(deadline=None)
@given(numbers, st.floats(-1e300, 1e300))
def test_counts_are_exact_on_the_bounds_of_a_bin(values: np.ndarray, value: float) -> None:
    values = values.astype(float)
    bottom, top = bounds(value)
    below, until = count_at_most(sketch_of(values), np.array([bottom, top]))

    same_bin = sum(1 for each in values if bounds(float(each)) == (bottom, top))
    assert until - below == same_bin


def test_counts_between_spread_a_bin_evenly_and_lose_nothing() -> None:
    sketch = sketch_of(np.linspace(0.001, 1, 1000))

    counts = counts_between(sketch, np.linspace(0, 1, 11))

    assert counts.sum() == pytest.approx(1000, abs=20)
    assert counts == pytest.approx([100] * 10, abs=12)
    assert counts_between(sketch, np.array([-np.inf, 0.5, np.inf])).sum() == 1000


def test_zero_and_both_signs_keep_their_order() -> None:
    sketch = sketch_of(np.array([-2.0, -1e-9, 0.0, 1e-9, 3.0]))

    assert [round(quantile(sketch, q), 1) for q in (0, 0.25, 0.5, 0.75, 1)] == [-2.0, -0.0, 0.0, 0.0, 3.0]
    assert count_at_most(sketch, np.array([-3, -1, 0, 1, 4])).tolist() == [0, 1, 3, 4, 5]


def test_it_survives_json() -> None:
    sketch = sketch_of(np.array([0.1, 0.1, -5, 0]))

    assert Sketch.model_validate_json(sketch.model_dump_json()) == sketch


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        sketch_of(np.array([0.5, value]))


def test_an_empty_sketch_has_counts_but_no_quantile() -> None:
    empty = sketch_of(np.array([]))

    assert count_at_most(empty, np.array([0.0, 1.0])).tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"no quantile 0\.5 of 0 numbers"):
        quantile(empty, 0.5)


@pytest.mark.parametrize(
    "wrong",
    [{"accuracy": 0.02}, {"bins": [2, 1], "counts": [1, 1]}, {"bins": [1], "counts": []}, {"bins": [1], "counts": [0]}],
)
def test_a_sketch_that_cannot_be_is_not_read(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Sketch.model_validate(wrong)
