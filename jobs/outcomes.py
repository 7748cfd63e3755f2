"""What came of an earlier release: its predictions beside the labels that are known by now."""

import datetime as dt
from collections.abc import Collection
from typing import TYPE_CHECKING

import pyarrow as pa

from jobs.features import read_source
from jobs.snapshot import take_snapshot
from jobs.stages import Plan
from lookup.store import Store
from schemas.release import ReleaseState
from schemas.run import ENTITY_ID, FEATURES, PREDICTIONS, SCORED, RunManifest
from validation.analysis import analysis_errors
from validation.quarantine import entity_id_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_SERVED = (ReleaseState.LIVE, ReleaseState.RETIRED, ReleaseState.ROLLED_BACK)


def earlier_run(store: Store, date: dt.date, after_days: int) -> RunManifest | None:
    """The newest run that was once live and is that many days older than `date`, or more."""
    return store.newest_run(date - dt.timedelta(days=after_days), _SERVED)


def outcomes(plan: Plan, earlier: RunManifest, spark: "SparkSession", columns: Collection[str]) -> pa.Table:
    """The scored entities of an earlier run: `prediction`, `label` (null where it is not known), and these columns.

    Raises:
        InputError: the sources of that day are gone.
        DeclarationError: Spark cannot evaluate `training.label`.
    """
    from pyspark.sql import functions as F  # noqa: N812

    pipeline, folder = plan.declared.pipeline, plan.store.run_folder(earlier.run_id)
    name = pipeline.entity.source
    snapshot = take_snapshot(plan.settings, pipeline, earlier.date)

    def read(part: str) -> "DataFrame":
        return spark.read.parquet(*(str(folder / file.path) for file in earlier.files_in(part)))

    with analysis_errors(f"{plan.declared.name}/pipeline.yaml: training.label"):
        source = read_source(spark, plan.declared, name, snapshot.sources[name])
        label = F.expr(pipeline.training.label).cast("double").alias("label")
        labels = source.select(entity_id_column(pipeline.entity.key).alias(ENTITY_ID), label).distinct()
        # An entity with two different outcomes has none.
        once = labels.groupBy(ENTITY_ID).agg(F.max("label").alias("label"), F.count(F.lit(1)).alias("n")).where("n = 1")
        scored = read(PREDICTIONS).where(f"status = '{SCORED}'")
        predictions = scored.select(ENTITY_ID, F.col(earlier.outputs[0].name).alias("prediction"))
        features = read(FEATURES).select(ENTITY_ID, *columns)
        joined = predictions.join(features, ENTITY_ID).join(once.drop("n"), ENTITY_ID, "left").drop(ENTITY_ID)
        return joined.toArrow()
