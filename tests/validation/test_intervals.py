import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from scipy.stats.contingency import relative_risk

from validation.intervals import exact_share_interval, mean_interval, ratio_interval, share_interval


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("positives", "rows"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 17), (4_000, 10_000)])
def test_a_share_has_wilson_s_interval(positives: int, rows: int, confidence: float) -> None:
    expected = binomtest(positives, rows).proportion_ci(confidence, method="wilson")

    found = share_interval(positives, rows, confidence)

    assert (found.value, found.low, found.high) == pytest.approx((positives / rows, *expected), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("counts", [(30, 100, 50, 100), (1, 9, 900, 1000), (100, 100, 50, 50)])
def test_a_ratio_has_the_interval_of_katz(counts: tuple[int, int, int, int]) -> None:
    expected = relative_risk(*counts).confidence_interval(0.95)

    found = ratio_interval(*counts, 0.95)

    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_a_group_without_positives_has_a_ratio_of_nothing_and_an_upper_end() -> None:
    few, many = ratio_interval(0, 5, 50, 100, 0.95), ratio_interval(0, 5_000, 50, 100, 0.95)

    assert (few.value, few.low) == (0, 0)
    assert few.high > 0.8 > 0.1 > many.high


def test_a_mean_has_a_normal_interval() -> None:
    reach = norm.ppf(0.975) * 2.0 / 9.0  # a standard deviation of 2 among 82 rows

    found = mean_interval(10.0, 4.0, 82, 0.95)

    assert (found.low, found.high) == pytest.approx((10 - reach, 10 + reach))
    assert mean_interval(10.0, 0.0, 1, 0.95).high == 10.0


@given(st.integers(1, 400), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_an_exact_interval_is_that_of_scipy(rows: int, data: st.DataObject, confidence: float) -> None:
    positives = data.draw(st.integers(0, rows))
    expected = binomtest(positives, rows).proportion_ci(confidence, method="exact")

    found = exact_share_interval(positives, rows, confidence)

    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_of_no_rows_any_share_is_possible() -> None:
    found = exact_share_interval(0, 0, 0.95)

    assert (found.low, found.high) == (0, 1)
