import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.hashing import hash_number
from validation.distinct import estimate, lowest_hashes, merge

finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(finite, max_size=50))
def test_hashes_are_those_that_an_erasure_looks_for(values: list[float]) -> None:
    assert lowest_hashes(np.array(values, np.float64)) == tuple(sorted({hash_number(value) for value in values}))


@settings(deadline=None)
@given(st.lists(finite | st.sampled_from([0.0, -0.0, 1.0]), max_size=500))
def test_few_numbers_are_counted_exactly(values: list[float]) -> None:
    assert estimate(lowest_hashes(np.array(values, np.float64))) == len(set(values))


@pytest.mark.parametrize("distinct", [511, 512, 3_000, 100_000, 1_000_000])
@pytest.mark.parametrize("seed", range(4))
def test_the_estimate_is_within_its_stated_error(distinct: int, seed: int) -> None:
    values = np.random.default_rng(seed).random(distinct)

    # Four standard errors: what is stated for 19 in 20 is twice.
    assert estimate(lowest_hashes(values)) == pytest.approx(distinct, rel=4 / 511**0.5)


def test_the_standard_error_is_that_of_the_theory() -> None:
    errors = [estimate(lowest_hashes(np.random.default_rng(seed).random(20_000))) / 20_000 - 1 for seed in range(100)]

    assert np.std(errors) == pytest.approx(0.044, abs=0.01)
    assert np.mean(errors) == pytest.approx(0, abs=0.015)


def test_whole_numbers_in_a_row_are_hashed_as_well_as_random_ones() -> None:
    assert estimate(lowest_hashes(np.arange(200_000.0))) == pytest.approx(200_000, rel=0.09)


@settings(deadline=None)
@given(st.integers(0, 30_000), st.integers(0, 30_000), st.integers(1, 10_000), st.integers(0, 9))
def test_merging_equals_counting_both(a: int, b: int, numbers: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = (generator.integers(0, numbers, count).astype(float) for count in (a, b))

    assert merge(lowest_hashes(one), lowest_hashes(other)) == lowest_hashes(np.concatenate([one, other]))


def test_a_column_that_begins_with_one_value_is_counted_whole() -> None:
    values = np.concatenate([np.zeros(10_000), np.arange(1.0, 300.0)])

    assert estimate(lowest_hashes(values)) == 300
