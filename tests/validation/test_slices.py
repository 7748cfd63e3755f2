import math

import pyarrow as pa
import pytest

from schemas.checks import Levels, Slices
from schemas.errors import InputError
from schemas.report import CheckResult, Verdict
from validation.slices import SliceMean, SliceMeans, check_slices, measure_slices, merge

DECLARED = Slices(columns=["origin"], min_rows=2, shift=Levels(warn=0.1, fail=0.2))


def measure(**scores: list[float | None]) -> SliceMeans:
    rows = [(origin, score) for origin, each in scores.items() for score in each]
    columns = {
        "origin": pa.array([origin for origin, _ in rows], pa.string()),
        "score": pa.array([score for _, score in rows], pa.float64()),
    }
    return measure_slices([pa.RecordBatch.from_pydict(columns)], columns=["origin"], output="score")


def check(current: SliceMeans, live: SliceMeans | None) -> CheckResult:
    (result,) = check_slices(current, live, DECLARED)
    return result


def test_groups_of_several_batches_add_up() -> None:
    batches = [
        pa.RecordBatch.from_pydict({"origin": ["EWR", "JFK", None], "month": [1, 1, 2], "score": [0.1, 0.2, 0.3]}),
        pa.RecordBatch.from_pydict({"origin": ["EWR"], "month": [2], "score": [0.5]}),
    ]

    means = measure_slices(batches, columns=["origin", "month"], output="score")

    assert means.columns["origin"]["EWR"] == SliceMean(rows=2, total=0.6)
    assert means.columns["origin"]["(null)"].mean == 0.3
    assert {value: group.rows for value, group in means.columns["month"].items()} == {"1": 2, "2": 2}
    assert SliceMeans.model_validate_json(means.model_dump_json()) == means


def test_parts_merge_into_the_whole() -> None:
    a, b = measure(EWR=[0.25, 0.5]), measure(EWR=[0.25], JFK=[0.5])

    assert merge(a, b) == measure(EWR=[0.25, 0.5, 0.25], JFK=[0.5])


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
        (measure(EWR=[0.5, 0.5]), SliceMeans(columns={}), "origin of the live release: no rows were measured"),
        (
            measure(EWR=[0.5]),
            measure(EWR=[0.5, 0.5]),
            "no group of origin has 2 rows both now and in the live release",
        ),
    ],
)
def test_what_cannot_be_compared_has_failed(current: SliceMeans, live: SliceMeans | None, observed: str) -> None:
    result = check(current, live)

    assert (result.verdict, result.evaluated, result.observed) == (Verdict.FAIL, False, observed)


def test_a_column_that_names_no_groups_is_refused() -> None:
    with pytest.raises(InputError, match=r"checks\.slices\.columns: origin: 1001 values and more"):
        measure(**{str(number): [0.5] for number in range(1001)})
