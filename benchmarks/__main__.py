"""`python -m benchmarks`: one JSON line a figure on standard output, progress on standard error."""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.catalog import CATALOG
from benchmarks.figure import Benchmark, Compared, Figure, Measured, Unmeasurable
from benchmarks.page import conditions, page, write
from benchmarks.records import Record, read_records, write_records
from benchmarks.workplace import MeasurementError, Workplace

_ENTITIES = 2_000_000


def main() -> None:
    """Measure; exit code 1 where a measurement failed. A missed bar is told, and is not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the figures and measure nothing")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        metavar="NAME",
        help="figures with NAME in their name; the page keeps what it has of the others",
    )
    parser.add_argument(
        "--entities",
        type=int,
        default=_ENTITIES,
        metavar="N",
        help=f"of the figures of the lookup and of verification; other than {_ENTITIES:,}, the page stays as it is",
    )
    chosen = parser.parse_args()
    benchmarks = _select(chosen.only)
    if not benchmarks:
        parser.error(f"no figure has {' or '.join(chosen.only)} in its name; --list names them")
    if chosen.list:
        for figure in (figure for benchmark in benchmarks for figure in benchmark.figures):
            sys.stdout.write(f"{figure.name:<28}{figure.what}\n")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that its servers are stopped
    before = conditions()
    measured, failed = _measure_all(benchmarks, entities=chosen.entities)
    if chosen.entities == _ENTITIES:
        _keep(measured, before)
    sys.exit(1 if failed else 0)


def _keep(measured: Sequence[Measured], before: str) -> None:
    """Record what was measured, beside what is known of the other figures, and write the page."""
    records = read_records()
    for one in measured:
        if one.samples:
            records[one.figure.name] = Record(samples=one.samples, peers=one.peers, note=one.note, at=before)
    figures = [figure for benchmark in CATALOG for figure in benchmark.figures]
    write_records({figure.name: records[figure.name] for figure in figures if figure.name in records})
    write(page(figures, records))


def _select(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks with a figure of such a name, and of each those figures only."""

    def wanted(figure: Figure) -> bool:
        return any(name in figure.name for name in names)

    selected = (Benchmark(one.measure, tuple(filter(wanted, one.figures))) for one in CATALOG)
    return [benchmark for benchmark in selected if benchmark.figures]


def _measure_all(benchmarks: Sequence[Benchmark], *, entities: int) -> tuple[list[Measured], bool]:
    """What was measured, and whether a command failed; one failure does not cost the other figures."""
    measured: list[Measured] = []
    failed = False
    with tempfile.TemporaryDirectory(prefix="almanac-bench-", ignore_cleanup_errors=True) as folder:
        place = Workplace(Path(folder), entities=entities)
        for benchmark in benchmarks:
            names = ", ".join(figure.name for figure in benchmark.figures)
            _tell(f"measuring {names}")
            started = time.monotonic()
            try:
                found = list(_measure(benchmark, place))
            except (MeasurementError, Unmeasurable) as err:
                failed = failed or isinstance(err, MeasurementError)
                found = [Measured(figure=figure, note=str(err)) for figure in benchmark.figures]
                _tell(f"  not measured: {err}")
            for one in found:
                sys.stdout.write(json.dumps(one.line()) + "\n")
                sys.stdout.flush()
            measured += found
            _tell(f"  {time.monotonic() - started:.0f} s")
    return measured, failed


def _measure(benchmark: Benchmark, place: Workplace) -> Iterator[Measured]:
    samples = benchmark.measure(place)
    for figure in benchmark.figures:
        found = samples[figure.name]
        compared = found if isinstance(found, Compared) else Compared(found)
        yield Measured(figure=figure, samples=compared.ours, peers=compared.peers, note=compared.note)


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
