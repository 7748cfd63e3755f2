import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookup.writer import write_rows
from schemas.checks import Slices
from schemas.errors import InputError
from validation.grouping import measure_slices
from validation.measures import Measures, Wanted, measure_pair, merge_measures, nothing_measured
from validation.profile import CategoryProfile, NumericProfile, profile_batches

ROWS = 150_000
WANTED = Wanted(
    output="score",
    private=frozenset({"entity_id", "flight"}),
    slices=Slices(columns=["origin", "flight"], pairs=[["origin", "month"]], positive_at=0.5),
)


@pytest.fixture(scope="module")
def rows() -> tuple[pa.Table, pa.Table]:
    generator = np.random.default_rng(1)
    ids = [f"UA:{number:06}" for number in range(ROWS)]
    features = {
        "entity_id": ids,
        "flight": [str(number % 100) for number in range(ROWS)],
        "origin": np.array(["EWR", "JFK", "LGA"])[generator.integers(0, 3, ROWS)],
        "month": generator.integers(1, 13, ROWS),
        "distance": generator.gamma(2, 500, ROWS),
    }
    predictions = {"entity_id": ids, "score": generator.beta(2, 5, ROWS), "status": ["scored"] * ROWS}
    return pa.table(predictions), pa.table(features)


@pytest.fixture(scope="module")
def pair(rows: tuple[pa.Table, pa.Table], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return written(tmp_path_factory.mktemp("run"), *rows)


def written(folder: Path, predictions: pa.Table, features: pa.Table) -> tuple[Path, Path]:
    for name, table in (("predictions", predictions), ("features", features)):
        write_rows(folder / name, "part-00000.parquet", table.schema, table.to_batches())
    return folder / "predictions" / "part-00000.parquet", folder / "features" / "part-00000.parquet"


def test_one_reading_measures_what_profiles_and_slices_of_the_rows_are(
    rows: tuple[pa.Table, pa.Table], pair: tuple[Path, Path]
) -> None:
    predictions, features = rows
    assert WANTED.slices is not None

    found = measure_pair(*pair, WANTED)

    batches = 65_536  # as they are read: the same batches have the same sums
    assert found.predictions == profile_batches(predictions.to_batches(batches))
    assert found.features == profile_batches(features.to_batches(batches), skip=WANTED.private)
    beside = features.append_column("score", predictions.column("score"))
    assert found.slices == measure_slices(beside.to_batches(batches), WANTED.slices, output="score")


def test_private_columns_are_grouped_by_and_not_profiled(pair: tuple[Path, Path]) -> None:
    found = measure_pair(*pair, WANTED)

    assert list(found.features.columns) == ["origin", "month", "distance"]
    assert list(found.predictions.columns) == ["score", "status"]
    assert [len(each.groups) for each in found.slices] == [3, 100, 36]


def test_without_slices_there_are_none(pair: tuple[Path, Path]) -> None:
    assert measure_pair(*pair, Wanted(output="score")).slices == ()


def test_parts_merge_into_the_whole_whatever_the_order(rows: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    parts = [
        measure_pair(*written(tmp_path / str(start), *(table.slice(start, 50_000) for table in rows)), WANTED)
        for start in range(0, ROWS, 50_000)
    ]

    whole = merge_measures(merge_measures(parts[2], nothing_measured()), merge_measures(parts[0], parts[1]))

    assert (whole.predictions.rows, whole.features.rows) == (ROWS, ROWS)
    score, distance = whole.predictions.columns["score"], whole.features.columns["distance"]
    origin = whole.features.columns["origin"]
    assert isinstance(score, NumericProfile)
    assert isinstance(distance, NumericProfile)
    assert isinstance(origin, CategoryProfile)
    assert score.mean == pytest.approx(rows[0].column("score").to_numpy().mean(), rel=1e-9)
    assert distance.variance == pytest.approx(rows[1].column("distance").to_numpy().var(), rel=1e-9)
    assert {group.values[0]: group.rows for group in whole.slices[0].groups} == origin.values


def test_it_survives_json(pair: tuple[Path, Path]) -> None:
    found = measure_pair(*pair, WANTED)

    assert Measures.model_validate_json(found.model_dump_json()) == found


def test_what_is_wanted_travels_to_spark_s_workers() -> None:
    assert pickle.loads(pickle.dumps(WANTED)) == WANTED  # noqa: S301  # written a moment ago


def test_files_in_another_order_are_refused(rows: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    swapped = pa.concat_tables([rows[1].slice(0, 98), rows[1].slice(99, 1), rows[1].slice(98, 1)])

    with pytest.raises(InputError, match="features and predictions differ in order; expected the same rows"):
        measure_pair(*written(tmp_path, rows[0].slice(0, 100), swapped), WANTED)


@pytest.mark.parametrize("counts", [(100, 99), (99, 100), (100, 0), (0, 100)])
def test_files_of_more_or_fewer_rows_are_refused(
    rows: tuple[pa.Table, pa.Table], tmp_path: Path, counts: tuple[int, int]
) -> None:
    with pytest.raises(InputError, match=r"part-00000\.parquet: not as many rows as were scored"):
        measure_pair(
            *written(tmp_path, *(table.slice(0, count) for table, count in zip(rows, counts, strict=True))), WANTED
        )


def with_status(predictions: pa.Table, status: list[str]) -> pa.Table:
    return predictions.set_column(predictions.schema.get_field_index("status"), "status", pa.array(status))


def test_rows_that_were_not_scored_have_no_features_and_are_not_measured(
    rows: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    predictions = with_status(rows[0], ["scored" if number % 3 else "carried" for number in range(ROWS)])
    features = rows[1].filter(pa.array(number % 3 > 0 for number in range(ROWS)))

    found = measure_pair(*written(tmp_path, predictions, features), WANTED)

    assert (found.predictions.rows, found.features.rows) == (100_000, 100_000)
    assert sum(group.rows for group in found.slices[0].groups) == 100_000


def test_a_scored_row_behind_many_carried_ones_must_have_features_too(
    rows: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    # The features end with the first batch; a whole batch was carried; then come rows that lack theirs.
    predictions = with_status(rows[0], ["scored"] * 65_536 + ["carried"] * 65_536 + ["scored"] * (ROWS - 131_072))

    with pytest.raises(InputError, match="not as many rows as were scored"):
        measure_pair(*written(tmp_path, predictions, rows[1].slice(0, 65_536)), WANTED)


def test_files_of_other_row_groups_are_read_side_by_side(rows: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    pq.write_table(rows[0], tmp_path / "predictions.parquet", row_group_size=10_000)
    pq.write_table(rows[1], tmp_path / "features.parquet", row_group_size=65_536)

    found = measure_pair(tmp_path / "predictions.parquet", tmp_path / "features.parquet", WANTED)

    assert (found.predictions.rows, found.features.rows) == (ROWS, ROWS)


def test_texts_too_many_for_the_file_s_dictionary_are_counted_all_the_same(
    rows: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    texts = [f"{number:060}" for number in range(60_000)]
    predictions, features = (table.slice(0, 60_000) for table in rows)

    found = measure_pair(*written(tmp_path, predictions, features.append_column("text", pa.array(texts))), WANTED)

    text = found.features.columns["text"]
    assert isinstance(text, CategoryProfile)
    assert (text.count, text.other) == (60_000, 59_000)
    assert text.distinct == pytest.approx(60_000, rel=0.1)


@pytest.mark.parametrize("which", [0, 1])
def test_a_changed_page_is_an_error(rows: tuple[pa.Table, pa.Table], tmp_path: Path, which: int) -> None:
    paths = written(tmp_path, *(table.slice(0, 1000) for table in rows))
    with paths[which].open("r+b") as file:
        file.seek(os.path.getsize(paths[which]) // 3)  # noqa: PTH202
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))

    with pytest.raises((OSError, InputError)):
        measure_pair(*paths, WANTED)


def test_files_without_rows_measure_nothing(rows: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    empty: Any = [table.slice(0, 0) for table in rows]

    found = measure_pair(*written(tmp_path, *empty), WANTED)

    assert (found.predictions.rows, [each.groups for each in found.slices]) == (0, [(), (), ()])


@pytest.mark.parametrize(
    ("ids", "name", "once"),
    [
        (["a", "b", "c"], "part-00000", True),
        (["a", "b", "a"], "part-00000", False),
        (["a", "b", "c"], "part-00001", False),  # other buckets than the file is for
        (["a", "b", "c"], "carried", False),
    ],
)
def test_ids_are_proven_to_stand_once_in_the_files_that_they_belong_into(
    tmp_path: Path, ids: list[str], name: str, once: bool
) -> None:
    columns = {"entity_id": ids, "score": [0.5] * 3, "status": ["scored"] * 3}
    pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    pq.write_table(pa.table({"entity_id": ids, "x": [1.0] * 3}), tmp_path / "features.parquet")
    wanted = Wanted(output="score", buckets=1, files=1)

    measured = measure_pair(tmp_path / f"{name}.parquet", tmp_path / "features.parquet", wanted)

    assert measured.ids_once is once
    assert merge_measures(nothing_measured(), measured).ids_once is once
