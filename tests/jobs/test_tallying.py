"""On a terminal it is seen how far Spark is."""

import time
from typing import TYPE_CHECKING

import pytest

from jobs.tallying import tasks_told

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def test_the_tasks_of_a_job_at_work_are_told(spark: "SparkSession") -> None:
    told: list[str] = []
    with tasks_told(told.append, seconds=0.05):
        spark.sparkContext.parallelize(range(4), 4).foreach(lambda _: time.sleep(0.3))
    assert told
    assert {text.partition(" of ")[2] for text in told} == {"4 tasks"}
    before = len(told)
    time.sleep(0.2)
    assert len(told) == before
