"""The seconds of verification beside those of scoring, and of Great Expectations alone on the same rows."""

import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.accounts import (
    NAME,
    NUMBERS,
    SCORED_FOR,
    SEED,
    TRAINED_ON,
    TRAINING_ROWS,
    WORDS,
    features_sql,
    pipeline,
    write_yaml,
)
from benchmarks.figure import Compared, Samples
from benchmarks.workplace import MeasurementError, Workplace
from schemas.declared import load_pipeline
from schemas.report import Report, Verdict
from schemas.run import FEATURES, PREDICTIONS, RunManifest
from schemas.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.stages import Plan

_ROUNDS = 3
_VALUES = [f"value {index}" for index in range(12)]


def verify(place: Workplace) -> Samples:
    """Score and verify the same rows several times in one Spark session; then let Great Expectations judge them alone.

    The first verification pays for the import of Great Expectations, as each does in a run.
    """
    from jobs.session import spark_session

    settings = _declare(place.folder / "verifying", place.entity_count)
    spark = spark_session("almanac benchmark", log=place.folder / "verify-spark.log")
    try:
        plan = _trained(spark, settings)
        seconds = []
        for _ in range(_ROUNDS):
            shutil.rmtree(plan.store.run_folder(plan.run_id), ignore_errors=True)
            seconds.append(_round(plan, spark))
        alone = _alone(plan, spark)
    finally:
        spark.stop()
    rows = f"{place.entity_count:,} rows of {len(NUMBERS) + len(WORDS)} features"
    told = ", ".join(f"{after:.1f} s after {before:.1f} s" for before, after in seconds)
    return {
        "verify_ratio": Compared([round(after / before, 3) for before, after in seconds], (), f"{rows}: {told}"),
        "gx_alone_seconds": Compared([round(alone, 1)], (), f"{rows}; behind its import"),
    }


def _round(plan: "Plan", spark: "SparkSession") -> tuple[float, float]:
    """The seconds of scoring, and of verifying what was scored."""
    from jobs.stages import score
    from jobs.verification import verify as verify_run

    started = time.perf_counter()
    manifest: RunManifest = score(plan, lambda: spark)
    scored = time.perf_counter()
    report: Report = verify_run(plan, manifest, lambda: spark)
    seconds = scored - started, time.perf_counter() - scored
    if report.verdict is Verdict.FAIL:
        failed = "; ".join(f"{check.name}: {check.observed}" for check in report.failures)
        raise MeasurementError(f"the rows that were made up do not pass: {failed}")
    return seconds


def _alone(plan: "Plan", spark: "SparkSession") -> float:
    """The seconds of `batch.validate` of both suites, as Great Expectations' own documentation does it."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    from validation.gx_suite import build

    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    folder, suites = plan.store.run_folder(plan.run_id), plan.declared.suites
    started = time.perf_counter()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    for name, declared, part in (("i", suites.inputs, FEATURES), ("p", suites.predictions, PREDICTIONS)):
        asset = context.data_sources.add_spark(name).add_dataframe_asset(name)
        frame = spark.read.parquet(str(folder / part))
        batch = asset.add_batch_definition_whole_dataframe(name).get_batch(batch_parameters={"dataframe": frame})
        built = [build(expectation, index) for index, expectation in enumerate(declared)]
        answer = batch.validate(gx.ExpectationSuite(name=name, expectations=built), result_format="SUMMARY")
        frame.unpersist()
        if len(answer.results) != len(built):
            raise MeasurementError(f"Great Expectations evaluated {len(answer.results)} of {len(built)} expectations")
    return time.perf_counter() - started


def _trained(spark: "SparkSession", settings: Settings) -> "Plan":
    from jobs.stages import check_inputs
    from jobs.training import train

    train(spark, settings, load_pipeline(settings, NAME))
    return check_inputs(settings, NAME, SCORED_FOR)


def _declare(root: Path, rows: int) -> Settings:
    """A pipeline of 30 features with ten expectations a suite, and its rows: a day to train on, a day to score."""
    folder = root / "dags" / NAME
    folder.mkdir(parents=True)
    days = {TRAINED_ON: min(rows, TRAINING_ROWS), SCORED_FOR: rows}
    for date, count in days.items():
        _write(root / "data" / f"date={date}", count)
    # Computed, so that the rows go through Spark: a plain projection is scored in less time than its verification has.
    columns = [f"least({NUMBERS[0]}, 1e9D) AS {NUMBERS[0]}", *NUMBERS[1:], *WORDS]
    (folder / "features.sql").write_text(features_sql(columns))
    write_yaml(folder / "pipeline.yaml", _pipeline(root / "data"))
    suites = {"inputs": _inputs(rows), "predictions": _predictions(rows)}
    write_yaml(folder / "expectations.yaml", suites)
    return Settings(pipelines=root / "dags", store=root / "store")


def _write(folder: Path, rows: int) -> None:
    """A million rows at a time, of which a twentieth of the numbers is missing."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(SEED)
    for part, first in enumerate(range(0, rows, 1_000_000)):
        count = min(1_000_000, rows - first)
        numbers = {name: rng.normal(index, 3, count) for index, name in enumerate(NUMBERS)}
        late = (numbers[NUMBERS[0]] + rng.normal(0, 3, count) > 2).astype(np.int64)
        holes = {name: pa.array(values, mask=rng.random(count) < 0.05) for name, values in numbers.items()}
        words = {
            name: pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 12, count), pa.int8()), _VALUES).cast(
                "string"
            )
            for name in WORDS
        }
        account = pa.array(np.arange(first, first + count))
        pq.write_table(pa.table({"account": account, **holes, **words, "bought": late}), folder / f"{part}.parquet")


def _pipeline(data: Path) -> dict[str, Any]:
    declared = pipeline(data, key_type="int64", description="Made-up accounts that are scored and verified.")
    declared["training"]["floors"] = {"auc": 0.6}
    return declared | {"checks": {"entities": {"min": 1000}, "slices": {"columns": [WORDS[0]]}}}


def _expect(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs}


def _inputs(rows: int) -> list[dict[str, Any]]:
    return [
        _expect("table_row_count_to_be_between", min_value=rows // 2, max_value=rows * 2),
        _expect("column_values_to_be_in_set", column="c0", value_set=_VALUES),
        _expect("column_values_to_be_in_set", column="c1", value_set=_VALUES),
        _expect("column_unique_value_count_to_be_between", column="c2", min_value=5, max_value=20),
        _expect("column_value_lengths_to_be_between", column="c3", min_value=1, max_value=20),
        _expect("column_values_to_be_between", column="n00", min_value=-100, max_value=100),
        _expect("column_values_to_be_between", column="n01", min_value=-100, max_value=100),
        _expect("column_mean_to_be_between", column="n02", min_value=0, max_value=4),
        _expect("column_stdev_to_be_between", column="n03", min_value=1, max_value=5),
        _expect("column_values_to_not_be_null", column="n04", mostly=0.9),
    ]


def _predictions(rows: int) -> list[dict[str, Any]]:
    return [
        _expect("table_row_count_to_be_between", min_value=rows // 2, max_value=rows * 2),
        _expect("column_values_to_not_be_null", column="score"),
        _expect("column_values_to_be_between", column="score", min_value=0, max_value=1),
        _expect("column_mean_to_be_between", column="score", min_value=0.01, max_value=0.99),
        _expect("column_min_to_be_between", column="score", max_value=0.5),
        _expect("column_max_to_be_between", column="score", min_value=0.5),
        _expect("column_stdev_to_be_between", column="score", min_value=0.01),
        _expect("column_values_to_be_finite", column="score"),
        _expect("column_values_to_be_in_set", column="status", value_set=["scored"]),
        _expect("column_top_value_share_to_be_at_most", column="status", max_value=1),
        _expect("column_values_to_be_unique", column="entity_id"),
    ]
