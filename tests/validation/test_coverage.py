"""Coverage by key: what is lost, invented, doubled or on both sides is told, by whichever way it is looked for."""

from typing import TYPE_CHECKING

import pytest

from schemas.report import CheckResult, Verdict
from schemas.run import Counts
from validation.coverage import check_coverage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def check(
    spark: "SparkSession",
    listed: list[str | None],
    scored: list[str],
    *,
    count: int | None = None,
    ids_once: bool = True,
) -> CheckResult:
    keys = spark.createDataFrame([(key,) for key in listed], "entity_id string")
    predictions = spark.createDataFrame([(key, "scored") for key in scored], "entity_id string, status string")
    count = len(scored) if count is None else count
    counts = Counts(entities=count, scored=count, quarantined=0, collapsed=0)
    return check_coverage(keys, predictions, None, counts, ids_once=ids_once)


@pytest.mark.parametrize("ids_once", [True, False])
def test_the_same_keys_in_another_order_are_all_accounted_for(spark: "SparkSession", ids_once: bool) -> None:
    listed = [f"k{number}" for number in range(1000)]

    result = check(spark, [*listed], listed[::-1], ids_once=ids_once)

    assert (result.verdict, result.observed) == (Verdict.PASS, "all 1000 accounted for")


@pytest.mark.parametrize(
    ("listed", "scored", "count", "observed"),
    [
        (["a", "b"], ["a", "c"], 2, "1 lost, 1 invented"),
        (["a", "b"], ["a"], 1, "1 lost"),
        (["a"], ["a", "b"], 2, "1 invented"),
        (["a", None], ["a"], 1, "1 without a key lost"),
        (["a", ""], ["a"], 1, "1 without a key lost"),
    ],
)
def test_one_other_key_is_told(
    spark: "SparkSession", listed: list[str | None], scored: list[str], count: int, observed: str
) -> None:
    result = check(spark, listed, scored, count=count)

    assert (result.verdict, result.observed) == (Verdict.FAIL, observed)


def test_equal_rows_of_the_list_are_one_entity(spark: "SparkSession") -> None:
    assert check(spark, ["a", "a", "b"], ["a", "b"]).verdict is Verdict.PASS


def test_an_id_that_stands_twice_is_told_where_it_was_not_proven_to_stand_once(spark: "SparkSession") -> None:
    result = check(spark, ["a", "a"], ["a", "a"], ids_once=False)

    assert result.verdict is Verdict.FAIL
    assert result.observed.startswith("1 doubled")


def test_another_count_than_the_manifest_has_is_told(spark: "SparkSession") -> None:
    result = check(spark, ["a", "b"], ["a", "b"], count=3)

    assert result.verdict is Verdict.FAIL
    assert "the manifest has (3, 0, 0, 0)" in result.observed


def test_no_keys_at_all_fail(spark: "SparkSession") -> None:
    assert check(spark, [], []).verdict is Verdict.FAIL
