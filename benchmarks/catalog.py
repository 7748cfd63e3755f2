"""Every figure, and the measurement it comes from, in the order in which they are measured."""

from benchmarks.backfilling import backfill
from benchmarks.commands import STAGES, dag_import, live, run, train
from benchmarks.demo import demo_with_pip, demo_with_uv
from benchmarks.figure import Benchmark, Figure
from benchmarks.layouts import layouts
from benchmarks.memory import run_memory
from benchmarks.moving import retire, roll_back
from benchmarks.publishing import memory, publish, publish_in_tasks
from benchmarks.scoring import model_cpu, reuse, reuse_of_library, routes, score, worker_memory
from benchmarks.serving import against_feast, against_redis, while_publishing
from benchmarks.verifying import verify

_RUN = "`almanac run flight_delay --date 2013-07-01`, fresh process, fresh store"

_API = "read API, one worker, 64 connections"

_SCORING = (
    Benchmark(
        score,
        (
            Figure(
                name="score_rows_per_second",
                what="scoring Parquet to Parquet on two cores, LightGBM of 200 trees with categories, against "
                "`mlflow.pyfunc.spark_udf` in the workers' environment",
                bar=4,
                judged="ratio",
                sense="at least",
            ),
            Figure(
                name="score_transport_rows_per_second",
                what="the same against `mapInArrow` with no model at all",
                bar=0.9,
                judged="ratio",
                sense="at least",
            ),
            Figure(
                name="score_threads_rows_per_second",
                what="the same against pyarrow and LightGBM's threads on the same cores, without Spark",
                bar=2,
                judged="ratio",
                sense="at least",
            ),
        ),
    ),
    Benchmark(
        model_cpu,
        (
            Figure(
                name="model_cpu_ratio",
                what="rows a CPU second of the tree kernel, against `Booster.predict`, one thread each",
                bar=8,
                judged="ratio",
                sense="at least",
            ),
        ),
    ),
    Benchmark(
        routes,
        (
            Figure(
                name="score_routes_seconds",
                what="two routed models in one pass, against the sum of each alone on its rows, less one read, "
                "by pyarrow as theirs are",
                bar=1.2,
                judged="ratio",
            ),
        ),
    ),
    Benchmark(
        reuse,
        (
            Figure(
                name="score_reuse_seconds",
                what="scoring rows of which 2 % changed since a run, with `models.reuse` against without",
                bar=0.25,
                judged="ratio",
                why="reuse saves the model's work, which the kernel has made a fifth of a run's; reading the rows, "
                "sorting them and writing the same feature files stay, and are more than the bar by themselves",
            ),
        ),
    ),
    Benchmark(
        reuse_of_library,
        (
            Figure(
                name="score_reuse_library_seconds",
                what="the same with trees of 300 leaves, which the kernel does not cover and LightGBM itself scores",
                bar=0.25,
                judged="ratio",
            ),
        ),
    ),
    Benchmark(
        worker_memory,
        (
            Figure(
                name="score_worker_mib",
                what="peak memory of a Python worker that scores 8,000,000 rows, against 1,000,000",
                bar=1.1,
                judged="ratio",
            ),
        ),
    ),
)

_LOOKUP = (
    Benchmark(
        publish,
        (
            Figure(
                name="publish_entities_per_second",
                what="loading a version from Parquet in one process, against `redis-cli --pipe` of a SET an entity",
                bar=3,
                judged="ratio",
                sense="at least",
            ),
        ),
    ),
    Benchmark(
        publish_in_tasks,
        (
            Figure(
                name="publish_spark_entities_per_second",
                what="the same in Spark tasks, against Feast's `write_to_online_store`",
                bar=50,
                judged="ratio",
                sense="at least",
            ),
        ),
    ),
    Benchmark(
        memory,
        (
            Figure(
                name="memory_bytes_per_entity",
                what="Redis's memory for an entity with a score and its route, against Feast's",
                bar=37,
            ),
        ),
    ),
    Benchmark(
        layouts,
        (
            Figure(
                name="memory_string_bytes_per_entity",
                what="Redis's memory for an entity in the layout `string`, against `bucket`",
                judged="ratio",
            ),
            Figure(
                name="read_string_batches_per_second",
                what="100 ids in a batch, the reader for threads, in the layout `string`, against `bucket`",
                judged="ratio",
                sense="at least",
            ),
        ),
    ),
    Benchmark(
        against_redis,
        (
            Figure(
                name="api_redis_lookups_per_second",
                what=f"{_API}: one id, against redis-benchmark's GET with as many connections",
                bar=0.35,
                judged="ratio",
                sense="at least",
            ),
        ),
    ),
    Benchmark(
        against_feast,
        (
            Figure(
                name="api_lookups_per_second",
                what=f"{_API}: one id, against `feast serve` with one worker",
                bar=60,
                judged="ratio",
                sense="at least",
            ),
            Figure(name="api_lookup_p50_ms", what="of these, half are answered within"),
            Figure(name="api_lookup_p99_ms", what="and 99 of 100 within"),
            Figure(
                name="api_batches_per_second",
                what=f"{_API}: 100 ids in a request, against `feast serve` with one worker",
                bar=40,
                judged="ratio",
                sense="at least",
            ),
            Figure(name="api_batch_p50_ms", what="of these, half are answered within"),
            Figure(name="api_batch_p99_ms", what="and 99 of 100 within"),
        ),
    ),
    Benchmark(
        while_publishing,
        (
            Figure(
                name="api_publishing_p99_ms",
                what=f"{_API} at a steady pace: 99 of 100 within, while versions are loaded, against none being loaded",
                bar=1.5,
                judged="ratio",
            ),
            Figure(
                name="api_publishing_full_p99_ms",
                what="the same as fast as it answers, so that all that runs shares the machine's cores",
            ),
        ),
    ),
    Benchmark(retire, (Figure(name="retire_seconds", what="removing a version from Redis", bar=0.2),)),
    Benchmark(
        roll_back,
        (
            Figure(name="rollback_few_seconds", what="rolling back a release of 10,000 entities", bar=1),
            Figure(name="rollback_many_seconds", what="rolling back a release of all entities", bar=1),
        ),
    ),
)

CATALOG = (
    Benchmark(train, (Figure(name="train_seconds", what="`almanac train flight_delay`"),)),
    Benchmark(
        run,
        (
            Figure(name="run_seconds", what=f"{_RUN}: the whole process", bar=60),
            *(Figure(name=f"run_{stage}_seconds", what=f"{_RUN}: `{stage}`") for stage in STAGES),
            Figure(name="run_outside_stages_seconds", what="the rest of it: Python's imports, the end of the JVM"),
        ),
    ),
    Benchmark(
        backfill,
        (
            Figure(
                name="backfill_seconds",
                what="`almanac backfill flight_delay --from 2013-02-01 --to 2013-12-30`, 333 dates of a fresh store",
            ),
            Figure(
                name="backfill_dates_per_second",
                what="of it, dates scored, verified and archived in a second",
                sense="at least",
            ),
            Figure(name="backfill_planned_seconds", what="the same with `--dry-run` behind it: what is left, and why"),
        ),
    ),
    Benchmark(
        run_memory,
        (
            Figure(name="run_driver_mib", what="peak memory of that run: the driver's Python"),
            Figure(name="run_jvm_mib", what="peak memory of that run: the JVM, driver and executor in one"),
            Figure(name="run_workers_mib", what="peak memory of that run: all Python workers together"),
            Figure(name="run_worker_mib", what="peak memory of that run: the largest Python worker"),
            Figure(name="run_all_mib", what="peak memory of that run: all of these at one moment"),
        ),
    ),
    Benchmark(
        live,
        (
            Figure(name="rerun_seconds", what="the same run once more: nothing is left to do, no JVM starts"),
            Figure(name="lookup_seconds", what="`almanac lookup flight_delay ID`, the whole process"),
            Figure(name="rollback_seconds", what="`almanac rollback flight_delay`, the whole process", bar=1),
            Figure(name="rollback_step_seconds", what="of it, the rollback: checks, log entry, flip", bar=1),
            Figure(name="rollback_flip_seconds", what="of that, the flip, as Redis itself counts it", bar=1),
        ),
    ),
    Benchmark(
        dag_import,
        (
            Figure(
                name="dag_import_seconds",
                what="importing `dags/scoring.py` with one pipeline, after `airflow.sdk` and the Spark operator",
                bar=0.1,
            ),
        ),
    ),
    Benchmark(
        verify,
        (
            Figure(
                name="verify_ratio",
                what="the seconds of verifying what was scored, to those of scoring it",
                bar=0.25,
            ),
            Figure(
                name="gx_alone_seconds",
                what="the same suites by Great Expectations' `batch.validate` on the same Spark frames",
            ),
        ),
    ),
    *_SCORING,
    *_LOOKUP,
    Benchmark(
        demo_with_uv,
        (Figure(name="demo_uv_seconds", what="clone and `make demo`, installed by uv, caches empty", bar=300),),
    ),
    Benchmark(
        demo_with_pip,
        (Figure(name="demo_pip_seconds", what="clone and `make demo`, installed by pip, caches empty", bar=300),),
    ),
)
