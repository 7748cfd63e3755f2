"""Drift of scores and features against a baseline: seen where there is some, failed where it cannot be computed."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.checks import Drift
from schemas.report import Baseline, CheckResult, DriftMeasure, Verdict
from validation.distances import psi
from validation.drift import Comparison, ScoredProfile, check_drift, check_first_release, drift_measures
from validation.profile import Profile, profile_batches

DEFAULT = Drift()
NOTHING = Profile(rows=0, columns={})


def profile(**columns: object) -> Profile:
    arrays = {
        name: values if isinstance(values, pa.Array) else pa.array(values, from_pandas=False)
        for name, values in columns.items()
    }
    return profile_batches([pa.RecordBatch.from_pydict(arrays)])


def numbers(values: object) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=False)


def comparison(
    current: ScoredProfile, baseline: ScoredProfile, *, of: Baseline = "live", features: tuple[str, ...] = ("x",)
) -> Comparison:
    return Comparison(current=current, baseline=baseline, of=of, scores=("score",), features=features)


def scored(scores: object, **features: object) -> ScoredProfile:
    return ScoredProfile(scores=profile(score=numbers(scores)), features=profile(**features))


def of_feature(now: object, before: object, declared: Drift = DEFAULT, of: Baseline = "live") -> DriftMeasure:
    both = comparison(scored([0.5], x=now), scored([0.5], x=before), of=of)
    (_, measure) = drift_measures(both, declared)
    return measure


def of_scores(now: object, before: object, declared: Drift = DEFAULT) -> tuple[CheckResult, list[DriftMeasure]]:
    both = comparison(scored(now, x=["a"]), scored(before, x=["a"]))
    measures = drift_measures(both, declared)
    return check_drift(both, measures, declared)[0], [one for one in measures if one.kind == "score"]


# What is measured


def test_numbers_are_compared_over_deciles_and_nulls() -> None:
    before = numbers([float(n) for n in range(1, 101) for _ in range(10)])
    now = numbers([float(n) for n in range(1, 101) for _ in range(9)] + [None] * 100)
    measure = of_feature(now, before)

    # Each of ten deciles keeps nine tenths of its rows, and one row in ten is in a bin that was empty.
    by_hand = psi(np.array([100.0] * 10 + [0]), np.array([90.0] * 10 + [100]))
    assert measure.psi == pytest.approx(by_hand, rel=0.02)
    assert measure.ks == pytest.approx(0.1)
    assert (measure.rows, measure.baseline_rows, measure.mean, measure.baseline_mean) == (1000, 1000, 50.5, 50.5)


def test_the_ks_distance_is_that_of_the_numbers_themselves() -> None:
    draw = np.random.default_rng(3)
    before, now = draw.normal(0, 1, 4000), draw.normal(0.5, 1, 3000)
    edges = np.sort(np.concatenate([before, now]))
    exact = np.abs(
        np.searchsorted(np.sort(before), edges, "right") / 4000 - np.searchsorted(np.sort(now), edges, "right") / 3000
    ).max()

    assert of_feature(numbers(now), numbers(before)).ks == pytest.approx(exact, abs=0.01)


def test_categories_are_compared_value_by_value() -> None:
    measure = of_feature(["a"] * 20 + ["b"] * 50 + ["c"] * 30, ["a"] * 50 + ["b"] * 50)

    assert measure.ks == pytest.approx(0.3)
    assert measure.psi == pytest.approx(psi(np.array([50.0, 50, 0]), np.array([20.0, 50, 30])))
    assert (measure.mean, measure.baseline_mean) == (None, None)


def test_new_values_are_pooled_and_nulls_are_not_among_them() -> None:
    new = of_feature(["a"] * 60 + [f"new {n}" for n in range(40)], ["a"] * 100)

    assert new.psi == pytest.approx(psi(np.array([100.0, 0]), np.array([60.0, 40])))
    assert of_feature(["a"] * 60 + [None] * 20 + ["b"] * 20, ["a"] * 60 + [None] * 40).ks == pytest.approx(0.2)


def test_values_too_many_to_list_are_compared_where_both_sides_know_them() -> None:
    many = [f"N{n}" for n in range(5000)]

    same = of_feature(many * 4, many * 3)
    assert (same.psi, same.verdict) == (0, Verdict.PASS)
    assert of_feature([f"M{n}" for n in range(5000)] * 4, many * 3).verdict is Verdict.WARN
    assert of_feature(many[:2500] * 8, many * 3).verdict is Verdict.WARN


def test_nan_is_a_null_and_infinity_a_bin_of_its_own() -> None:
    before = numbers([1.0] * 900 + [None] * 100)

    assert of_feature(numbers([1.0] * 900 + [math.nan] * 100), before).psi == 0
    assert of_feature(numbers([1.0] * 900 + [math.inf] * 100), before).ks == pytest.approx(0.1)


@settings(deadline=None)  # a machine may be busy
@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True)), min_size=1), st.booleans())
def test_a_column_is_not_apart_from_itself(values: list[float | None], text: bool) -> None:
    column = pa.array([None if v is None else str(v) for v in values], pa.string()) if text else numbers(values)
    measure = of_feature(column, column)

    assert (measure.psi, measure.ks, measure.p_value, measure.verdict) == (0, 0, 1, Verdict.PASS)
    assert measure.js == pytest.approx(0, abs=1e-7)


@settings(deadline=None)  # a machine may be busy
@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_measures_are_bounded_and_ks_is_symmetric(a: list[float], b: list[float]) -> None:
    one, other = of_feature(numbers(a), numbers(b)), of_feature(numbers(b), numbers(a))

    assert one.psi >= 0
    assert all(0 <= value <= 1 for value in (one.js, one.ks, one.p_value))
    assert one.ks == pytest.approx(other.ks)


def test_the_sketches_find_what_exact_deciles_find() -> None:
    draws = np.random.default_rng(2)
    live, now = draws.beta(2, 6, 50_000), draws.beta(2.6, 6, 50_000)
    edges = np.quantile(live, np.linspace(0, 1, 11))
    exact = psi(np.histogram(live, edges)[0], np.histogram(np.clip(now, edges[0], edges[-1]), edges)[0])

    assert of_feature(numbers(now), numbers(live)).psi == pytest.approx(exact, rel=0.05)


# What becomes of it


@pytest.mark.parametrize("now", [0.2, 0.4, -0.3, 0.0])
def test_a_constant_that_moved_has_drifted_either_way(now: float) -> None:
    assert of_scores([now] * 1000, [0.3] * 1000)[0].verdict is Verdict.FAIL
    assert of_scores([0.3] * 900, [0.3] * 1000)[0].verdict is Verdict.PASS


def test_a_heavy_value_that_spreads_out_is_seen() -> None:
    assert of_scores([0.5] * 500 + [0.8] * 500, [0.2] * 500 + [0.8] * 500)[0].verdict is Verdict.FAIL


def test_nulls_among_scores_are_a_bin_of_their_own() -> None:
    assert of_scores([0.3] * 500 + [None] * 500, [0.3] * 1000)[0].verdict is Verdict.FAIL
    assert of_scores([0.3] * 990 + [None] * 10, [0.3] * 990 + [None] * 10)[0].verdict is Verdict.PASS


def test_the_verdict_follows_the_levels_and_says_what_moved() -> None:
    live = np.linspace(0.01, 0.99, 1000)

    assert of_scores(live, live)[0].verdict is Verdict.PASS
    warned, _ = of_scores(live**1.35, live)
    assert (warned.name, warned.verdict) == ("drift of scores against the live release", Verdict.WARN)
    assert warned.observed.startswith("1 of 1 moved: score PSI 0.1")
    assert warned.observed.endswith(" (mean 0.5, now 0.4241)")
    assert warned.expected == (
        "PSI at most 0.1; it fails above 0.25; what chance explains passes (false alarm rate 0.01)"
    )
    assert of_scores(live**2, live)[0].verdict is Verdict.FAIL


@pytest.mark.parametrize(("measure", "words"), [("js", "Jensen-Shannon distance 0.1"), ("ks", "KS distance 0.1")])
def test_the_levels_are_of_the_measure_declared(measure: str, words: str) -> None:
    live = np.linspace(0.01, 0.99, 1000)
    declared = Drift.model_validate({"measure": measure, "live": {"scores": {"warn": 0.1}}})

    warned, _ = of_scores(live**1.35, live, declared)
    assert warned.verdict is Verdict.WARN
    assert words in warned.observed


def test_what_chance_explains_passes_whatever_its_size() -> None:
    draw = np.random.default_rng(6)
    result, (measure,) = of_scores(draw.random(30), draw.random(30))

    assert measure.psi > 0.25
    assert measure.p_value > 0.01
    assert result.verdict is Verdict.PASS


def test_more_columns_make_chance_a_better_excuse() -> None:
    before, now = [0.0] * 50 + [1.0] * 50, [0.0] * 25 + [1.0] * 75
    alone = of_feature(numbers(now), numbers(before))
    still = {f"still_{n}": numbers(before) for n in range(99)}
    names = ("x", *still)
    one, other = scored([0.5], x=numbers(now), **still), scored([0.5], x=numbers(before), **still)
    among = {m.column: m for m in drift_measures(comparison(one, other, features=names), Drift())}

    assert (alone.verdict, among["x"].verdict) == (Verdict.WARN, Verdict.PASS)
    assert among["x"].psi == alone.psi
    assert among["x"].p_value == pytest.approx(min(1, alone.p_value / 2 * 101))


def test_at_most_five_columns_are_named_and_the_farthest_first() -> None:
    names = tuple(f"x{n}" for n in range(8))
    before = scored([0.5], **{name: numbers([0.0] * 500 + [1.0] * 500) for name in names})
    now = scored([0.5], **{f"x{n}": numbers([0.0] * 50 * n + [1.0] * (1000 - 50 * n)) for n in range(8)})
    both = comparison(now, before, of="training", features=names)
    declared = Drift.model_validate({"training": {"features": {"warn": 0.05, "fail": 5}}})
    result = check_drift(both, drift_measures(both, declared), declared)[1]

    assert (result.name, result.verdict) == ("drift of features against the training data", Verdict.WARN)
    assert result.observed.startswith("8 of 8 moved: x0 PSI ")
    assert result.observed.endswith(", ... and 3 more")
    assert result.observed.count("PSI") == 5


# What cannot be compared


def results_of(now: ScoredProfile, before: ScoredProfile, of: Baseline = "live") -> list[CheckResult]:
    both = comparison(now, before, of=of)
    return check_drift(both, drift_measures(both, Drift()), Drift())


@pytest.mark.parametrize(
    ("current", "observed"),
    [
        ([], "this run has no rows"),
        ([None, None], "score of this run has no value in 2 rows"),
        ([0.5, math.nan], "score of this run is NaN in 1 rows and infinite in 0"),
        ([0.5, math.inf], "score of this run is NaN in 0 rows and infinite in 1"),
    ],
)
def test_scores_that_cannot_be_compared_have_failed(current: list[float], observed: str) -> None:
    result = results_of(scored(current, x=["a"]), scored([0.5], x=["a"]))[0]
    assert (result.verdict, result.evaluated, result.observed) == (Verdict.FAIL, False, observed)

    flipped = results_of(scored([0.5], x=["a"]), scored(current, x=["a"]), "training")[0]
    assert (flipped.verdict, flipped.evaluated) == (Verdict.FAIL, False)
    assert flipped.observed == observed.replace("this run", "the training data")


@pytest.mark.parametrize("of", ["live", "training"])
@pytest.mark.parametrize(
    ("now", "before", "observed"),
    [
        (profile(y=["a"]), profile(x=["a"]), "this run has no column x"),
        (NOTHING, profile(x=["a"]), "this run has no rows"),
        (profile(x=["a"]), NOTHING, "{} has no rows"),
        (profile(x=["1"]), profile(x=[1.0]), "x is of kind category in this run, numeric in {}"),
        (profile(x=numbers([None] * 3)), profile(x=[1.0]), "x of this run has no value in 3 rows; {} has 1"),
    ],
)
def test_features_that_cannot_be_compared_have_failed(
    now: Profile, before: Profile, observed: str, of: Baseline
) -> None:
    score = profile(score=[0.5])
    result = results_of(ScoredProfile(scores=score, features=now), ScoredProfile(scores=score, features=before), of)[1]

    owner = "the live release" if of == "live" else "the training data"
    assert (result.verdict, result.evaluated, result.observed) == (Verdict.FAIL, False, observed.format(owner))


def test_a_feature_that_no_side_has_a_value_of_is_where_it_was() -> None:
    assert of_feature(numbers([None] * 9), numbers([None] * 5)).verdict is Verdict.PASS


def test_a_feature_that_has_values_at_last_has_moved() -> None:
    assert of_feature(numbers([1.0] * 900), numbers([None] * 500)).verdict is Verdict.WARN


def test_a_feature_that_the_live_release_did_not_have_only_warns() -> None:
    now, before = scored([0.5], x=["a"], y=["b"]), scored([0.5], x=["a"])
    for features, observed in [(("x", "y"), "1 compared; "), (("y",), "new since the live release")]:
        both = comparison(now, before, features=features)
        result = check_drift(both, drift_measures(both, Drift()), Drift())[1]
        assert result.verdict is Verdict.WARN
        assert result.observed.startswith(observed)
        assert result.observed.endswith("new since the live release, with nothing to compare with: y")


def test_a_feature_that_the_training_did_not_have_has_failed() -> None:
    result = results_of(scored([0.5], x=["a"]), scored([0.5], y=["a"]), "training")[1]

    assert (result.evaluated, result.observed) == (False, "the training data has no column x")


def test_a_column_without_a_measure_has_failed() -> None:
    both = comparison(scored([0.5], x=["a"]), scored([0.5], x=["a"]))
    results = check_drift(both, (), Drift())

    assert [(result.verdict, result.observed) for result in results] == [
        (Verdict.FAIL, "score was not measured"),
        (Verdict.FAIL, "x was not measured"),
    ]


def test_the_first_release_has_nothing_to_compare_with() -> None:
    result = check_first_release(profile(score=[0.5]), ["score"])

    assert (result.verdict, result.observed) == (Verdict.PASS, "first release: nothing to compare with")


@pytest.mark.parametrize(
    ("current", "observed"),
    [
        (NOTHING, "this run has no column score"),
        (profile(score=["high"]), "score of this run is not a number"),
        (profile(score=numbers([None])), "score of this run has no value in 1 rows"),
        (profile(score=numbers([math.nan])), "score of this run is NaN in 1 rows and infinite in 0"),
    ],
)
def test_a_first_release_without_scores_has_failed(current: Profile, observed: str) -> None:
    result = check_first_release(current, ["score"])

    assert (result.verdict, result.evaluated, result.observed) == (Verdict.FAIL, False, observed)
    assert check_first_release(current, []).observed == "no output"
