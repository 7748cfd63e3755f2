"""Loading in Spark tasks: the same rows as threads load, the same errors, and no JVM for nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import redis

from jobs.spreading import in_tasks
from lookup.loader import Load
from lookup.rows import FilePart
from lookup.table import RedisTable
from lookup.writer import write_rows
from schemas.errors import InputError
from schemas.head import ColumnSpec, Head
from schemas.keys import bucket_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

COLUMNS = (ColumnSpec(name="score", type="float64"),)
SCHEMA = pa.schema([pa.field("entity_id", pa.string(), nullable=False), pa.field("score", pa.float64())])
BUCKETS = 8


def head_of(version: int) -> Head:
    return Head(
        table="flights", release=version, date="2013-07-01", version=version, token=version, buckets=BUCKETS,
        entities=1000, columns=COLUMNS, run_id=f"2013-07-01-{version:012x}", scored_at="2013-07-01T04:00:00Z",
    )  # fmt: skip


class FileRows:
    """A thousand rows in two files, four buckets in each."""

    def __init__(self, folder: Path, *, descending: bool = False) -> None:
        self.priors: dict[str, bytes] = {}
        ids = sorted((f"UA:{number}" for number in range(1000)), key=lambda one: (bucket_of(one, BUCKETS), one))
        half = next(at for at, one in enumerate(ids) if bucket_of(one, BUCKETS) == BUCKETS // 2)
        self.parts: list[Any] = []
        for name, some in (("part-00000.parquet", ids[:half]), ("part-00001.parquet", ids[half:])):
            scores = [float(one[3:]) / 1000 for one in some]
            columns = [pa.array(some[::-1] if descending else some), pa.array(scores)]
            write_rows(folder, name, SCHEMA, [pa.RecordBatch.from_arrays(columns, schema=SCHEMA)])
            self.parts.append(FilePart(folder / name, COLUMNS))


def test_a_version_loaded_in_tasks_is_the_one_that_threads_load(
    tmp_path: Path, redis_client: redis.Redis, session: "SparkSession"
) -> None:
    table, rows = RedisTable(redis_client, "flights"), FileRows(tmp_path / "predictions")

    table.load(head_of(1), rows)
    table.load(head_of(2), rows, spread=in_tasks(lambda: session))

    assert table.count(head_of(2)) == 1000
    assert table.checksum(head_of(2)) == table.checksum(head_of(1))


def test_what_a_task_refuses_is_refused_with_the_error_itself(
    tmp_path: Path, redis_client: redis.Redis, session: "SparkSession"
) -> None:
    table, rows = RedisTable(redis_client, "flights"), FileRows(tmp_path / "predictions", descending=True)

    with pytest.raises(InputError, match=r"rows out of order.*ROW_ORDER"):
        table.load(head_of(1), rows, spread=in_tasks(lambda: session))


def test_spark_is_not_asked_for_where_nothing_is_to_be_loaded(redis_client: redis.Redis) -> None:
    def no_spark() -> "SparkSession":
        raise AssertionError("a JVM was started for nothing")

    load = Load(RedisTable(redis_client, "flights")._address, head_of(1), "hset")

    assert in_tasks(no_spark)(load, []) == []
