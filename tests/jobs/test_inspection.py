"""Types read off the data, and what makes a target."""

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.inspection import InspectedColumn, Kind, inspect_column
from jobs.tablefile import inspect_key, read_table_file
from jobs.targets import gives_away, inspect_target
from schemas.errors import InputError


def column(values: list[Any], kind: pa.DataType | None = None) -> InspectedColumn:
    return inspect_column("x", pa.chunked_array([pa.array(values, kind)]))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", " 2.5 ", "-3e2", ""] * 9, Kind.NUMBER),
        (["1", "2", "N/A", "nan"] * 9, Kind.NUMBER),
        (["1"] * 95 + ["2"] * 4 + ["many"] * 5, Kind.NUMBER),
        (["1"] * 90 + ["2"] * 4 + ["many"] * 6, Kind.CATEGORY),
        (["12,5", "7", "0,125"] * 9, Kind.NUMBER),
        (["1,234", "7", "12,345"] * 9, Kind.CATEGORY),
        (["1.234,5", "12,5"] * 9, Kind.CATEGORY),
        (["007", "011"] * 9, Kind.CATEGORY),
        (["1_000", "2_000"] * 9, Kind.CATEGORY),
        (["yes", "no"] * 9, Kind.CATEGORY),
        (["2024-01-05", "2024-02-29 10:00:01", "2024-01-05T00:00Z"] * 9, Kind.DATE),
        (["2024-02-30", "2024-02-31"] * 9, Kind.CATEGORY),
    ],
)
def test_text_is_what_nearly_all_of_its_values_are(values: list[str], kind: Kind) -> None:
    assert column(values).kind is kind


@pytest.mark.parametrize(
    ("values", "kind", "levels"),
    [
        ([1, 2, None, 2], Kind.NUMBER, [1.0, 2.0]),
        ([0.5, float("nan"), float("inf"), 1.5], Kind.NUMBER, [0.5, 1.5]),
        ([decimal.Decimal("1.10"), decimal.Decimal("2.20"), None], Kind.NUMBER, [1.1, 2.2]),
        ([True, False, None], Kind.CATEGORY, ["false", "true"]),
        ([dt.datetime(2024, 1, 2, 23), dt.datetime(1960, 1, 1)], Kind.DATE, [dt.date(1960, 1, 1), dt.date(2024, 1, 2)]),
    ],
)
def test_stored_types_are_kept(values: list[Any], kind: Kind, levels: list[Any]) -> None:
    found = column(values)

    assert (found.kind, list(found.levels), found.is_text) == (kind, levels, False)


def test_a_dictionary_column_is_read_as_its_values() -> None:
    found = inspect_column("x", pa.chunked_array([pa.array(["a", "b", "a", "b", "a"]).dictionary_encode()]))

    assert (found.kind, found.levels, found.codes.tolist()) == (Kind.CATEGORY, ["a", "b"], [0, 1, 0, 1, 0])


def test_values_that_are_no_number_are_counted_and_shown() -> None:
    found = column(["1", "2"] * 50 + ["lots", "few", ""])

    assert found.lost == (2, ("lots", "few"))
    assert found.filled == 100


@pytest.mark.parametrize("value", ["NaN", "-inf", "Infinity", "1e999"])
def test_text_that_spark_reads_as_no_finite_number_is_noticed(value: str) -> None:
    assert column(["1", "2"] * 20 + [value]).has_not_finite


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["", "  ", None], "no row has a value"),
        ([None, None], "no row has a value"),
        (["5", "5.0", " 5"], "the same in every row: 5"),
        (["a", "a"], "the same in every row: 'a'"),
        ([f"note {n}" for n in range(100)], "free text, or an id"),
        ([f"note {n % 1001}" for n in range(5000)], "1,001 different texts"),
        ([[1], [2]], "of type list"),
        (pa.array([1, 2], pa.timestamp("ns")), "nanoseconds"),
    ],
)
def test_a_column_of_no_use_says_why(values: Any, why: str) -> None:
    assert why in (column(values).unusable or "")


@pytest.mark.parametrize(
    ("values", "positive", "negative"),
    [
        (["Yes", "no", " NO", "yes", ""], "yes", "no"),
        (["Y", "N", "n/a"], "y", "n"),
        (["0", "1", "1.0"], 1.0, 0.0),
        (["-1", "1"], 1.0, -1.0),
        ([True, False], "true", "false"),
        (["stayed", "left", "stayed"], "left", "stayed"),
        (["Churned", "Active", "Churned"], "churned", "active"),
        (["gone", "no", "gone"], "gone", "no"),
    ],
)
def test_two_values_are_classes(values: list[Any], positive: object, negative: object) -> None:
    target = inspect_target(column(values))

    assert (target.objective, target.positive, target.negative) == ("binary", positive, negative)


def test_a_missing_target_is_no_class() -> None:
    outcome = inspect_target(column(["yes", "", "no", None])).outcome.tolist()

    assert [outcome[0], outcome[2]] == [1.0, 0.0]
    assert outcome[1] != outcome[1]


def test_several_numbers_are_a_quantity() -> None:
    assert inspect_target(column(["1", "2", "3"])).objective == "regression"


@pytest.mark.parametrize(
    ("values", "code", "found"),
    [
        (["a", "b", "c"], "SCAFFOLD_TARGET_CLASSES", "3 classes: 'a', 'b', 'c'; expected two classes"),
        (["yes", "YES "], "SCAFFOLD_TARGET", "one value only: 'yes'"),
        ([7, 7], "SCAFFOLD_TARGET", "one value only: 7"),
        (["", None], "SCAFFOLD_TARGET", "no row has a value"),
        (["2024-01-01", "2024-01-02"], "SCAFFOLD_TARGET", "dates"),
        ([[1], [2]], "SCAFFOLD_TARGET", "of type list"),
    ],
)
def test_what_is_no_target_is_refused(values: list[Any], code: str, found: str) -> None:
    with pytest.raises(InputError, match=found) as refused:
        inspect_target(column(values))
    assert refused.value.problems[0].code == code


@pytest.mark.parametrize(
    ("values", "is_leak"),
    [
        (["in", "out"] * 10, True),
        (["price", ""] * 5 + ["service", ""] * 5, True),
        ([5, 9] * 10, True),
        (["in", "out"] * 9 + ["in", "in"], False),
        ([5, 9] * 9 + [9, 5], False),
        (["a"] * 20, False),
    ],
)
def test_a_column_that_tells_the_classes_is_found(values: list[Any], is_leak: bool) -> None:
    target = inspect_target(column(["no", "yes"] * 10))

    assert (gives_away(column(values), target) is not None) == is_leak


def test_a_number_in_proportion_to_the_quantity_is_found() -> None:
    target = inspect_target(column([float(n) for n in range(50)]))

    assert gives_away(column([3 - 2.5e300 * n for n in range(50)]), target)
    assert gives_away(column([n * n for n in range(50)]), target) is None


def test_few_rows_prove_no_leak() -> None:
    assert gives_away(column(["in", "out"] * 2), inspect_target(column(["no", "yes"] * 2))) is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_is_read_whatever_its_delimiter(tmp_path: Path, delimiter: str, mark: str) -> None:
    path = tmp_path / "t.csv"
    rows = [["id", 'the "name"', "note"], ["1", "a,b;c|d", "line\nbreak"], ["2", "", "é"]]
    lines = [delimiter.join('"{}"'.format(value.replace('"', '""')) for value in row) for row in rows]
    path.write_text(mark + "\r\n".join(lines), encoding="utf-8", newline="")

    file = read_table_file(path)

    assert (file.delimiter, file.rows, file.is_whole) == (delimiter, 2, True)
    assert {name: values.to_pylist() for name, values in file.columns.items()} == {
        "id": ["1", "2"],
        'the "name"': ["a,b;c|d", ""],
        "note": ["line\nbreak", "é"],
    }


@pytest.mark.parametrize("rows", [99, 100, 101])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_only_the_first_rows_are_read(tmp_path: Path, rows: int, kind: str) -> None:
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        path.write_text("a\n" + "1\n" * rows)
    else:
        pq.write_table(pa.table({"a": [1] * rows}), path)

    file = read_table_file(path, max_rows=100)

    assert (file.rows, file.is_whole) == (min(rows, 100), rows <= 100)


@pytest.mark.parametrize(
    ("content", "code", "found"),
    [
        (b"", "SCAFFOLD_EMPTY", "the file is empty"),
        (b"a,b\n", "SCAFFOLD_EMPTY", "no rows"),
        (b"a,b\n1,2\n3\n", "SCAFFOLD_READ", "Expected 2 columns, got 1"),
        (b"a,,b\n1,2,3\n", "SCAFFOLD_COLUMN_NAME", "column 2 has no name"),
        (b"a,A\n1,2\n", "SCAFFOLD_COLUMN_NAME", "'A' and 'a'"),
        (b'"a\nb",c\n1,2\n', "SCAFFOLD_COLUMN_NAME", "control character"),
        (b"PK\x03\x04\x00\x00", "SCAFFOLD_FORMAT", "neither CSV nor Parquet"),
        (b"PAR1 cut short", "SCAFFOLD_READ", "t.data"),
        ("name\nJosé\n".encode("latin-1"), "SCAFFOLD_ENCODING", "byte 8 is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "SCAFFOLD_ENCODING", "UTF-16"),
        (b"a\n" + b"x\n" * 600_000 + b"\xff\n", "SCAFFOLD_READ", "UTF8"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, code: str, found: str) -> None:
    path = tmp_path / "t.data"
    path.write_bytes(content)

    with pytest.raises(InputError, match=found) as refused:
        read_table_file(path, max_rows=10_000_000)
    assert refused.value.problems[0].code == code


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_table_file(tmp_path / "t.csv")
    with pytest.raises(InputError, match="a folder; expected one CSV or Parquet file"):
        read_table_file(tmp_path)


def test_a_key_is_judged_by_what_stands_on_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,month,x\na,1,5\na,2,5\nb,1,5\nb,1,5\nc,1,5\n")

    report = inspect_key(read_table_file(path), ["id"])

    assert (report.ambiguous, report.examples) == (1, ("a (2 rows)",))
    assert (report.repeated, report.completions) == (1, ("month",))
    assert inspect_key(read_table_file(path), ["id", "month"]).ambiguous == 0
