import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.checks import Levels, Slices
from schemas.errors import InputError
from schemas.report import CheckResult, Verdict
from validation.grouping import measure_slices
from validation.slices import SliceProfile, check_slices, merge, slice_measures

DECLARED = Slices(columns=["origin"], min_rows=2, shift=Levels(warn=0.1, fail=0.2))
FAIR = Slices(columns=["origin"], min_rows=10, positive_at=0.5, min_selection_ratio=0.8)
Sliced = tuple[SliceProfile, ...]


def measure(declared: Slices = DECLARED, /, **scores: list[float | None]) -> Sliced:
    rows = [(origin, score) for origin, each in scores.items() for score in each]
    columns = {
        "origin": pa.array([origin for origin, _ in rows], pa.string()),
        "score": pa.array([score for _, score in rows], pa.float64(), from_pandas=False),
    }
    return measure_slices([pa.RecordBatch.from_pydict(columns)], declared, output="score")


def check(current: Sliced, live: Sliced | None) -> CheckResult:
    (result,) = check_slices(current, live, DECLARED)
    return result


def selected(**positives: tuple[int, int]) -> Sliced:
    """Each group's positive rows, of how many."""
    return measure(FAIR, **{name: [1.0] * some + [0.0] * (rows - some) for name, (some, rows) in positives.items()})


def selection(**positives: tuple[int, int]) -> CheckResult:
    shift, ratio = check_slices(selected(**positives), None, FAIR)
    assert shift.name == "slices by origin"
    return ratio


def test_parts_merge_into_the_whole() -> None:
    (a,), (b,) = measure(EWR=[0.25, 0.5]), measure(EWR=[0.25], JFK=[0.5])

    merged = merge(a, b)

    assert [(group.values, group.rows, group.mean) for group in merged.groups] == [
        (("EWR",), 3, pytest.approx(1 / 3)),
        (("JFK",), 1, 0.5),
    ]


def test_parts_that_together_have_too_many_groups_are_refused() -> None:
    (a,), (b,) = (measure(**{f"{part}{number}": [0.5] for number in range(600)}) for part in "ab")

    with pytest.raises(InputError, match=r"checks\.slices\.columns: origin: 1200 groups and more"):
        merge(a, b)


def test_parts_of_other_columns_are_refused() -> None:
    (a,) = measure(EWR=[0.5])

    with pytest.raises(ValueError, match="group-bys differ"):
        merge(a, SliceProfile(columns=("dest",), groups=()))


def test_the_group_that_moved_most_is_named() -> None:
    live = measure(EWR=[0.2, 0.2], JFK=[0.3, 0.3], LGA=[0.1])
    current = measure(EWR=[0.2, 0.3], JFK=[0.5, 0.7], LGA=[0.9])

    result = check(current, live)

    assert result.verdict is Verdict.FAIL
    assert result.name == "slices by origin"
    # LGA moved more, but has too few rows.
    assert result.observed == (
        "JFK moved most, by 0.300: the mean of its 2 rows went from 0.300 to 0.600; 2 of 3 groups judged"
    )
    assert result.expected == "means of groups of 2 rows or more move by at most 0.1; it fails above 0.2"


@pytest.mark.parametrize(("mean", "verdict"), [(0.55, Verdict.PASS), (0.65, Verdict.WARN), (0.75, Verdict.FAIL)])
def test_the_verdict_follows_the_levels(mean: float, verdict: Verdict) -> None:
    assert check(measure(EWR=[mean, mean]), measure(EWR=[0.5, 0.5])).verdict is verdict


def test_the_first_release_has_nothing_to_compare_with() -> None:
    result = check(measure(EWR=[0.5]), None)

    assert (result.verdict, result.observed) == (Verdict.PASS, "first release: nothing to compare with")


@pytest.mark.parametrize(
    ("current", "live", "observed"),
    [
        (measure(), measure(EWR=[0.5, 0.5]), "origin of this run: no rows were measured"),
        (measure(), None, "origin of this run: no rows were measured"),
        (measure(EWR=[0.5, None]), None, "origin of this run: 1 rows have no finite prediction"),
        (measure(EWR=[0.5, math.nan]), None, "origin of this run: 1 rows have no finite prediction"),
        (measure(EWR=[0.5, math.inf]), None, "origin of this run: 1 rows have no finite prediction"),
        ((), None, "origin of this run: it was not measured"),
        ((), measure(EWR=[0.5, 0.5]), "origin of this run: it was not measured"),
        (measure(EWR=[0.5, None]), (), "origin of this run: 1 rows have no finite prediction"),
        (measure(EWR=[1.7e308, 1.7e308]), None, "origin of this run: predictions are too large for a mean"),
        (measure(EWR=[0.5, 0.5]), measure(), "origin of the live release: no rows were measured"),
        (
            measure(EWR=[0.5]),
            measure(EWR=[0.5, 0.5]),
            "no group of origin has 2 rows both now and in the live release",
        ),
    ],
)
def test_what_cannot_be_compared_has_failed(current: Sliced, live: Sliced | None, observed: str) -> None:
    result = check(current, live)

    assert (result.verdict, result.evaluated, result.observed) == (Verdict.FAIL, False, observed)


def test_a_group_by_declared_since_the_live_release_is_a_warning() -> None:
    result = check(measure(EWR=[0.5, 0.5]), ())

    assert (result.verdict, result.observed) == (
        Verdict.WARN,
        "declared since the live release: nothing to compare with",
    )


def test_every_column_and_pair_has_a_result() -> None:
    declared = Slices(
        columns=["origin", "month"], pairs=[["origin", "month"]], positive_at=0.5, min_selection_ratio=0.1, min_rows=1
    )
    batch = pa.RecordBatch.from_pydict({"origin": ["EWR", "JFK"], "month": [1, 2], "score": [0.75, 0.5]})
    current = measure_slices([batch], declared, output="score")

    results = check_slices(current, current, declared)

    assert [(result.name, result.verdict) for result in results] == [
        ("slices by origin", Verdict.PASS),
        ("selection ratio by origin", Verdict.PASS),
        ("slices by month", Verdict.PASS),
        ("selection ratio by month", Verdict.PASS),
        ("slices by origin and month", Verdict.PASS),
        ("selection ratio by origin and month", Verdict.PASS),
    ]
    assert "JFK, 2 moved most, by 0.000" in results[4].observed


@pytest.mark.parametrize(
    ("positives", "verdict"),
    [((400, 500), Verdict.PASS), ((399, 500), Verdict.WARN), ((350, 500), Verdict.FAIL), ((0, 500), Verdict.FAIL)],
)
def test_a_group_that_is_selected_less_than_the_limit_warns_and_for_certain_fails(
    positives: tuple[int, int], verdict: Verdict
) -> None:
    assert selection(EWR=positives, JFK=(500, 500)).verdict is verdict


def test_the_selection_ratio_says_who_and_how_sure() -> None:
    # LGA is below for certain; TEB seems to be further below, but has few rows; tiny has too few.
    result = selection(JFK=(500, 1000), EWR=(450, 1000), LGA=(200, 1000), TEB=(1, 12), tiny=(0, 9))

    assert result.observed == (
        "LGA: 0.400 [0.348, 0.459]; 200 of 1,000 rows positive, of JFK 500 of 1,000 rows positive; 4 of 5 groups judged"
    )
    assert result.expected == (
        "each positive rate is at least 0.8 of the highest; below it warns, its whole interval below fails"
    )
    assert result.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("positives", "observed"),
    [
        ({}, "origin of this run: no rows were measured"),
        ({"EWR": (5, 50)}, "1 of 1 groups of origin have 10 rows: nothing to compare"),
        ({"EWR": (5, 50), "JFK": (5, 9)}, "1 of 2 groups of origin have 10 rows: nothing to compare"),
        ({"EWR": (0, 50), "JFK": (0, 50)}, "no row of origin reaches 0.5: there is no rate to compare with"),
    ],
)
def test_a_selection_ratio_that_cannot_be_computed_has_failed(
    positives: dict[str, tuple[int, int]], observed: str
) -> None:
    result = selection(**positives)

    assert (result.verdict, result.evaluated, result.observed) == (Verdict.FAIL, False, observed)


def test_a_run_with_a_row_that_has_no_prediction_has_no_selection_ratio() -> None:
    _, ratio = check_slices(measure(FAIR, EWR=[1.0] * 20, JFK=[1.0] * 20 + [math.nan]), None, FAIR)

    assert (ratio.evaluated, ratio.observed) == (False, "origin of this run: 1 rows have no finite prediction")


def test_the_report_has_the_largest_groups_with_their_intervals() -> None:
    now, live = selected(EWR=(20, 100), JFK=(40, 80), tiny=(1, 1)), selected(EWR=(10, 100))

    ewr, jfk, tiny = slice_measures(now, live, FAIR)

    assert (ewr.columns, ewr.values, ewr.rows, ewr.live_mean) == (("origin",), ("EWR",), 100, 0.1)
    assert (ewr.mean.low, ewr.mean.value, ewr.mean.high) == pytest.approx((0.1212, 0.2, 0.2788), abs=1e-4)
    assert ewr.positive_rate is not None
    assert (ewr.positive_rate.low, ewr.positive_rate.high) == pytest.approx((0.1334, 0.2888), abs=1e-4)
    assert ewr.selection_ratio is not None
    assert (ewr.selection_ratio.low, ewr.selection_ratio.high) == pytest.approx((0.2553, 0.6268), abs=1e-4)
    assert jfk.live_mean is None
    assert jfk.selection_ratio is not None
    assert jfk.selection_ratio.value == 1.0
    # One row has too few to be compared, and no spread.
    assert (tiny.selection_ratio, tiny.mean.low, tiny.mean.high) == (None, 1.0, 1.0)


def test_the_report_lists_at_most_fifty_groups_and_none_without_rows() -> None:
    groups: dict[str, Any] = {f"N{number:02}": [0.5] * (number + 1) for number in range(60)}

    found = slice_measures(measure(**groups, nobody=[None]), None, DECLARED)

    assert [measure.values[0] for measure in found] == [f"N{number:02}" for number in range(59, 9, -1)]
    assert all(measure.positive_rate is None and measure.selection_ratio is None for measure in found)


def test_the_mean_s_interval_covers_the_truth_as_often_as_declared() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        (found,) = slice_measures(measure(EWR=generator.beta(2, 5, 100).tolist()), None, DECLARED)
        covered += found.mean.low <= 2 / 7 <= found.mean.high

    assert covered / 400 == pytest.approx(0.95, abs=0.03)
