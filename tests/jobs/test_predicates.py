"""A predicate means on Arrow rows what it means to Spark, or is left to it."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.predicates import NotPlainError, arrow_predicate

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

NAN = float("nan")
ROWS = pa.table(
    {
        "number": pa.array([0.0, -0.0, NAN, None, float("inf"), float("-inf"), 1.5, -2.0], pa.float64()),
        "count": pa.array([0, 1, None, 3, 2**53 + 1, -5, 7, 1], pa.int64()),
        "word": pa.array(["a", "b", None, "", "é", "B", "a", "ab"], pa.string()),
        "day": pa.array([dt.date(2013, 7, day) if day % 3 else None for day in range(1, 9)]),
    }
)
SAME = [
    *(f"number {sign} {value}" for sign in ("=", "!=", "<", "<=", ">", ">=") for value in ("0D", "1.5D", "-0.0D")),
    "1.5D > number",
    "0D <= number",
    "number IN (0D, 1.5D)",
    "number NOT IN (0D, 1.5D)",
    "number IS NULL OR number > 1D",
    "NOT (number > 1D AND word = 'a')",
    "number > 1D OR word = 'a'",
    "word >= 'a' AND word < 'b'",
    "word IN ('a', 'é', '')",
    "word NOT IN ('a')",
    "word IS NOT NULL",
    "count = 9007199254740993",
    "count < 2L AND number IS NOT NULL",
    "day = DATE'2013-07-02'",
    "day > DATE'2013-07-04' OR day IS NULL",
]
LEFT = ["length(word) > 1", "word = NULL", "number = double('NaN')", "number = count", "word LIKE 'a%'", "true"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predicates") / "rows.parquet"
    pq.write_table(ROWS, path)
    return path


def test_what_is_taken_over_gives_sparks_answers(spark: "SparkSession", path: Path) -> None:
    frame = spark.read.parquet(str(path)).coalesce(1)
    found = frame.selectExpr(*(f"({sql}) AS p{at}" for at, sql in enumerate(SAME))).toArrow()
    coded = (
        ROWS.set_column(2, "word", ROWS["word"].combine_chunks().dictionary_encode()).combine_chunks().to_batches()[0]
    )
    for at, sql in enumerate(SAME):
        predicate = arrow_predicate(frame, sql)
        for rows in (ROWS, coded):
            assert predicate(rows).to_pylist() == found[f"p{at}"].to_pylist(), sql


@pytest.mark.parametrize("sql", LEFT)
def test_what_could_differ_is_left_to_spark(sql: str, spark: "SparkSession", path: Path) -> None:
    with pytest.raises(NotPlainError, match="in a predicate"):
        arrow_predicate(spark.read.parquet(str(path)), sql)
