"""Bulk scoring beside what else scores Parquet files on the same cores: rows a second, and the model's own CPU."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accounts import NUMBERS, WORDS
from benchmarks.figure import Compared, Samples
from benchmarks.memory import Peaks
from benchmarks.peer import environment_with_ours
from benchmarks.workplace import ROOT, Meanwhile, Workplace, environment, run_command

_TIMEOUT_SECONDS = 1500
_PEERS = {
    "score_rows_per_second": "spark_udf",
    "score_transport_rows_per_second": "transport",
    "score_threads_rows_per_second": "threads",
}


def score(place: Workplace) -> Samples:
    """Rows a second of ours and of each peer, all in one Spark application, in turns."""
    found = _child(place, "paths")
    rows, seconds = found["rows"], found["seconds"]
    ours = _rates(rows, seconds["ours"])
    told = "; ".join(
        f"{name} {', '.join(f'{each:.1f}' for each in taken)} s, CPU {min(found['cpu'][name]):.1f} s"
        for name, taken in seconds.items()
    )
    note = f"{rows:,} rows of {len(NUMBERS) + len(WORDS)} features, {found['way']}, {found['engine']}: {told}"
    return {
        figure: Compared(ours, _rates(rows, seconds[peer]), note if peer == "spark_udf" else "")
        for figure, peer in _PEERS.items()
    }


def model_cpu(place: Workplace) -> Samples:
    """The CPU seconds of the model alone on one thread, the library's against the kernel's; the bits are compared."""
    found = _child(place, "model")
    note = f"{found['rows']:,} rows in memory, {found['engine']}, equal bit for bit"
    return {
        "model_cpu_ratio": Compared(
            _rates(found["rows"], found["kernel"]), _rates(found["rows"], found["library"]), note
        )
    }


def routes(place: Workplace) -> Samples:
    """The seconds of two routed models in one pass, against the sum of each model alone less one read."""
    found = _child(place, "routes")
    alone = [first + second - found["read"] for first, second in zip(found["first"], found["second"], strict=True)]
    note = f"{found['rows']:,} rows, {found['way']}; one read is {found['read']:.2f} s"
    return {"score_routes_seconds": Compared(found["both"], alone, note)}


def reuse(place: Workplace) -> Samples:
    """The seconds of scoring rows of which 2 % changed, those that did not by reuse, against scoring all of them."""
    return {"score_reuse_seconds": _reused(_child(place, "reuse"))}


def reuse_of_library(place: Workplace) -> Samples:
    """The same with a model that the kernel does not cover."""
    return {"score_reuse_library_seconds": _reused(_child(place, "reuse-library"))}


def _reused(found: Any) -> Compared:
    reused, cpu = found["reused"], {name: min(taken) for name, taken in found["cpu"].items()}
    note = f"{found['rows']:,} rows, {reused['rows']:,} of them reused and {reused['audited']:,} audited, "
    note += f"{found['way']}, {found['engine']}; CPU {cpu['reusing']:.1f} s against {cpu['full']:.1f} s"
    return Compared(found["seconds"]["reusing"], found["seconds"]["full"], note)


def worker_memory(place: Workplace) -> Samples:
    """Peak memory of a Python worker while 8 million rows are scored, against 1 million."""
    found, peaks = {}, {}
    for rows in (1_000_000, 8_000_000):
        sampled = Peaks()
        found[rows] = _child(place, "once", rows=rows, meanwhile=sampled.follow)
        peaks[rows] = [round(sampled.kib["worker"] / 1024, 1)]
    few, many = peaks.values()
    return {"score_worker_mib": Compared(many, few, f"8,000,000 rows against 1,000,000, {found[8_000_000]['way']}")}


def _rates(rows: int, seconds: Sequence[float]) -> list[float]:
    return [round(rows / each, 1) for each in seconds]


def _child(place: Workplace, what: str, *, rows: int | None = None, meanwhile: Meanwhile = None) -> Any:
    """What `benchmarks/scoring_paths.py` found, run with the peers' packages beside ours."""
    folder = place.folder / f"scoring-{what}-{rows or place.entity_count}"
    folder.mkdir(exist_ok=True)
    python = environment_with_ours("bench-scoring") / "bin" / "python"
    # Two cores, whatever the machine has: the bars are for them.
    environ = {**environment(), "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    environ |= {name: os.environ[name] for name in ("JAVA_HOME",) if name in os.environ}
    command: list[str | Path] = [
        python,
        "-m",
        "benchmarks.scoring_paths",
        what,
        folder,
        str(rows or place.entity_count),
    ]
    ended = run_command(command, cwd=folder, environ=environ, timeout_seconds=_TIMEOUT_SECONDS, meanwhile=meanwhile)
    return json.loads(ended.out.strip().splitlines()[-1])
