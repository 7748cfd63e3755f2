"""`python -m benchmarks.scoring_paths WHAT FOLDER ROWS`: beside the peers' packages; answers in JSON."""

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import scoring_rows as made
from benchmarks.accounts import KEY, NAME, NUMBERS, SCORED_FOR, WORDS
from benchmarks.memory import cpu_seconds, session_pids
from jobs.bundles import proven_bundle
from jobs.matrix import feature_columns
from schemas.declared import load_pipeline
from schemas.run import RunManifest
from schemas.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.stages import Plan

_ROUNDS = 4  # of which the first warms up
_MODEL_ROWS = 200_000
_CORES = 2
_CHANGED = 0.02  # of the rows
_MANY_LEAVES = 300  # more than the kernel covers
_READ_ROWS = 300_000  # as many as the short way takes of these rows at once


def main() -> None:
    what, root, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if os.getsid(0) != os.getpid():
        os.setsid()  # what it starts is known by its session
    spark = _session()
    try:
        answer = _MEASURED[what](spark, root, rows)
    finally:
        spark.stop()
    sys.stdout.write(json.dumps({"rows": rows, **answer}) + "\n")


def _session() -> "SparkSession":
    from pyspark.sql import SparkSession

    from jobs.session import spark_session

    properties = (Path(__file__).parent.parent / "spark-conf" / "local.properties").read_text()
    conf = Path("two-cores.properties").resolve()
    conf.write_text(properties.replace("spark.master local[*]", f"spark.master local[{_CORES}]"))
    os.environ["ALMANAC_SPARK_CONF"] = str(conf)
    spark: SparkSession = spark_session("almanac benchmark", log=Path("spark.log"))
    return spark


def _trained(spark: "SparkSession", settings: Settings) -> "Plan":
    from jobs.training import train

    train(spark, settings, load_pipeline(settings, NAME))
    return _planned(settings)


def _planned(settings: Settings) -> "Plan":
    from jobs.stages import check_inputs

    return check_inputs(settings, NAME, SCORED_FOR)


def _ours(plan: "Plan", spark: "SparkSession") -> RunManifest:
    from jobs.stages import score

    shutil.rmtree(plan.store.run_folder(plan.run_id), ignore_errors=True)
    return score(plan, lambda: spark)


def _once(spark: "SparkSession", root: Path, rows: int) -> dict[str, Any]:
    manifest = _ours(_trained(spark, made.declare(root, rows)), spark)
    return {"way": _way(manifest), "scored": manifest.counts.scored}


def _way(manifest: RunManifest) -> str:
    return f"the {manifest.way.name} way" if manifest.way else "the long way"


def _paths(spark: "SparkSession", root: Path, rows: int) -> dict[str, Any]:
    plan = _trained(spark, made.declare(root, rows))
    source, out = made.source(root), root / "out"
    frame = spark.read.parquet(str(source)).select(KEY, *NUMBERS, *WORDS)
    from benchmarks.scoring_peers import saved_model, spark_udf, threads, transport

    model = saved_model(plan.bundle, root / "model")
    paths: Mapping[str, Callable[[], object]] = {
        "ours": lambda: _ours(plan, spark),
        "spark_udf": lambda: spark_udf(spark, frame, model, out),
        "transport": lambda: transport(frame, out),
        "threads": lambda: threads(plan.bundle, source, out, _CORES),
    }
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    cores: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(_ROUNDS):
        for name, path in paths.items():
            shutil.rmtree(out, ignore_errors=True)
            used, started = _cpu(), time.perf_counter()
            path()
            seconds[name].append(round(time.perf_counter() - started, 3))
            cores[name].append(round(_cpu() - used, 1))
            sys.stderr.write(f"{name} {seconds[name][-1]} s, CPU {cores[name][-1]} s\n")
    manifest = _ours(plan, spark)
    engines = ", ".join(manifest.parity[0].engines)
    measured = {"seconds": seconds, "cpu": cores}
    kept = {what: {name: taken[1:] for name, taken in each.items()} for what, each in measured.items()}
    return {**kept, "engine": engines, "way": _way(manifest)}


def _cpu() -> float:
    """CPU seconds of this process, its JVM and their workers."""
    return cpu_seconds(session_pids(os.getpid()))


def _model(spark: "SparkSession", root: Path, rows: int) -> dict[str, Any]:  # noqa: ARG001  # as the others
    plan = _trained(spark, made.declare(root, _MODEL_ROWS))
    table = pa.concat_tables(pq.read_table(path, partitioning=None) for path in sorted(made.source(root).iterdir()))
    bundle, _ = proven_bundle(plan.bundle.folder, plan.bundle.digest)
    columns = feature_columns(bundle.manifest.features, table.combine_chunks(), model=bundle.id)
    matrix = np.column_stack(columns)
    import lightgbm

    booster = lightgbm.Booster(model_str=(bundle.folder / bundle.manifest.model_file).read_text(encoding="utf-8"))
    taken: dict[str, list[float]] = {"library": [], "kernel": []}
    for _ in range(_ROUNDS):
        started = time.process_time()
        expected = np.asarray(booster.predict(matrix, num_threads=1))
        between = time.process_time()
        found = bundle.engine.predict(columns)
        taken["library"].append(between - started)
        taken["kernel"].append(time.process_time() - between)
        if not np.array_equal(expected.view(np.int64), found.view(np.int64)):
            raise AssertionError("the kernel differs from the library")
    return {"rows": _MODEL_ROWS, "engine": bundle.engine.name, **{name: each[1:] for name, each in taken.items()}}


def _routes(spark: "SparkSession", root: Path, rows: int) -> dict[str, Any]:
    settings = made.declare(root / "both", rows, routed=True)
    both = _trained(spark, settings)
    plans = {"both": both}
    for variant, bundle in both.lineup:
        name = "second" if variant == made.ROUTE else "first"
        plans[name] = _planned(made.alone(root / name, settings, variant, bundle.id))
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    read, ways = [], set()
    for _ in range(_ROUNDS):
        for name, plan in plans.items():
            started = time.perf_counter()
            ways.add(_way(_ours(plan, spark)))
            seconds[name].append(round(time.perf_counter() - started, 3))
        started = time.perf_counter()
        _read(spark, made.source(root / "both"))
        read.append(time.perf_counter() - started)
    told = {"read": round(statistics.median(read[1:]), 3), "way": ", ".join(sorted(ways))}
    return {name: each[1:] for name, each in seconds.items()} | told


def _read(spark: "SparkSession", source: Path) -> None:
    """Read the files as the short way does: a task each, with pyarrow."""
    paths = sorted(map(str, source.iterdir()))
    spark.sparkContext.parallelize(paths, len(paths)).foreach(_read_file)


def _read_file(path: str) -> None:
    with pq.ParquetFile(path, read_dictionary=WORDS, buffer_size=1 << 20) as parquet:
        for _ in parquet.iter_batches(_READ_ROWS, columns=[KEY, *NUMBERS, *WORDS], use_threads=False):
            pass


def _reuse(spark: "SparkSession", root: Path, rows: int, *, leaves: int | None = None) -> dict[str, Any]:
    """Rows of which few changed since a run, scored by reuse of that run and in full, in turns."""
    settings = made.declare(root, rows, reused=True, leaves=leaves)
    _ours(_trained(spark, settings), spark)
    made.change(root, _CHANGED)
    plan = _planned(settings)
    models = plan.declared.pipeline.models.model_copy(update={"reuse": None})
    pipeline = plan.declared.pipeline.model_copy(update={"models": models})
    plans = {"full": replace(plan, declared=replace(plan.declared, pipeline=pipeline)), "reusing": plan}
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    cores: dict[str, list[float]] = {name: [] for name in plans}
    manifests = {}
    for _ in range(_ROUNDS):
        for name, each in plans.items():
            used, started = _cpu(), time.perf_counter()
            manifests[name] = _ours(each, spark)
            seconds[name].append(round(time.perf_counter() - started, 3))
            cores[name].append(round(_cpu() - used, 1))
            sys.stderr.write(f"{name} {seconds[name][-1]} cpu {cores[name][-1]}\n")
    if manifests["full"].content != manifests["reusing"].content:
        raise AssertionError("reuse leaves other predictions than scoring all rows")
    reused = manifests["reusing"].reused
    told = {
        "way": _way(manifests["reusing"]),
        "engine": ", ".join(manifests["full"].parity[0].engines),
        "reused": reused.model_dump() if reused else None,
    }
    taken = {"seconds": seconds, "cpu": cores}
    return {what: {name: each[1:] for name, each in of.items()} for what, of in taken.items()} | told


_MEASURED: Mapping[str, Callable[["SparkSession", Path, int], dict[str, Any]]] = {
    "paths": _paths,
    "model": _model,
    "routes": _routes,
    "once": _once,
    "reuse": _reuse,
    "reuse-library": partial(_reuse, leaves=_MANY_LEAVES),
}


if __name__ == "__main__":
    main()
