import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.checks import Calibration, Levels
from schemas.errors import InputError
from schemas.report import CheckResult, Verdict
from validation.calibration import CalibrationProfile, calibration_measures, check_calibration, measure_calibration

DECLARED = Calibration(after_days=1, error=Levels(warn=0.05, fail=0.2), min_rows=100)
BY = [("origin",), ("origin", "carrier")]


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def outcomes(*, predicted: float, positives: int, rows: int, origin: str = "EWR") -> pa.RecordBatch:
    labels = [1.0] * positives + [0.0] * (rows - positives)
    return batch(prediction=[predicted] * rows, label=labels, origin=[origin] * rows, carrier=["UA"] * rows)


def check(profile: CalibrationProfile) -> list[CheckResult]:
    return check_calibration(profile, DECLARED, run_id="2013-07-01-aaa")


def test_groups_of_batches_and_tables_have_the_means_of_all_their_rows() -> None:
    generator = np.random.default_rng(1)
    places = np.array(["EWR", "JFK"])[generator.integers(0, 2, 10_000)]
    predicted, label = generator.beta(2, 5, 10_000), generator.integers(0, 2, 10_000).astype(float)
    table = pa.table({"origin": places, "carrier": ["UA"] * 10_000, "prediction": predicted, "label": label})

    found = measure_calibration([table.slice(0, 3_000), *table.slice(3_000).to_batches(2_000)], BY)

    assert [(group.columns, group.values) for group in found.groups] == [
        ((), ()),
        (("origin",), ("EWR",)),
        (("origin",), ("JFK",)),
        (("origin", "carrier"), ("EWR", "UA")),
        (("origin", "carrier"), ("JFK", "UA")),
    ]
    everything, ewr = found.groups[:2]
    mine = places == "EWR"
    assert (everything.rows, ewr.rows) == (10_000, mine.sum())
    assert everything.predicted == pytest.approx(predicted.mean(), rel=1e-9)
    assert (ewr.predicted, ewr.label.mean) == pytest.approx((predicted[mine].mean(), label[mine].mean()), rel=1e-9)


def test_the_expected_error_is_that_of_deciles() -> None:
    generator = np.random.default_rng(2)
    predicted = generator.random(20_000)
    label = (generator.random(20_000) < predicted**2).astype(float)
    order = np.argsort(predicted)
    tenths = [predicted[part].mean() - label[part].mean() for part in np.array_split(order, 10)]

    found = measure_calibration([batch(prediction=predicted, label=label)])

    assert found.error == pytest.approx(np.abs(tenths).mean(), abs=0.002)


def test_sound_probabilities_have_hardly_an_error() -> None:
    generator = np.random.default_rng(3)
    predicted = generator.beta(2, 5, 50_000)
    label = generator.random(50_000) < predicted

    found = measure_calibration([batch(prediction=predicted, label=label)])

    assert found.binary
    assert found.error == pytest.approx(0, abs=0.01)
    assert [result.verdict for result in check(found)] == [Verdict.PASS]


def test_a_label_that_is_not_known_yet_counts_for_nothing() -> None:
    found = measure_calibration([batch(prediction=[0.5, 0.9, math.nan], label=pa.array([1.0, None, None]))])

    assert (found.groups[0].rows, found.unknown, found.unusable, found.groups[0].predicted) == (1, 2, 0, 0.5)


@pytest.mark.parametrize(
    ("predicted", "verdict"),
    [(0.45, Verdict.PASS), (0.64, Verdict.PASS), (0.66, Verdict.WARN), (0.79, Verdict.WARN), (0.81, Verdict.FAIL)],
)
def test_the_error_is_the_distance_from_the_label_s_interval(predicted: float, verdict: Verdict) -> None:
    # 50 of 100 positive: the interval is 0.404 to 0.596.
    (result,) = check(measure_calibration([outcomes(predicted=predicted, positives=50, rows=100)]))

    assert result.verdict is verdict


def test_the_group_that_is_furthest_off_is_named_if_it_has_enough_labels() -> None:
    batches = [
        outcomes(predicted=0.5, positives=500, rows=1000, origin="EWR"),
        outcomes(predicted=0.5, positives=350, rows=1000, origin="JFK"),
        outcomes(predicted=0.9, positives=0, rows=99, origin="LGA"),
    ]

    everything, origin, pair = check(measure_calibration(batches, BY))

    assert (everything.name, everything.verdict) == ("calibration", Verdict.WARN)
    assert everything.observed == (
        "all rows of 2013-07-01-aaa is off by 0.093: 2,099 rows, mean prediction 0.519, "
        "mean label 0.405 [0.384, 0.426]; over deciles 0.114; 0 labels are not known yet"
    )
    assert (origin.name, origin.family, origin.verdict) == ("calibration by origin", "calibration", Verdict.WARN)
    assert origin.observed == (
        "JFK of 2013-07-01-aaa is off by 0.120: 1,000 rows, mean prediction 0.500, "
        "mean label 0.350 [0.321, 0.380]; 2 of 3 groups judged"
    )
    assert origin.expected == "means of 100 predictions or more are off by at most 0.05; it fails above 0.2"
    assert pair.observed.startswith("JFK, UA of")


@pytest.mark.parametrize(
    ("batches", "observed"),
    [
        ([], "no label of 2013-07-01-aaa is known"),
        ([batch(prediction=[0.5], label=pa.nulls(1, pa.float64()))], "no label of 2013-07-01-aaa is known"),
        (
            [outcomes(predicted=0.5, positives=50, rows=99)],
            "no group has 100 rows whose label is known: 2013-07-01-aaa has 99, in 1 groups",
        ),
        (
            [outcomes(predicted=0.5, positives=50, rows=100), outcomes(predicted=math.nan, positives=1, rows=1)],
            "1 rows of 2013-07-01-aaa have a prediction or a label that is no finite number",
        ),
        (
            [outcomes(predicted=0.5, positives=50, rows=100), batch(prediction=[0.5], label=[math.inf])],
            "1 rows of 2013-07-01-aaa have a prediction or a label that is no finite number",
        ),
        (
            [batch(prediction=pa.nulls(1, pa.float64()), label=[1.0])],
            "1 rows of 2013-07-01-aaa have a prediction or a label that is no finite number",
        ),
    ],
)
def test_what_cannot_be_judged_has_failed(batches: list[pa.RecordBatch], observed: str) -> None:
    (result,) = check(measure_calibration(batches))

    assert (result.verdict, result.evaluated, result.observed) == (Verdict.FAIL, False, observed)


def test_group_bys_without_enough_labels_in_any_group_have_failed() -> None:
    batches = [outcomes(predicted=0.5, positives=30, rows=60, origin=origin) for origin in ("EWR", "JFK")]

    everything, origin = check(measure_calibration(batches, [("origin",)]))

    assert everything.verdict is Verdict.PASS
    assert (origin.evaluated, origin.observed) == (
        False,
        "no group has 100 rows whose label is known: 2013-07-01-aaa has 120, in 2 groups",
    )


def test_labels_that_are_numbers_have_a_normal_interval() -> None:
    labels = np.random.default_rng(4).normal(100, 10, 400)
    found = measure_calibration([batch(prediction=np.full(400, 100.0), label=labels)])

    (everything,) = calibration_measures(found)

    reach = 1.96 * labels.std(ddof=1) / 20
    assert not found.binary
    assert everything.observed.high - everything.observed.value == pytest.approx(reach, rel=1e-3)


def test_the_report_has_all_rows_first_then_the_largest_groups() -> None:
    batches = [outcomes(predicted=0.5, positives=1, rows=rows, origin=f"N{rows:02}") for rows in range(60, 0, -1)]

    everything, *groups = calibration_measures(measure_calibration(batches, [("origin",)]))

    assert (everything.columns, everything.values, everything.rows, everything.predicted) == ((), (), 1830, 0.5)
    assert [group.values[0] for group in groups] == [f"N{rows:02}" for rows in range(60, 10, -1)]
    assert calibration_measures(measure_calibration([])) == ()


def test_numbers_too_large_for_a_mean_are_an_error() -> None:
    with pytest.raises(ValueError, match="all rows: numbers are too large for a mean"):
        measure_calibration([batch(prediction=[1.7e308, 1.7e308], label=[1.0, 0.0])])


def test_a_column_that_names_no_groups_is_refused() -> None:
    many = batch(prediction=np.zeros(1001), label=np.zeros(1001), origin=[str(number) for number in range(1001)])

    with pytest.raises(InputError, match="VERIFY_SLICE_VALUES"):
        measure_calibration([many], [("origin",)])
