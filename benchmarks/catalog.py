"""Every figure, and the measurement it comes from, in the order in which they are measured."""

from benchmarks.commands import STAGES, dag_import, live, run, train
from benchmarks.demo import demo_with_pip, demo_with_uv
from benchmarks.figure import Benchmark, Figure
from benchmarks.memory import run_memory

_RUN = "`almanac run flight_delay --date 2013-07-01`, fresh process, fresh store"

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
        demo_with_uv,
        (Figure(name="demo_uv_seconds", what="clone and `make demo`, installed by uv, caches empty", bar=300),),
    ),
    Benchmark(
        demo_with_pip,
        (Figure(name="demo_pip_seconds", what="clone and `make demo`, installed by pip, caches empty", bar=300),),
    ),
)
