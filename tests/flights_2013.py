"""The demo's real flights with the features of features.sql, joined by Arrow, so that no JVM is needed."""

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
NUMERIC = [
    "dep_minute", "arr_minute", "day_of_week", "distance", "departures_this_hour", "dest_lat", "dest_lon",
    "plane_age", "plane_seats", *WEATHER,
]  # fmt: skip
CATEGORICAL = ["carrier", "origin", "dest", "plane_maker"]
LABEL = "late"


def feature_rows(data: Path, start: dt.date, end: dt.date) -> pa.Table:
    """One row a flight of those days: date, the 22 features and whether it was late."""
    flights = _days(data / "flights", start, end)
    hour = pc.divide(flights["sched_dep_time"], 100)
    rows = flights.select(["date", "origin", "carrier", "dest", "tailnum", "distance"])
    columns = {
        "hour": hour,
        "dep_minute": _minute(flights["sched_dep_time"]),
        "arr_minute": _minute(flights["sched_arr_time"]),
        "day_of_week": pc.day_of_week(flights["date"]),
        LABEL: pc.fill_null(pc.greater(flights["arr_delay"], 15), True),
    }
    for name, values in columns.items():
        rows = rows.append_column(name, values)
    place = ["origin", "date", "hour"]
    busy = rows.group_by(place).aggregate([("carrier", "count")]).rename_columns([*place, "departures_this_hour"])
    weather = _days(data / "weather", start, end).group_by(place).aggregate([(name, "max") for name in WEATHER])
    planes = ds.dataset(data / "planes").to_table(columns=["tailnum", "year", "seats", "manufacturer"])
    airports = ds.dataset(data / "airports").to_table(columns=["faa", "lat", "lon"])
    rows = (
        rows.join(busy, place)
        .join(weather.rename_columns([*place, *WEATHER]), place)
        .join(planes.rename_columns(["tailnum", "built", "plane_seats", "plane_maker"]), "tailnum")
        .join(airports.rename_columns(["dest", "dest_lat", "dest_lon"]), "dest")
    )
    rows = rows.append_column("plane_age", pc.subtract(pc.year(rows["date"]), rows["built"]))
    numbers = {name: pc.cast(rows[name], pa.float64()) for name in NUMERIC}
    kept = {name: rows[name] for name in ("date", *CATEGORICAL, LABEL)} | numbers
    # The order of a join is not fixed; that of a random draw from it has to be.
    return pa.table(kept).sort_by([(name, "ascending") for name in kept]).combine_chunks()


def _days(folder: Path, start: dt.date, end: dt.date) -> pa.Table:
    partitions = ds.partitioning(pa.schema([("date", pa.date32())]), flavor="hive")
    day = ds.field("date")
    return ds.dataset(folder, partitioning=partitions).to_table(filter=(day >= start) & (day <= end))


def _minute(clock: pa.ChunkedArray) -> pa.ChunkedArray:
    """Minutes since midnight of 1545; 2400 is midnight."""
    hours = pc.divide(clock, 100)
    minutes = pc.subtract(clock, pc.multiply(hours, 100))
    return pc.add(pc.multiply(pc.if_else(pc.equal(hours, 24), 0, hours), 60), minutes)
