"""What tests of whole runs share: a run of the small flights pipeline, and changes of its sources."""

import datetime as dt
import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console as RichConsole

from jobs.console import Console
from jobs.running import Finished, run
from jobs.training import train
from lookup.connect import connect
from lookup.reader import Reader
from lookup.store import Store
from lookup.table import RedisTable
from schemas.answer import Answer
from schemas.binding import bound
from schemas.declared import load_pipeline
from schemas.run import RunManifest
from schemas.settings import Settings
from tests.flights import rewrite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DATE = dt.date(2013, 1, 5)
NEXT = dt.date(2013, 1, 6)
PIPELINE = "flight_delay"
CHAMPION = "models:\n  champion:\n    bundle: latest\n"
WEEK = 7 * 60  # flights that a run knows


def almanac(
    settings: Settings,
    date: dt.date = DATE,
    *,
    force: bool = False,
    parameters: Mapping[str, object] = MappingProxyType({}),
) -> Finished:
    quiet = Console(rich=RichConsole(file=io.StringIO()))
    return run(settings, PIPELINE, date, console=quiet, force=force, parameters=parameters)


def live_run(settings: Settings) -> str | None:
    """The live run, which the log and Redis agree on."""
    live = Store(settings.store, PIPELINE).live()
    with connect(str(settings.redis_url)) as client:
        head = RedisTable(client, PIPELINE).head()
    assert (head.run_id if head else None) == (live.run_id if live else None)
    return live.run_id if live else None


def look_up(settings: Settings, *ids: str) -> list[Answer]:
    with connect(str(settings.redis_url)) as client:
        return Reader(client, PIPELINE).lookup(ids)[1]


def flights_file(settings: Settings, day: dt.date = DATE) -> Path:
    return settings.root / "data" / "flights" / f"date={day}" / "part-0.parquet"


def flight_id(settings: Settings, index: int, day: dt.date = DATE) -> str:
    row = pq.read_table(flights_file(settings, day), partitioning=None).slice(index, 1).to_pylist()[0]
    return f"{row['carrier']}:{row['flight']}:{row['origin']}:{day}"


def change_rows(path: Path, change: "dict[str, list[object]]") -> None:
    table = pq.read_table(path, partitioning=None)
    for name, values in change.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    pq.write_table(table, path)


def column(path: Path, name: str) -> list[object]:
    return pq.read_table(path, partitioning=None).column(name).to_pylist()


def declare(settings: Settings, spark: "SparkSession", *models: str) -> None:
    """Declare these models beside the champion, and train all."""
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, (CHAMPION, CHAMPION + "".join(f"  {line}\n" for line in models)))
    train(spark, settings, bound(load_pipeline(settings, PIPELINE), {}))


def rows(settings: Settings, manifest: RunManifest, part: str) -> pa.Table:
    folder = Store(settings.store, PIPELINE).run_folder(manifest.run_id)
    return pa.concat_tables([pq.read_table(folder / file.path) for file in manifest.files_in(part)])
