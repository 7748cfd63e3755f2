"""A feed that only appends corrects itself: of several rows of one key, the newest counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.stages import check_inputs, score
from jobs.training import train
from lookup.store import Store
from schemas.declared import load_pipeline
from schemas.errors import DeclarationError
from schemas.run import FEATURES, RunManifest
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import DATE, PIPELINE, flight_id, flights_file

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.fixture
def corrected(settings: Settings) -> Settings:
    """The pipeline whose flights say when they were written, in a column that a later row corrects them by."""
    for file in (settings.root / "data" / "flights").glob("*/*.parquet"):
        table = pq.read_table(file, partitioning=None)
        pq.write_table(table.append_column("written", pa.array([1] * table.num_rows, pa.int64())), file)
    declare(settings, "    corrections: {by: written}\n")
    return settings


def declare(settings: Settings, line: str) -> None:
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("    forbidden: [dep", f"{line}    forbidden: [dep"))


def append(settings: Settings, *rows: tuple[int, int, int | None]) -> None:
    """A second file of the day: of these flights another distance, written then."""
    table = pq.read_table(flights_file(settings), partitioning=None)
    late = table.take([index for index, _, _ in rows])
    for name, values in (("distance", [each[1] for each in rows]), ("written", [each[2] for each in rows])):
        late = late.set_column(late.schema.get_field_index(name), name, pa.array(values, pa.int64()))
    pq.write_table(late, flights_file(settings).with_name("part-1.parquet"))


def scored(settings: Settings, spark: "SparkSession") -> tuple[RunManifest, dict[str, float]]:
    """The run of the day, and each flight's distance as the model saw it."""
    manifest = score(check_inputs(settings, PIPELINE, DATE), lambda: spark)
    folder = Store(settings.store, PIPELINE).run_folder(manifest.run_id) / FEATURES
    rows = pq.read_table(folder, columns=["entity_id", "distance"]).to_pylist()
    return manifest, {row["entity_id"]: row["distance"] for row in rows}


def test_the_newest_row_of_an_entity_is_scored_whatever_the_order_of_files(
    corrected: Settings, session: "SparkSession"
) -> None:
    append(corrected, (0, 777, 2), (1, 888, 0), (2, 999, None))

    manifest, distances = scored(corrected, session)

    before = pq.read_table(flights_file(corrected), partitioning=None).column("distance").to_pylist()
    flights = [flight_id(corrected, index) for index in range(3)]
    assert [distances[flight] for flight in flights] == [777, before[1], before[2]]
    counts = manifest.counts
    assert (counts.entities, counts.scored, counts.superseded, counts.collapsed) == (420, 420, 3, 0)


def test_two_newest_rows_that_differ_are_set_aside_and_a_row_without_a_key_is_not_lost(
    corrected: Settings, session: "SparkSession"
) -> None:
    append(corrected, (0, 777, 2), (0, 778, 2), (1, 888, 2))
    second = flights_file(corrected).with_name("part-1.parquet")
    table = pq.read_table(second, partitioning=None)
    keyless = pa.array([*table.column("carrier").to_pylist()[:2], None], pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("carrier"), "carrier", keyless), second)

    counts = scored(corrected, session)[0].counts

    assert counts.reasons == {"duplicate_key": 2, "null_key": 1}
    assert (counts.scored, counts.quarantined, counts.superseded) == (419, 2, 1)


def test_any_source_may_correct_itself_by_a_key_of_its_own(settings: Settings, session: "SparkSession") -> None:
    day = settings.root / "data" / "weather" / f"date={DATE}" / "part-0.parquet"
    table = pq.read_table(day, partitioning=None)
    late = table.set_column(table.schema.get_field_index("temp"), "temp", pa.array([-40.0] * table.num_rows))
    for name, rows, written in (("part-0", table, 2), ("part-1", late, 1)):
        pq.write_table(
            rows.append_column("written", pa.array([written] * rows.num_rows)), day.with_name(f"{name}.parquet")
        )
    for other in set((settings.root / "data" / "weather").glob("*/*.parquet")) - set(day.parent.iterdir()):
        rows = pq.read_table(other, partitioning=None)
        pq.write_table(rows.append_column("written", pa.array([1] * rows.num_rows)), other)
    weather = "  weather: # observed here; it stands in for the forecast that a real run would read\n"
    own = "    corrections: {by: written, key: [origin, date, hour]}\n"
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", (weather, weather + own))

    manifest, _ = scored(settings, session)

    folder = Store(settings.store, PIPELINE).run_folder(manifest.run_id) / FEATURES
    assert min(pq.read_table(folder, columns=["temp"]).column("temp").to_pylist()) > 0
    assert manifest.counts.superseded == 0  # it counts entities' rows


def test_a_model_learns_from_the_newest_rows(corrected: Settings, session: "SparkSession") -> None:
    before = train(session, corrected, load_pipeline(corrected, PIPELINE)).bundle.manifest.training
    append(corrected, (0, 777, 2), (1, 888, 2))
    after = train(session, corrected, load_pipeline(corrected, PIPELINE)).bundle.manifest.training
    assert (after.rows, after.holdout_rows) == (before.rows, before.holdout_rows)
    assert after.snapshot != before.snapshot


BAD: Sequence[Any] = [
    (
        "    corrections: {by: writen}\n",
        r"sources\.flights\.corrections: A column, variable, or function parameter with name `writen` cannot be",
    ),
    ("    corrections: {by: written, key: [carier]}\n", r"sources\.flights\.corrections: .*`carier`"),
    ("    corrections: {key: [carrier]}\n", r"sources\.flights\.corrections\.by: is missing; expected a value"),
    ("    corrections: {by: written, keys: [carrier]}\n", r"corrections\.keys: unknown key; did you mean 'key'"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_corrections_that_name_no_column_are_told_with_their_place(
    settings: Settings, session: "SparkSession", line: str, message: str
) -> None:
    for file in (settings.root / "data" / "flights").glob("*/*.parquet"):
        table = pq.read_table(file, partitioning=None)
        pq.write_table(table.append_column("written", pa.array([1] * table.num_rows, pa.int64())), file)
    declare(settings, line)
    with pytest.raises(DeclarationError, match=message):
        score(check_inputs(settings, PIPELINE, DATE), lambda: session)


def test_a_source_that_lists_no_entities_must_say_what_its_rows_are_of(settings: Settings) -> None:
    planes = "    columns: {tailnum: string, year"
    path: Path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, (planes, f"    corrections: {{by: written}}\n{planes}"))
    with pytest.raises(
        DeclarationError, match=r"sources\.planes\.corrections\.key: is missing: only the entity source"
    ):
        load_pipeline(settings, PIPELINE)
