import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from schemas.errors import DeclarationError
from schemas.expectations import Expectation
from schemas.report import CheckResult, Verdict
from validation.expectations import Judged, evaluate, problems
from validation.known import Known
from validation.profile import profile_batches

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def expect(kind: str, severity: str = "critical", **kwargs: Any) -> Expectation:
    return Expectation.model_validate({"type": f"expect_{kind}", "severity": severity, "kwargs": kwargs})


SCORE_IN_RANGE = expect("column_values_to_be_between", column="score", min_value=0, max_value=1)


@pytest.fixture(scope="session")
def frame(spark: "SparkSession") -> "DataFrame":
    rows = [("a", 0.1, None), ("b", 0.4, None), ("b", 1.5, None), ("c", None, None)]
    return spark.createDataFrame(rows, "entity_id string, score double, empty double")


def judge(frame: "DataFrame", *expectations: Expectation) -> list[CheckResult]:
    judged = {"predictions": Judged(expectations, lambda: frame)}
    return evaluate(judged).results["predictions"]


@pytest.mark.spark
def test_results_come_in_the_order_declared_and_say_what_was_seen(frame: "DataFrame") -> None:
    rows, between, unique = judge(
        frame,
        expect("table_row_count_to_be_between", min_value=1, max_value=10),
        SCORE_IN_RANGE,
        expect("column_values_to_be_unique", column="entity_id"),
    )

    assert (rows.verdict, rows.observed, rows.expected) == (Verdict.PASS, "4", "table row count to be between 1 and 10")
    assert between.name == "predictions: expect_column_values_to_be_between(score)"
    assert between.verdict is Verdict.FAIL
    assert between.evaluated
    assert between.observed == "1 of 4 rows (25.00%) unexpected; 1 are null; for example 1.5"
    assert between.expected == "score values to be between 0 and 1"
    # Entity ids are never shown.
    assert (unique.verdict, unique.observed) == (Verdict.FAIL, "2 of 4 rows (50.00%) unexpected")


@pytest.mark.spark
def test_a_warning_is_reported_and_does_not_fail(frame: "DataFrame") -> None:
    low = expect("column_mean_to_be_between", "warning", column="score", max_value=0.5)

    (result,) = judge(frame, low)

    assert (result.verdict, result.observed, result.expected) == (
        Verdict.WARN,
        "0.666667",
        "score mean to be at most 0.5",
    )


@pytest.mark.spark
def test_what_raised_inside_is_not_mistaken_for_a_failure_of_the_data(frame: "DataFrame") -> None:
    absent, present = judge(
        frame, expect("column_max_to_be_between", "warning", column="nope", max_value=1), SCORE_IN_RANGE
    )

    assert (absent.verdict, absent.evaluated) == (Verdict.FAIL, False)
    assert "Great Expectations raised" in absent.observed
    assert "nope" in absent.observed
    assert present.evaluated


@pytest.mark.spark
def test_zero_rows_fail_every_expectation(frame: "DataFrame") -> None:
    results = judge(frame.limit(0), SCORE_IN_RANGE, expect("column_to_exist", column="score"))

    assert [(result.verdict, result.evaluated, result.observed) for result in results] == [
        (Verdict.FAIL, False, "no rows")
    ] * 2


@pytest.mark.spark
@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        ("column_values_to_be_between", {"min_value": 0}),
        ("column_distinct_values_to_be_in_set", {"value_set": [1]}),
        ("column_values_to_be_unique", {}),
    ],
)
def test_a_column_of_nulls_passes_nothing(frame: "DataFrame", kind: str, kwargs: dict[str, Any]) -> None:
    (result,) = judge(frame, expect(kind, column="empty", **kwargs))

    assert (result.verdict, result.evaluated, result.observed) == (Verdict.FAIL, False, "every value of empty is null")


@pytest.mark.spark
def test_nulls_are_counted_by_what_asks_for_them(frame: "DataFrame") -> None:
    null, not_null, exists = judge(
        frame,
        expect("column_values_to_be_null", column="empty"),
        expect("column_values_to_not_be_null", column="empty"),
        expect("column_to_exist", column="empty"),
    )

    assert (null.verdict, null.evaluated) == (Verdict.PASS, True)
    assert (not_null.verdict, not_null.evaluated) == (Verdict.FAIL, True)
    assert (exists.verdict, exists.observed) == (Verdict.PASS, "as expected")


@pytest.mark.spark
def test_nan_is_out_of_every_range(spark: "SparkSession") -> None:
    (result,) = judge(spark.createDataFrame([(math.nan,), (0.5,)], "score double"), SCORE_IN_RANGE)

    assert (result.verdict, result.observed) == (Verdict.FAIL, "1 of 2 rows (50.00%) unexpected")


@pytest.mark.spark
def test_a_condition_that_no_row_meets_is_not_a_pass(frame: "DataFrame") -> None:
    never = {"type": "comparison", "column": {"name": "score"}, "operator": ">", "parameter": 100}

    (result,) = judge(frame, expect("column_values_to_be_between", column="score", max_value=1, row_condition=never))

    assert (result.evaluated, result.observed) == (False, "no row meets its row_condition")


@pytest.mark.spark
def test_the_frame_is_left_as_it_was(frame: "DataFrame") -> None:
    judge(frame, SCORE_IN_RANGE)

    assert not frame.storageLevel.useMemory


@pytest.mark.spark
def test_a_frame_that_was_cached_stays_so(spark: "SparkSession") -> None:
    cached = spark.createDataFrame([(0.5,)], "score double").cache()
    same = cached.select("*")

    judge(same, SCORE_IN_RANGE)

    assert cached.storageLevel.useMemory
    cached.unpersist()


@pytest.mark.spark
def test_two_of_a_type_on_one_column_are_two_checks(frame: "DataFrame") -> None:
    results = judge(
        frame, SCORE_IN_RANGE, SCORE_IN_RANGE, expect("column_values_to_be_between", column="score", max_value=2)
    )

    assert [result.verdict for result in results] == [Verdict.FAIL, Verdict.FAIL, Verdict.PASS]


@pytest.mark.spark
def test_an_empty_suite_is_refused(frame: "DataFrame") -> None:
    with pytest.raises(DeclarationError, match="VERIFY_NO_CHECKS"):
        judge(frame)


@pytest.mark.spark
def test_a_suite_with_a_typo_is_refused_whole(frame: "DataFrame") -> None:
    with pytest.raises(DeclarationError, match="did you mean 'expect_column_values_to_be_unique'"):
        judge(frame, SCORE_IN_RANGE, expect("column_values_to_be_uniqe", column="entity_id"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            expect("column_values_to_be_betwen", column="score", min_value=0),
            "s.yaml: inputs.0.type: unknown expectation 'expect_column_values_to_be_betwen'; "
            "did you mean 'expect_column_values_to_be_between'? [VERIFY_UNKNOWN_CHECK]",
        ),
        (
            expect("nothing_like_it_at_all_xyz"),
            "s.yaml: inputs.0.type: unknown expectation 'expect_nothing_like_it_at_all_xyz'; "
            "expected a type of the Great Expectations gallery [VERIFY_UNKNOWN_CHECK]",
        ),
        (
            expect("column_values_to_be_between", column="score", min_valu=0),
            "s.yaml: inputs.0.kwargs.min_valu: unknown key; did you mean 'min_value'? [CFG_INVALID]",
        ),
        (
            expect("column_values_to_be_unique", column="score", result_format="BASIC"),
            "s.yaml: inputs.0.kwargs.result_format: unknown key; expected one of "
            "column, condition_parser, mostly, row_condition [CFG_INVALID]",
        ),
        (
            expect("column_values_to_be_between", min_value=0),
            "s.yaml: inputs.0.kwargs.column: field required [CFG_INVALID]",
        ),
        (
            expect("column_values_to_be_between", column="score"),
            "s.yaml: inputs.0.kwargs: min_value and max_value cannot both be None [CFG_INVALID]",
        ),
        (
            expect("column_values_to_be_in_set", column="score", value_set=3),
            "s.yaml: inputs.0.kwargs.value_set: value is not a valid list [CFG_INVALID]",
        ),
        (
            expect("column_values_to_be_unique", column="score", mostly=3),
            "s.yaml: inputs.0.kwargs.mostly: ensure this value is less than or equal to 1.0 [CFG_INVALID]",
        ),
    ],
)
def test_a_wrong_declaration_is_found_without_data(wrong: Expectation, message: str) -> None:
    assert [str(problem) for problem in problems("inputs", [wrong], "s.yaml")] == [message]


def test_problems_stand_where_the_caller_says() -> None:
    found = problems("inputs", [SCORE_IN_RANGE, expect("nope")], lambda index: f"s.yaml:{index + 7}: inputs.{index}")

    assert [problem.where for problem in found] == ["s.yaml:8: inputs.1.type"]


def asked_for() -> "DataFrame":
    raise AssertionError("the rows were asked for")


def table_known(**columns: object) -> Known:
    batch = pa.RecordBatch.from_pydict(columns)
    return Known(batch.schema, profile_batches([batch]))


@pytest.mark.spark
def test_a_suite_that_a_profile_answers_starts_no_spark_job(spark: "SparkSession", tmp_path: Path) -> None:
    known = table_known(entity_id=["a", "b"], score=[0.1, 0.9], origin=["JFK", "EWR"])
    suite = [
        SCORE_IN_RANGE,
        expect("column_values_to_be_finite", column="score"),
        expect("column_mean_to_be_between", column="score", min_value=0.4, max_value=0.6),
        expect("column_values_to_be_in_set", column="origin", value_set=["JFK", "EWR"]),
        expect("column_top_value_share_to_be_at_most", column="origin", max_value=0.5),
    ]
    spark.sparkContext.setJobGroup("suite", "")

    found = evaluate({"inputs": Judged(suite, asked_for, known)}, docs=tmp_path / "data_docs")

    assert [result.verdict for result in found.results["inputs"]] == [Verdict.PASS] * 5
    assert list(spark.sparkContext.statusTracker().getJobIdsForGroup("suite")) == []


@pytest.mark.spark
def test_only_what_the_profile_cannot_answer_is_asked_of_the_rows(spark: "SparkSession") -> None:
    rows = pa.RecordBatch.from_pydict({"entity_id": ["a", "b", "b"], "score": [0.1, 0.4, 0.9]})
    known = Known(rows.schema, profile_batches([rows]))
    opened = []

    def frame() -> "DataFrame":
        opened.append(1)
        return spark.createDataFrame(rows.to_pandas())

    suite = [SCORE_IN_RANGE, expect("column_values_to_be_unique", column="entity_id"),
             expect("column_median_to_be_between", column="score", max_value=0.5)]  # fmt: skip

    results = evaluate({"inputs": Judged(suite, frame, known)}).results["inputs"]

    assert [result.verdict for result in results] == [Verdict.PASS, Verdict.FAIL, Verdict.PASS]
    assert results[1].observed == "2 of 3 rows (66.67%) unexpected"
    assert len(opened) == 1


@pytest.mark.spark
def test_the_profile_of_another_table_is_not_believed(frame: "DataFrame") -> None:
    known = table_known(entity_id=["a"], score=[0.5])

    with pytest.raises(ValueError, match="the profile is of 1 rows, the table has 4"):
        evaluate({"inputs": Judged([expect("column_values_to_be_unique", column="entity_id")], lambda: frame, known)})


def test_rows_that_cannot_be_read_fail_what_needs_them_and_nothing_else() -> None:
    known = table_known(score=[0.1, 0.4])
    suite = [SCORE_IN_RANGE, expect("column_median_to_be_between", column="score", min_value=0)]

    between, median = evaluate({"inputs": Judged(suite, asked_for, known)}).results["inputs"]

    assert (between.verdict, between.evaluated) == (Verdict.PASS, True)
    assert (median.evaluated, median.observed) == (False, "Great Expectations raised: the rows were asked for")


def test_a_hollow_column_and_an_empty_table_fail_by_their_profile() -> None:
    known = table_known(score=pa.nulls(2, pa.float64()))
    empty = Known(known.schema, profile_batches([]))

    (hollow,) = evaluate({"inputs": Judged([SCORE_IN_RANGE], asked_for, known)}).results["inputs"]
    (none,) = evaluate({"inputs": Judged([SCORE_IN_RANGE], asked_for, empty)}).results["inputs"]

    assert (hollow.evaluated, hollow.observed) == (False, "every value of score is null")
    assert (none.evaluated, none.observed) == (False, "no rows")


@pytest.mark.spark
def test_infinity_and_nan_are_not_finite_and_nulls_are_nothing(spark: "SparkSession") -> None:
    rows = spark.createDataFrame([(math.nan,), (math.inf,), (-math.inf,), (1.5,), (None,)], "score double")
    text = spark.createDataFrame([("1",)], "score string")
    finite = expect("column_values_to_be_finite", column="score")

    (found,) = judge(rows, finite)
    (of_text,) = judge(text, finite)

    assert (found.verdict, found.observed.partition(";")[0]) == (Verdict.FAIL, "3 of 5 rows (60.00%) unexpected")
    assert (of_text.evaluated, "it is not of numbers" in of_text.observed) == (False, True)


@pytest.mark.spark
def test_a_model_that_says_the_same_to_everybody_is_caught(spark: "SparkSession") -> None:
    rows = spark.createDataFrame([(0.5,)] * 9 + [(0.1,), (None,)], "score double")
    at_most = expect("column_top_value_share_to_be_at_most", column="score", max_value=0.8)

    (result,) = judge(rows, at_most)

    assert (result.verdict, result.observed, result.expected) == (
        Verdict.FAIL,
        "0.9",
        "score top value share to be at most 0.8",
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            expect("column_values_to_be_finit", column="score"),
            "s.yaml: inputs.0.type: unknown expectation 'expect_column_values_to_be_finit'; "
            "did you mean 'expect_column_values_to_be_finite'? [VERIFY_UNKNOWN_CHECK]",
        ),
        (
            expect("column_top_value_share_to_be_at_most", column="score"),
            "s.yaml: inputs.0.kwargs.max_value: field required [CFG_INVALID]",
        ),
        (
            expect("column_top_value_share_to_be_at_most", column="score", max_value=2),
            "s.yaml: inputs.0.kwargs.max_value: ensure this value is less than or equal to 1 [CFG_INVALID]",
        ),
        (
            expect("column_top_value_share_to_be_at_most", column="score", max_valu=0.5),
            "s.yaml: inputs.0.kwargs.max_valu: unknown key; did you mean 'max_value'? [CFG_INVALID]",
        ),
    ],
)
def test_almanacs_own_expectations_are_known(wrong: Expectation, message: str) -> None:
    assert [str(problem) for problem in problems("inputs", [wrong], "s.yaml")] == [message]
