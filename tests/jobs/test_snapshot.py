"""Sources of all kinds of damage: each is one clear error before Spark reads a row."""

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.snapshot import Snapshot, take_snapshot
from schemas.errors import DeclarationError, InputError, Problem
from schemas.pipeline import Pipeline
from schemas.settings import Settings

DAY = dt.date(2013, 7, 1)
TABLE = pa.table({"id": pa.array(["a", "b"]), "age": pa.array([1, 2], pa.int64())})


def declare(**source: Any) -> Pipeline:
    training: dict[str, Any] = {"label": "age > 1", "split": {"holdout_share": 0.5}}
    if "partition_by" in source:
        training |= {"start": DAY, "end": DAY}
    return Pipeline.model_validate(
        {
            "pipeline": "churn", "description": "Who leaves.", "owner": "crm", "start": DAY,
            "entity": {"source": "people", "key": ["id"]},
            "sources": {"people": {"path": "people", **source}},
            "features": {"numeric": ["age"]},
            "training": training,
        }
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Settings:
    return Settings(pipelines=tmp_path / "dags", store=tmp_path / "store")


def write(place: Settings, table: pa.Table = TABLE, file: str = "people/part-0.parquet") -> Path:
    path = place.root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def write_days(place: Settings, *offsets: int) -> None:
    for offset in offsets:
        write(place, file=f"people/date={DAY + dt.timedelta(days=offset)}/part-0.parquet")


def write_csv(place: Settings, raw: bytes) -> Path:
    path = place.root / "people"
    path.write_bytes(raw)
    return path


def take(place: Settings, end: dt.date | None = None, **source: Any) -> Snapshot:
    return take_snapshot(place, declare(**source), DAY, end)


def problems(place: Settings, end: dt.date | None = None, **source: Any) -> tuple[Problem, ...]:
    before = {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as caught:
        take(place, end, **source)
    assert {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()} == before
    return caught.value.problems


def the_problem(place: Settings, **source: Any) -> Problem:
    (problem,) = problems(place, **source)
    assert "people" in problem.where
    assert "\n" not in str(problem)
    return problem


# Which files


def test_a_source_that_is_not_there_is_named_with_its_path(place: Settings) -> None:
    problem = the_problem(place)
    assert (problem.code, problem.found) == ("IN_NOT_FOUND", f"no such file or folder: {place.root}/people")


def test_every_source_that_is_wrong_is_told(place: Settings) -> None:
    pipeline = declare().model_dump()
    pipeline["sources"]["more"] = {"path": "more"}
    with pytest.raises(InputError) as caught:
        take_snapshot(place, Pipeline.model_validate(pipeline), DAY)
    assert [problem.where for problem in caught.value.problems] == ["source 'people'", "source 'more'"]


def test_a_variable_that_is_not_set_is_named(place: Settings) -> None:
    with pytest.raises(DeclarationError, match=r"source 'people': \$\{ALMANAC_NOT_SET\} is not set"):
        take(place, path="${ALMANAC_NOT_SET}/people")


def test_hidden_files_are_not_data(place: Settings) -> None:
    path = write(place)
    for name in ("_SUCCESS", ".part-0.parquet.crc", "_committed_1"):
        (path.parent / name).write_bytes(b"")
    assert take(place).sources["people"].files == (path,)


def test_one_file_is_a_source_too(place: Settings) -> None:
    path = write(place, file="people.parquet")
    assert take(place, path="people.parquet").sources["people"].files == (path,)


@pytest.mark.parametrize("names", [[], ["_SUCCESS", ".hidden"]])
def test_a_folder_without_data_is_empty(names: list[str], place: Settings) -> None:
    (place.root / "people").mkdir()
    for name in names:
        (place.root / "people" / name).write_bytes(b"")
    assert the_problem(place).code == "IN_EMPTY"


def test_a_write_that_did_not_finish_is_told(place: Settings) -> None:
    (write(place).parent / "_temporary").mkdir()
    assert the_problem(place).code == "IN_INCOMPLETE"


def test_a_folder_among_the_files_is_not_passed_over(place: Settings) -> None:
    write(place)
    write(place, file="people/more/part-0.parquet")
    problem = the_problem(place)
    assert (problem.code, problem.found) == ("IN_LAYOUT", f"folder 'more' in {place.root}/people")


# SparkHadoopUtil.isGlobPath looks for these, and DataSource then reads what matches instead of the file.
@pytest.mark.parametrize("name", ["a[1]", "a{b}", "a*", "a?", "a\\b"])
def test_a_name_that_spark_reads_as_a_pattern_is_refused(name: str, place: Settings) -> None:
    write(place, file=f"people/{name}.parquet")
    assert the_problem(place).code == "IN_PATH"


def test_a_pattern_as_a_path_is_refused(place: Settings) -> None:
    write(place)
    assert the_problem(place, path="people/*.parquet").code == "IN_PATH"


def test_a_path_that_no_file_can_have_is_an_error_of_the_source(place: Settings) -> None:
    problem = the_problem(place, path="x/" * 3000)
    assert (problem.code, problem.expected) == ("IN_UNREADABLE", "files that can be read")


# Which days


@pytest.mark.parametrize(
    ("days", "required", "there", "missing"),
    [
        (3, 3, [0, 1, 2], []),
        (3, 1, [0], []),
        (3, 1, [0, 1], []),
        (3, 2, [0], [1]),
        (3, 3, [1, 2], [0]),
        (3, 1, [0, 2], [1]),  # a hole, though only the first day is required
        (3, 1, [1, 2], [0]),
        (3, 1, [-1], [0]),
        (3, 3, [], [0, 1, 2]),
    ],
)
def test_days_may_be_missing_only_at_the_end_of_the_window(
    days: int, required: int, there: list[int], missing: list[int], place: Settings
) -> None:
    write_days(place, *there)
    (place.root / "people").mkdir(exist_ok=True)
    window = {"partition_by": "date", "days": days, "required_days": required}
    if not missing:
        assert len(take(place, **window).sources["people"].files) == len(there)
        return
    found = problems(place, **window)
    assert {problem.code for problem in found} == {"IN_STALE"}
    assert [problem.found for problem in found] == [f"no partition date=2013-07-0{day + 1}" for day in missing]
    assert "newest is " in found[0].expected


def test_a_training_window_needs_every_day(place: Settings) -> None:
    write_days(place, 0, 1)
    (problem,) = problems(place, DAY + dt.timedelta(days=2), partition_by="date", days=3, required_days=1)
    assert problem.found == "no partition date=2013-07-03"


def test_an_empty_day_is_named(place: Settings) -> None:
    (place.root / "people" / "date=2013-07-01").mkdir(parents=True)
    assert "date=2013-07-01" in the_problem(place, partition_by="date").where


# Which bytes


def test_a_file_of_no_bytes_is_bad(place: Settings) -> None:
    write(place).write_bytes(b"")
    problem = the_problem(place)
    assert (problem.code, problem.found) == ("IN_BAD_FILE", "0 bytes")


@pytest.mark.parametrize("keep", [1, 8, 100, -1, -9])
def test_a_truncated_file_is_bad(keep: int, place: Settings) -> None:
    path = write(place)
    path.write_bytes(path.read_bytes()[:keep])
    assert the_problem(place).code == "IN_BAD_FILE"


def test_what_is_not_parquet_is_bad(place: Settings) -> None:
    write(place).write_bytes(b"id,age\na,1\n")
    assert the_problem(place).code == "IN_BAD_FILE"


def test_a_damaged_column_name_is_bad(place: Settings) -> None:
    path = write(place, pa.table({"née": [1]}))
    raw = path.read_bytes()
    at = raw.rindex("née".encode())
    path.write_bytes(raw[: at + 1] + b"\xff" + raw[at + 2 :])
    before_metadata = raw.index("née".encode())
    raw = path.read_bytes()
    path.write_bytes(raw[: before_metadata + 1] + b"\xff" + raw[before_metadata + 2 :])
    assert the_problem(place).code == "IN_BAD_FILE"


def test_one_bit_changes_the_fingerprint_and_nothing_else_does(place: Settings) -> None:
    path = write(place)
    first = take(place)
    os.utime(path, (0, 0))
    assert take(place).digest == first.digest
    raw = bytearray(path.read_bytes())
    raw[6] ^= 1  # in the data: the footer still reads
    path.write_bytes(raw)
    assert take(place).digest != first.digest
    assert take(place).fingerprints[0].size_bytes == first.fingerprints[0].size_bytes


def test_the_digest_is_of_relative_paths(place: Settings, tmp_path: Path) -> None:
    elsewhere = Settings(pipelines=tmp_path / "elsewhere" / "dags", store=tmp_path)
    write(place)
    write(elsewhere)
    assert take(place).digest == take(elsewhere).digest


# Which columns


def test_a_missing_column_is_named_with_its_type(place: Settings) -> None:
    write(place)
    problem = the_problem(place, columns={"id": "string", "seats": "int64"})
    assert (problem.code, problem.found, problem.expected) == ("IN_COLUMN_MISSING", "no column 'seats'", "seats: int64")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pa.int32(), "int64"),
        (pa.float32(), "float64"),
        (pa.string(), "float64"),
        (pa.decimal128(10, 2), "float64"),
        (pa.timestamp("us"), "date"),
        (pa.timestamp("ns"), "timestamp"),
        (pa.list_(pa.string()), "string"),
    ],
)
def test_a_column_of_another_type_is_named(found: pa.DataType, expected: str, place: Settings) -> None:
    write(place, pa.table({"id": ["a"], "x": pa.array([None], found)}))
    problem = the_problem(place, columns={"id": "string", "x": expected})
    assert problem.code == "IN_COLUMN_TYPE"
    assert problem.where == "source 'people' part-0.parquet: x"
    assert problem.expected.startswith(expected)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pa.large_string(), "string"),
        (pa.string_view(), "string"),
        (pa.dictionary(pa.int8(), pa.string()), "string"),
        (pa.timestamp("ms"), "timestamp"),
        (pa.timestamp("us", "UTC"), "timestamp"),
        (pa.date64(), "date"),
        (pa.bool_(), "bool"),
    ],
)
def test_a_column_in_another_form_of_the_same_type_is_taken(found: pa.DataType, expected: str, place: Settings) -> None:
    write(place, pa.table({"id": ["a"], "x": pa.array([None], found)}))
    schema = take(place, columns={"id": "string", "x": expected}).sources["people"].schema
    assert from_arrow_schema(schema).names == ["id", "x"]


UNREADABLE = [
    pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.float16(), pa.time32("ms"), pa.decimal256(39, 2),
    pa.list_(pa.uint64()), pa.struct([("a", pa.float16())]), pa.map_(pa.string(), pa.uint8()),
]  # fmt: skip
READABLE = [
    pa.int8(), pa.int16(), pa.decimal128(38, 2), pa.decimal256(38, 2), pa.binary(), pa.large_binary(),
    pa.list_(pa.int32()), pa.struct([("a", pa.string())]), pa.map_(pa.string(), pa.int32()), pa.null(),
    pa.timestamp("ns"), pa.time64("us"),
]  # fmt: skip


@pytest.mark.parametrize("found", UNREADABLE, ids=str)
def test_a_type_that_spark_does_not_have_is_refused_by_name(found: pa.DataType, place: Settings) -> None:
    write(place, pa.table({"id": ["a"], "x": pa.array([None], found)}))
    problem = the_problem(place)
    assert (problem.code, problem.where) == ("IN_COLUMN_TYPE", "source 'people' part-0.parquet: x")
    assert the_problem(place, columns={"id": "string", "x": "int64"}) == problem


@pytest.mark.parametrize("found", READABLE, ids=str)
def test_a_type_that_spark_has_is_taken(found: pa.DataType, place: Settings) -> None:
    write(place, pa.table({"id": ["a"], "x": pa.array([None], found)}))
    assert from_arrow_schema(take(place).sources["people"].schema).names == ["id", "x"]


@pytest.mark.parametrize(
    "other",
    [
        TABLE.append_column("more", pa.array([1, 2])),
        TABLE.drop_columns(["age"]),
        TABLE.set_column(1, "age", pa.array([1.0, 2.0])),
        TABLE.select(["age", "id"]),
    ],
    ids=["one more", "one less", "another type", "another order"],
)
def test_files_of_different_columns_are_refused(other: pa.Table, place: Settings) -> None:
    write(place)
    write(place, other, file="people/part-1.parquet")
    problem = the_problem(place)
    assert problem.code == "IN_SCHEMA_MIXED"
    assert "part-1.parquet" in problem.where
    assert problem.found != "differs in "


def test_a_category_and_a_text_are_the_same_column(place: Settings) -> None:
    write(place)
    write(place, TABLE.set_column(0, "id", TABLE["id"].dictionary_encode()), file="people/part-1.parquet")
    assert len(take(place).sources["people"].files) == 2


def test_names_that_differ_in_case_only_are_one_problem(place: Settings) -> None:
    write(place, pa.table({"id": ["a"], "ID": ["b"], "age": [1]}))
    problem = the_problem(place)
    assert (problem.code, problem.found) == ("IN_COLUMN_DUPLICATE", "'id', 'ID'")


# CSV


def test_a_csv_column_is_text_whatever_it_holds(place: Settings) -> None:
    write_csv(place, b"\xef\xbb\xbfid;age\r\na;1\r\n")
    schema = take(place, format="csv", delimiter=";").sources["people"].schema
    assert schema == pa.schema([("id", pa.string()), ("age", pa.string())])


@pytest.mark.parametrize(
    ("raw", "code", "found"),
    [
        (b"id,,age\n", "IN_BAD_FILE", "header ['id', '', 'age']"),
        (b"id, ,age\n", "IN_BAD_FILE", "header ['id', ' ', 'age']"),
        (b"\n", "IN_BAD_FILE", "header []"),
        (b"id,age,id\n", "IN_COLUMN_DUPLICATE", "'id', 'id'"),
        (b"id,age,Age\n", "IN_COLUMN_DUPLICATE", "'age', 'Age'"),
        (b"", "IN_BAD_FILE", "0 bytes"),
    ],
)
def test_a_csv_header_names_every_column_once(raw: bytes, code: str, found: str, place: Settings) -> None:
    write_csv(place, raw)
    problem = the_problem(place, format="csv")
    assert (problem.code, problem.found) == (code, found)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"id,\xff\n", 1),
        (b"id,age\nM\xfcller,1\n", 2),
        (b"id,age\n" + b"abc,1\n" * 400_000 + b"M\xfcller,1\n", 400_002),
        (b"id,age\na,1\nb\xc3", 3),
        ("id,age\n".encode("utf-16"), 1),
    ],
    ids=["header", "row", "past a block", "cut in a character", "UTF-16"],
)
def test_a_csv_file_is_utf_8_to_its_end(raw: bytes, line: int, place: Settings) -> None:
    path = write_csv(place, raw)
    problem = the_problem(place, format="csv")
    assert problem.code == "IN_BAD_FILE"
    assert problem.where.endswith(f"{path}:{line}")
