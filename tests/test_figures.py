"""How the benchmarks judge a figure, and keep it."""

from pathlib import Path

import pytest

from benchmarks.catalog import CATALOG
from benchmarks.figure import Figure, Measured
from benchmarks.page import page
from benchmarks.records import Record, read_records, write_records

AT_MOST = Figure(name="retire_seconds", what="", bar=0.2)
RATIO = Figure(name="lookups_per_second", what="", bar=60, judged="ratio", sense="at least")


@pytest.mark.parametrize(
    ("measured", "met"),
    [
        (Measured(figure=AT_MOST, samples=[0.1, 0.2, 9]), True),
        (Measured(figure=AT_MOST, samples=[0.21]), False),
        (Measured(figure=AT_MOST, note="no Redis"), None),
        (Measured(figure=RATIO, samples=[600], peers=[9, 10, 20]), True),
        (Measured(figure=RATIO, samples=[599], peers=[10]), False),
        (Measured(figure=RATIO, samples=[600], note="no peer"), None),
        (Measured(figure=Figure(name="p50_ms", what=""), samples=[1], peers=[2]), None),
    ],
)
def test_a_bar_is_held_against_the_median_or_its_ratio_to_the_peers(measured: Measured, met: bool | None) -> None:
    assert measured.met is met


def test_a_figure_is_kept_as_it_was_measured_last_and_the_page_says_when(tmp_path: Path) -> None:
    first = Record(samples=[0.1], peers=[], note="quiet", at="Monday, commit a")
    second = Record(samples=[600.0, 500.0], peers=[10.0], note="", at="Tuesday, commit b")
    records = {"retire_seconds": first, "lookups_per_second": second}

    write_records(records, tmp_path / "records.json")

    assert read_records(tmp_path / "records.json") == records
    made = page([AT_MOST, RATIO, Figure(name="p50_ms", what="")], records)
    assert "| `retire_seconds` | 0.1 |  |  | ≤ 0.2 | yes |" in made
    assert "- Monday, commit a: `retire_seconds`" in made
    assert "- `lookups_per_second` misses its bar: 55 against ≥ 60 x" in made
    assert "- `p50_ms` was not measured: nobody has yet" in made


def test_every_figure_that_is_kept_is_one_of_the_catalog() -> None:
    assert set(read_records()) <= {figure.name for benchmark in CATALOG for figure in benchmark.figures}
