import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.checks import Levels
from schemas.report import CheckResult, Verdict
from validation.drift import check_drift, psi, score_drift
from validation.profile import NumericProfile, Profile, profile_batches

LEVELS = Levels(warn=0.1, fail=0.25)


def scores(values: object) -> Profile:
    return profile_batches([pa.RecordBatch.from_pydict({"score": pa.array(values, pa.float64(), from_pandas=False)})])


def score(values: object) -> NumericProfile:
    column = scores(values).columns["score"]
    assert isinstance(column, NumericProfile)
    return column


def drift_of(current: object, live: object) -> CheckResult:
    (result,) = check_drift(scores(current), scores(live), outputs=["score"], levels=LEVELS)
    return result


def test_psi_follows_the_definition() -> None:
    expected, actual = np.array([10.0, 20, 70]), np.array([30.0, 30, 40])

    by_hand = 0.2 * math.log(3) + 0.1 * math.log(1.5) - 0.3 * math.log(4 / 7)

    assert psi(expected, actual) == pytest.approx(by_hand)


def test_an_empty_bin_counts_as_half_a_row() -> None:
    by_hand = (0.5 - 0.005) * math.log(0.5 / 0.005) + (0.5 - 1) * math.log(0.5)

    assert psi(np.array([0, 100]), np.array([50, 50])) == pytest.approx(by_hand)
    assert psi(np.array([0, 100]), np.array([0, 7])) == 0


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1).filter(
        lambda x: all(map(sum, zip(*x, strict=True)))
    )
)
def test_psi_is_never_negative(pairs: list[tuple[int, int]]) -> None:
    expected, actual = np.array(pairs).T

    assert psi(expected, actual) >= 0
    assert psi(expected, expected) == 0


@pytest.mark.parametrize(
    ("expected", "actual"),
    [([1, 2], [1, 2, 3]), ([0, 0], [1, 1]), ([1, 1], [0, 0]), ([1, -1], [1, 1]), ([1, math.nan], [1, 1])],
)
def test_psi_refuses_what_is_no_pair_of_histograms(expected: list[float], actual: list[float]) -> None:
    with pytest.raises(ValueError, match="histogram"):
        psi(np.array(expected), np.array(actual))


def test_two_halves_of_one_day_do_not_drift() -> None:
    draws = np.random.default_rng(1)
    day = draws.beta(2, 6, 6000)

    for _ in range(20):
        half = draws.permutation(day)
        assert score_drift(score(half[:3000]), score(half[3000:])) < 0.02


def test_the_sketches_find_what_exact_deciles_find() -> None:
    draws = np.random.default_rng(2)
    live, now = draws.beta(2, 6, 50_000), draws.beta(2.6, 6, 50_000)
    edges = np.quantile(live, np.linspace(0, 1, 11))
    exact = psi(np.histogram(live, edges)[0], np.histogram(np.clip(now, edges[0], edges[-1]), edges)[0])

    assert score_drift(score(now), score(live)) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("now", [[0.2] * 1000, [0.4] * 1000, [-0.3] * 1000, [0.0] * 1000])
def test_a_constant_that_moved_has_drifted_either_way(now: list[float]) -> None:
    assert drift_of(now, [0.3] * 1000).verdict is Verdict.FAIL
    assert drift_of([0.3] * 900, [0.3] * 1000).verdict is Verdict.PASS


def test_a_heavy_value_that_spreads_out_is_seen() -> None:
    live = [0.2] * 500 + [0.8] * 500

    assert score_drift(score([0.5] * 500 + [0.8] * 500), score(live)) > 0.25


def test_nulls_are_a_bin_of_their_own() -> None:
    live = [0.3] * 1000

    assert drift_of([0.3] * 500 + [None] * 500, live).verdict is Verdict.FAIL
    assert drift_of([0.3] * 990 + [None] * 10, [0.3] * 990 + [None] * 10).verdict is Verdict.PASS


def test_the_verdict_follows_the_levels() -> None:
    live = np.linspace(0.01, 0.99, 1000)

    assert drift_of(live, live).verdict is Verdict.PASS
    warned = drift_of(live**1.35, live)
    assert warned.verdict is Verdict.WARN
    assert warned.observed.startswith("PSI 0.1")
    assert warned.expected == "PSI against the live release: at most 0.1; it fails above 0.25"
    assert drift_of(live**2, live).verdict is Verdict.FAIL


def test_the_first_release_has_nothing_to_compare_with() -> None:
    (result,) = check_drift(scores([0.5]), None, outputs=["score"], levels=LEVELS)

    assert (result.verdict, result.observed) == (Verdict.PASS, "first release: nothing to compare with")


@pytest.mark.parametrize("live", [None, [0.5]])
@pytest.mark.parametrize(
    ("current", "observed"),
    [
        ([], "score of this run has no value in 0 rows"),
        ([None, None], "score of this run has no value in 2 rows"),
        ([0.5, math.nan], "score of this run is NaN in 1 rows and infinite in 0"),
        ([0.5, math.inf], "score of this run is NaN in 0 rows and infinite in 1"),
    ],
)
def test_what_cannot_be_compared_has_failed(current: list[float], live: list[float] | None, observed: str) -> None:
    (result,) = check_drift(scores(current), scores(live) if live else None, outputs=["score"], levels=LEVELS)

    assert (result.verdict, result.evaluated, result.observed) == (Verdict.FAIL, False, observed)


def test_a_missing_or_different_column_has_failed() -> None:
    words = profile_batches([pa.RecordBatch.from_pydict({"score": ["high"]})])
    none = Profile(rows=1, columns={})

    for current, live, observed in [
        (none, scores([1.0]), "this run has no column score"),
        (scores([1.0]), none, "the live release has no column score"),
        (scores([1.0]), words, "score of the live release is not a number"),
        (scores([1.0]), scores([]), "score of the live release has no value in 0 rows"),
    ]:
        (result,) = check_drift(current, live, outputs=["score"], levels=LEVELS)
        assert (result.verdict, result.evaluated, result.observed) == (Verdict.FAIL, False, observed)
