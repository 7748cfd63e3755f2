"""What came of an earlier release: its predictions, and its challengers', beside the labels that are known by now."""

import datetime as dt
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from jobs.dealing import OTHER
from jobs.features import read_source
from jobs.snapshot import take_snapshot
from jobs.stages import Plan
from lookup.store import Store
from schemas.bundle import Objective
from schemas.release import ReleaseState
from schemas.report import ContestOutcome
from schemas.run import ENTITY_ID, FEATURES, PREDICTIONS, SCORED, RunManifest
from validation.analysis import analysis_errors
from validation.contest import shadow_files
from validation.contest_outcome import Foreseen, measure_outcome
from validation.parity import Floats
from validation.quarantine import entity_id_column

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_SERVED = (ReleaseState.LIVE, ReleaseState.RETIRED, ReleaseState.ROLLED_BACK)


def earlier_run(store: Store, date: dt.date, after_days: int) -> RunManifest | None:
    """The newest run that was once live and is that many days older than `date`, or more."""
    return store.newest_run(date - dt.timedelta(days=after_days), _SERVED)


def outcomes(plan: Plan, earlier: RunManifest, spark: "SparkSession", columns: Collection[str]) -> pa.Table:
    """The scored entities of an earlier run: `prediction`, `label` (null where it is not known), and these columns.

    Of each challenger another column has what the model that did not serve the row predicts for it, where one does.

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
        joined = predictions.join(features, ENTITY_ID).join(once.drop("n"), ENTITY_ID, "left")
        for challenger in _challengers(earlier):
            files = [str(folder / file.path) for file in shadow_files(earlier, challenger)]
            if files:
                other = F.col(earlier.outputs[0].name).alias(OTHER + challenger)
                joined = joined.join(spark.read.parquet(*files).select(ENTITY_ID, other), ENTITY_ID, "left")
        return joined.drop(ENTITY_ID).toArrow()


def contest_outcomes(
    earlier: RunManifest,
    table: pa.Table,
    objective: Objective,
    *,
    by: Sequence[tuple[str, ...]],
    min_rows: int,
    confidence: float,
) -> tuple[ContestOutcome, ...]:
    """Each challenger of the earlier run against what would have served without it, by what `outcomes` found.

    Args:
        earlier: The run.
        table: Of `outcomes`, with the columns that are grouped by.
        objective: Of the models.
        by: What to group by.
        min_rows: Labels that a group needs.
        confidence: Of every interval.
    """
    served, label = _floats(table, "prediction"), _floats(table, "label")
    found = []
    for name in _challengers(earlier):
        if OTHER + name in table.column_names:
            other = _floats(table, OTHER + name)
            champion, challenger = (other, served) if earlier.counts.variants.get(name) else (served, other)
            foreseen = Foreseen(objective, champion, challenger, label)
            measured = measure_outcome(
                name, foreseen, run_id=earlier.run_id, table=table, by=by, min_rows=min_rows, confidence=confidence
            )
            found.append(measured)
    return tuple(found)


def _challengers(earlier: RunManifest) -> list[str]:
    """Those that were dealt rows; an audit of a funnel is dealt some too, and challenges nobody."""
    return [name for name in earlier.counts.dealt if name in earlier.challengers]


def _floats(table: pa.Table, name: str) -> Floats:
    return np.asarray(table.column(name).to_numpy(), dtype=np.float64)
