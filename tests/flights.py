"""A small copy of the flights pipeline: 60 flights a day of ten days, so that a test trains in a second."""

import datetime as dt
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.settings import Settings

FIRST_DAY = dt.date(2013, 1, 1)
DAYS = 20
PER_DAY = 60
_PIPELINES = Path(__file__).parent.parent / "dags"


def make_workspace(root: Path, *, store: Path | None = None) -> Settings:
    """The flights pipeline with generated sources under `root`, trained on a fortnight."""
    folder = root / "dags" / "flight_delay"
    shutil.copytree(_PIPELINES / "flight_delay", folder)
    with_champion_alone(folder / "pipeline.yaml")
    rewrite(
        folder / "pipeline.yaml",
        ("${ALMANAC_DEMO_DATA:-data/nycflights13}", "data"),
        ("start: 2013-07-01\ntags", "start: 2013-01-01\ntags"),
        ("start: 2013-01-01\n  end: 2013-07-31", "start: 2013-01-01\n  end: 2013-01-14"),
        ("at: 2013-07-01}", "at: 2013-01-11}"),
        ("window_days: 366", "window_days: 7"),
        ("rounds: 300", "rounds: 20"),
        ("min_data_in_leaf: 100", "min_data_in_leaf: 5"),
        ("floors: {auc: 0.74}", "floors: {auc: 0.55}"),
        ("min: 500", "min: 50"),
        ("min_rows: 100", "min_rows: 20"),
        # Four days are held out, and early runs score days that the model has seen: that alone moves the scores.
        ("scores: {warn: 0.15, fail: 1}", "scores: {warn: 1, fail: 2}"),
    )
    rewrite(folder / "expectations.yaml", ("min_value: 500", "min_value: 50"), ("max_value: 0.6}", "max_value: 0.95}"))
    write_sources(root / "data")
    return Settings(pipelines=root / "dags", store=store or root / "store")


def with_champion_alone(path: Path) -> None:
    """Take routes and challengers out of the declaration."""
    before, _, rest = path.read_text().partition("  routes:")
    path.write_text(before + rest[rest.index("\ntraining:") :])


def rewrite(path: Path, *changes: tuple[str, str]) -> None:
    """Replace each text that stands in the file, and fail where it does not."""
    text = path.read_text()
    for old, new in changes:
        assert old in text, f"{old!r} is not in {path.name}"
        text = text.replace(old, new)
    path.write_text(text)


def write_sources(data: Path) -> None:
    """Flights whose delay follows from wind and hour, weather, planes and airports."""
    draw = random.Random(20130101)  # data, not a secret
    for offset in range(DAYS):
        day = FIRST_DAY + dt.timedelta(days=offset)
        wind = {hour: draw.uniform(0, 40) for hour in range(24)}
        write_partition(data / "flights", day, [_flight(draw, number, wind) for number in range(PER_DAY)], FLIGHTS)
        hours = [
            {"origin": origin, "hour": h, **_weather(draw, wind[h])} for origin in ("EWR", "JFK", "LGA") for h in wind
        ]
        write_partition(data / "weather", day, hours, WEATHER)
    planes = [{"tailnum": f"N{n}", "year": 1990 + n % 20, "seats": 50 + n, "manufacturer": "AIRBUS"} for n in range(40)]
    write_whole(data / "planes", planes, PLANES)
    write_whole(data / "airports", [{"faa": faa, "lat": 40.0, "lon": -70.0} for faa in ("BOS", "ORD", "SFO")], AIRPORTS)


FLIGHTS = pa.schema(
    [
        ("carrier", pa.string()), ("flight", pa.int64()), ("tailnum", pa.string()), ("origin", pa.string()),
        ("dest", pa.string()), ("distance", pa.int64()), ("sched_dep_time", pa.int64()), ("sched_arr_time", pa.int64()),
        ("dep_time", pa.int64()), ("dep_delay", pa.int64()), ("arr_time", pa.int64()), ("arr_delay", pa.int64()),
        ("air_time", pa.int64()),
    ]
)  # fmt: skip
WEATHER = pa.schema(
    [("origin", pa.string()), ("hour", pa.int64()), ("wind_dir", pa.int64())]
    + [
        (name, pa.float64())
        for name in ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    ]
)
PLANES = pa.schema(
    [("tailnum", pa.string()), ("year", pa.int64()), ("seats", pa.int64()), ("manufacturer", pa.string())]
)
AIRPORTS = pa.schema([("faa", pa.string()), ("lat", pa.float64()), ("lon", pa.float64())])


def write_partition(source: Path, day: dt.date, rows: list[dict[str, object]], schema: pa.Schema) -> Path:
    folder = source / f"date={day}"
    write_whole(folder, rows, schema)
    return folder


def write_whole(folder: Path, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "part-0.parquet")


def _flight(draw: random.Random, number: int, wind: dict[int, float]) -> dict[str, object]:
    hour = draw.randrange(5, 23)
    delay = int(wind[hour] + draw.gauss(0, 8) - 10)
    return {
        "carrier": draw.choice(("UA", "AA", "B6")),
        "flight": 1000 + number,
        "tailnum": f"N{draw.randrange(50)}",
        "origin": draw.choice(("EWR", "JFK", "LGA")),
        "dest": draw.choice(("BOS", "ORD", "SFO")),
        "distance": draw.randrange(150, 2600),
        "sched_dep_time": hour * 100 + 30,
        "sched_arr_time": (hour + 1) * 100,
        "arr_delay": None if draw.random() < 0.02 else delay,
    }


def _weather(draw: random.Random, wind: float) -> dict[str, object]:
    return {"temp": draw.uniform(20, 90), "wind_speed": wind, "precip": 0.0, "visib": 10.0, "pressure": 1012.0}
