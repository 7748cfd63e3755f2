"""Distances follow their definitions, and chance alone is called drift no more often than stated."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from validation.distances import (
    chance,
    chi_square_tail,
    holm,
    jensen_shannon,
    kolmogorov_smirnov,
    psi,
    total_variation,
)

PAIRS = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1).filter(
    lambda pairs: all(map(sum, zip(*pairs, strict=True)))
)
DISTANCES = [psi, jensen_shannon, kolmogorov_smirnov, total_variation, chance]


def test_psi_follows_the_definition() -> None:
    by_hand = 0.2 * math.log(3) + 0.1 * math.log(1.5) - 0.3 * math.log(4 / 7)

    assert psi(np.array([10.0, 20, 70]), np.array([30.0, 30, 40])) == pytest.approx(by_hand)


def test_an_empty_bin_counts_as_half_a_row() -> None:
    by_hand = (0.5 - 0.005) * math.log(0.5 / 0.005) + (0.5 - 1) * math.log(0.5)

    assert psi(np.array([0, 100]), np.array([50, 50])) == pytest.approx(by_hand)
    assert psi(np.array([0, 100]), np.array([0, 7])) == 0


def test_jensen_shannon_follows_the_definition() -> None:
    # Of (1, 0) and (1/2, 1/2): entropy of the middle (3/4, 1/4) less the mean of their entropies, 0 and 1 bit.
    middle = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))

    assert jensen_shannon(np.array([8, 0]), np.array([3, 3])) == pytest.approx(math.sqrt(middle - 0.5))


def test_kolmogorov_smirnov_sees_order_and_total_variation_does_not() -> None:
    expected, swapped = np.array([40, 0, 60, 0]), np.array([0, 40, 0, 60])

    assert kolmogorov_smirnov(expected, swapped) == pytest.approx(0.6)
    assert total_variation(expected, swapped) == 1


@given(PAIRS)
def test_distances_are_bounded_and_nothing_apart_from_itself(pairs: list[tuple[int, int]]) -> None:
    expected, actual = np.array(pairs).T

    assert psi(expected, actual) >= 0
    for distance in (jensen_shannon, kolmogorov_smirnov, total_variation, chance):
        assert 0 <= distance(expected, actual) <= 1
    for distance in (psi, jensen_shannon, kolmogorov_smirnov, total_variation):
        assert distance(expected, 3 * expected) == pytest.approx(0, abs=1e-7)
    assert chance(expected, expected) == 1


@given(PAIRS)
def test_all_but_psi_are_symmetric(pairs: list[tuple[int, int]]) -> None:
    expected, actual = np.array(pairs).T

    for distance in (jensen_shannon, kolmogorov_smirnov, total_variation, chance):
        assert distance(expected, actual) == pytest.approx(distance(actual, expected), rel=1e-6, abs=1e-12)
    assert kolmogorov_smirnov(expected, actual) <= total_variation(expected, actual) + 1e-12


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("expected", "actual"),
    [([1, 2], [1, 2, 3]), ([0, 0], [1, 1]), ([1, 1], [0, 0]), ([1, -1], [1, 1]), ([1, math.nan], [1, 1])],
)
def test_what_is_no_pair_of_histograms_is_refused(distance: object, expected: list[float], actual: list[float]) -> None:
    with pytest.raises(ValueError, match="histogram"):
        distance(np.array(expected), np.array(actual))  # type: ignore[operator]


@pytest.mark.parametrize("degrees", [1, 2, 3, 10, 73, 999])
@pytest.mark.parametrize("times", [0.0, 0.3, 1.0, 1.5, 4.0, 50.0])
def test_the_tail_of_chi_square_is_that_of_scipy(degrees: int, times: float) -> None:
    expected = stats.chi2.sf(times * degrees, degrees)

    assert chi_square_tail(times * degrees, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 3000), st.integers(1, 3000))
def test_the_chance_of_a_small_sample_is_never_below_the_exact_one(
    rows: int, hits: int, baseline_hits: int, baseline_rest: int
) -> None:
    # Below ten rows no chi-square test is possible: the exact one of each bin is all there is.
    table = [[min(hits, rows), rows - min(hits, rows)], [baseline_hits, baseline_rest]]

    assert chance(np.array(table[1]), np.array(table[0])) >= stats.fisher_exact(table).pvalue * (1 - 1e-9)


def test_holm_follows_the_definition_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_value_that_is_new_in_a_small_sample_is_beyond_chance() -> None:
    assert chance(np.array([160_000, 0]), np.array([52, 8])) < 1e-20
    assert chance(np.array([160_000, 0]), np.array([59, 1])) > 1e-4


def test_few_rows_prove_nothing() -> None:
    assert chance(np.array([100, 100]), np.array([0, 3])) > 0.2


@pytest.mark.parametrize("rows", [60, 500])
@pytest.mark.parametrize("baseline_rows", [60, 20_000])
@pytest.mark.parametrize("shape", ["even", "rare values"])
def test_samples_of_one_distribution_are_told_apart_at_most_at_the_rate(
    rows: int, baseline_rows: int, shape: str
) -> None:
    shares = np.full(10, 0.1) if shape == "even" else 1 / np.arange(1, 41)
    draw, alarms = np.random.default_rng(99), 0
    for _ in range(1000):
        pair = [draw.multinomial(n, shares / shares.sum()) for n in (baseline_rows, rows)]
        order = np.argsort(sum(pair), kind="stable")
        alarms += chance(*(side[order].astype(float) for side in pair)) <= 0.05

    # 999 of 1,000 series of 1,000 draws at a rate of 0.05 have at most 72.
    assert alarms <= 72
