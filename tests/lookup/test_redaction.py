"""What only an erased entity's rows said is in no profile, report or page; what others say too stays."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lookup.redaction import own_values, redact
from lookup.writer import write_rows
from schemas.hashing import hash_number
from schemas.run import DataFile

GONE = "c-17"
_ROWS: dict[str, list[Any]] = {
    "entity_id": ["c-16", GONE, "c-18"],
    "tail": ["N1", "N17", "N1"],
    "town": ["Ulm", "Ulm", "Bonn"],
    "zone": [3, 17, 3],
    "income": [10.0, 99.5, 20.0],
    "late": [False, True, False],
    "codes": [["a"], ["z"], ["a"]],
}
_PAGE = (
    "<style>i { width: 17px }</style><h1>17 of 1.17</h1>"
    "<th>N17</th><td>1,700 N170</td><p>for example c-17, N1</p><p>Ulm &amp; &lt;Bonn&gt;</p>"
)


@pytest.fixture
def files(tmp_path: Path) -> list[DataFile]:
    batch = pa.RecordBatch.from_pydict(_ROWS)
    cuts = enumerate((batch.slice(0, 2), batch.slice(2)))
    return [write_rows(tmp_path / "features", f"part-{n:05}.parquet", batch.schema, [cut]) for n, cut in cuts]


def _profile(slices: list[dict[str, Any]]) -> dict[str, Any]:
    hashes = sorted(hash_number(value) for value in (10, 20, 99.5))
    numeric = {"kind": "numeric", "min": 10.0, "max": 99.5, "count": 3, "hashes": hashes}
    category = {"kind": "category", "count": 3, "values": {"N1": 2, "N17": 1}, "other": 0}
    features = {"rows": 3, "columns": {"tail": category, "income": numeric}}
    return {"predictions": {"rows": 3, "columns": {}}, "features": features, "slices": slices}


def _by(columns: list[str], *groups: list[str]) -> dict[str, Any]:
    return {"columns": columns, "groups": [{"values": values, "rows": 2, "unusable": 0} for values in groups]}


def _report(observed: str) -> dict[str, Any]:
    return {"verdict": "FAIL", "checks": [{"name": "inputs", "observed": observed, "expected": "17 rows"}]}


def test_own_values_are_those_that_no_other_row_has(files: list[DataFile], tmp_path: Path) -> None:
    assert own_values(tmp_path, files, GONE) == {"tail": {"N17"}, "town": set(), "zone": {17}, "income": {99.5}}


def test_an_entity_without_rows_has_none(files: list[DataFile], tmp_path: Path) -> None:
    assert own_values(tmp_path, files, "nobody") == {}


def test_the_profile_loses_its_values_its_groups_and_its_extremes(files: list[DataFile], tmp_path: Path) -> None:
    pair = ["tail", "town"]
    groups = [_by(["tail"], ["N1"], ["N17"]), _by(["zone"], ["3"], ["17"]), _by(pair, ["N1", "Ulm"], ["N17", "Ulm"])]
    (tmp_path / "profile.json").write_text(json.dumps(_profile(groups)))

    redact(tmp_path, own_values(tmp_path, files, GONE), GONE)

    found = json.loads((tmp_path / "profile.json").read_text())
    tail, income = found["features"]["columns"]["tail"], found["features"]["columns"]["income"]
    assert (tail["values"], tail["count"]) == ({"N1": 2}, 2)
    assert (income["min"], income["max"]) == (10.0, None)
    assert income["hashes"] == sorted(hash_number(value) for value in (10, 20))
    assert found["slices"] == [_by(["tail"], ["N1"]), _by(["zone"], ["3"]), _by(pair, ["N1", "Ulm"])]


def test_a_pair_of_values_that_one_row_has_is_taken_out_whosever_it_is(files: list[DataFile], tmp_path: Path) -> None:
    pair = _by(["tail", "town"], ["N1", "Ulm"], ["N2", "Bonn"])
    pair["groups"][1]["rows"] = 1
    (tmp_path / "profile.json").write_text(json.dumps(_profile([pair])))

    redact(tmp_path, own_values(tmp_path, files, GONE), GONE)

    found = json.loads((tmp_path / "profile.json").read_text())
    assert found["slices"] == [_by(["tail", "town"], ["N1", "Ulm"])]


def test_the_report_loses_its_examples_and_keeps_its_verdict_and_counts(files: list[DataFile], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(_report("17 of 1,700 rows unexpected; for example N17, N1, Ulm")))

    redact(tmp_path, own_values(tmp_path, files, GONE), GONE)

    found = json.loads((tmp_path / "report.json").read_text())
    assert found == _report("17 of 1,700 rows unexpected; for example (erased), N1, Ulm")


def test_a_number_that_names_a_group_is_taken_out_too(files: list[DataFile], tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text(json.dumps(_profile([_by(["zone"], ["17"])])))
    (tmp_path / "report.json").write_text(json.dumps(_report("17 moved most, by 0.17: its 1,700 rows, 117, 17")))

    redact(tmp_path, own_values(tmp_path, files, GONE), GONE)

    (check,) = json.loads((tmp_path / "report.json").read_text())["checks"]
    assert check["observed"] == "(erased) moved most, by 0.17: its 1,700 rows, 117, (erased)"


def test_the_page_loses_the_same_and_its_tags_and_style_stay(files: list[DataFile], tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(_PAGE)

    redact(tmp_path, own_values(tmp_path, files, GONE), GONE)

    expected = _PAGE.replace("<th>N17<", "<th>(erased)<").replace("c-17", "(erased)")
    assert (tmp_path / "report.html").read_text() == expected


def test_what_tells_nothing_of_it_is_not_written_again(files: list[DataFile], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(_report("3 rows, N1 and Ulm")))
    before = (tmp_path / "report.json").stat().st_ino

    redact(tmp_path, own_values(tmp_path, files, GONE), GONE)

    assert (tmp_path / "report.json").stat().st_ino == before
