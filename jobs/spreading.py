"""Loading a version in Spark tasks: each file of a run is read, packed and sent by the executor that gets it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jobs.sparing import spare_modules
from lookup.loader import Loaded
from lookup.rows import Part
from lookup.table import Spread
from schemas.errors import AlmanacError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def in_tasks(spark: "Callable[[], SparkSession]") -> Spread:
    """Loads one part a task; Spark is asked for only when there is something to load.

    Executors need this package, the store's folder under the same path, and a way to Redis.
    """

    def spread(load: Callable[[Part], Loaded], parts: Sequence[Part]) -> list[Loaded]:
        if not parts:
            return []

        def attempt(part: Part) -> Loaded | AlmanacError:
            try:
                return load(part)
            except AlmanacError as err:
                return err  # as a value, because Spark would turn the exception into text, and try again
            finally:
                spare_modules()

        loaded: list[Loaded] = []
        for found in spark().sparkContext.parallelize(parts, len(parts)).map(attempt).collect():
            if isinstance(found, AlmanacError):
                raise found
            loaded.append(found)
        return loaded

    return spread
