"""Priors: the mean of the predictions of each group that is large enough, whatever the files they came in."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import priors
from jobs.priors import write_priors
from jobs.tasks import prediction_schema
from lookup.writer import write_rows
from schemas.errors import InputError
from schemas.head import ColumnSpec
from schemas.keys import entity_id
from schemas.run import DataFile

KEY = ("carrier", "flight", "origin")
SEGMENTS = (("carrier", "origin"), ("origin",))
SCORE = ColumnSpec(name="score", type="float64")
_SCHEMA = prediction_schema(["score"])


def _staged(folder: Path, *files: Sequence[tuple[Sequence[object], float | None]]) -> list[DataFile]:
    staged = []
    for number, rows in enumerate(files):
        ids, scores = [entity_id(key) for key, _ in rows], [score for _, score in rows]
        routed = [pa.repeat(value, len(ids)) for value in ("bundle-1", "champion", "scored")]
        batch = pa.RecordBatch.from_arrays(
            [pa.array(ids, pa.string()), pa.array(scores, pa.float64()), *routed], schema=_SCHEMA
        )
        staged.append(write_rows(folder / "predictions", f"part-{number:05}.parquet", _SCHEMA, [batch]))
    return staged


def _written(folder: Path, files: list[DataFile], min_rows: int = 2, **changes: Any) -> list[dict[str, Any]]:
    options = {"key": KEY, "segments": SEGMENTS, "outputs": [SCORE], "min_rows": min_rows, **changes}
    written = write_priors(folder, files, **options)
    return [row for file in written for row in pq.read_table(folder / file.path).to_pylist()]


def test_each_group_that_is_large_enough_has_its_mean_the_most_specific_segment_first(tmp_path: Path) -> None:
    files = _staged(
        tmp_path,
        [(("UA", 1, "EWR"), 0.25), (("UA", 2, "EWR"), 0.75), (("AA", 1, "EWR"), 0.5)],
        [(("AA", 2, "LGA"), 0.125), (("UA", 3, "EWR"), 0.5)],
    )

    assert _written(tmp_path, files) == [
        {"field": "0:UA:EWR", "rows": 3, "score": 0.5},
        {"field": "1:EWR", "rows": 4, "score": 0.5},
    ]


def test_values_with_a_separator_are_joined_as_in_an_id(tmp_path: Path) -> None:
    files = _staged(tmp_path, [(("a:b", 1, "x\\"), 0.25), (("a:b", 2, "x\\"), 0.75), (("c", 1, "x\\"), 0.5)])

    assert [row["field"] for row in _written(tmp_path, files)] == ["0:a\\:b:x\\\\", "1:x\\\\"]


def test_a_null_is_no_part_of_a_mean(tmp_path: Path) -> None:
    files = _staged(tmp_path, [(("UA", 1, "EWR"), 0.25), (("UA", 2, "EWR"), None), (("AA", 1, "LGA"), None)])

    assert _written(tmp_path, files, min_rows=1, segments=(("origin",),)) == [
        {"field": "0:EWR", "rows": 2, "score": 0.25},
        {"field": "0:LGA", "rows": 1, "score": None},
    ]


def test_nothing_is_written_where_no_group_is_large_enough_or_none_is_declared(tmp_path: Path) -> None:
    files = _staged(tmp_path, [(("UA", 1, "EWR"), 0.25)])

    assert write_priors(tmp_path, files, key=KEY, segments=SEGMENTS, outputs=[SCORE], min_rows=2) == ()
    assert write_priors(tmp_path, files, key=KEY, segments=(), outputs=[SCORE], min_rows=2) == ()
    assert not (tmp_path / "priors").exists()


def test_the_class_of_a_group_is_that_of_its_likeliest_mean_and_no_mean_of_classes(tmp_path: Path) -> None:
    names = ["p_late", "p_early", "class"]
    outputs = [ColumnSpec(name=name, type="float64") for name in names[:2]]
    outputs.append(ColumnSpec(name="class", type="float64", values=("late", "early")))
    schema = prediction_schema(names)
    ids = [entity_id(("UA", number, "EWR")) for number in range(3)]
    columns = [ids, [0.9, 0.1, 0.1], [0.1, 0.9, 0.9], [0.0, 1.0, 1.0], ["b"] * 3, ["champion"] * 3, ["scored"] * 3]
    batch = pa.RecordBatch.from_arrays([pa.array(each) for each in columns], schema=schema)
    files = [write_rows(tmp_path / "predictions", "part-00000.parquet", schema, [batch])]

    (found,) = _written(tmp_path, files, segments=(("origin",),), outputs=outputs)

    assert (found["field"], found["class"]) == ("0:EWR", 1.0)
    assert found["p_early"] == pytest.approx(1.9 / 3)


def test_more_priors_than_a_reader_keeps_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priors, "MAX_PRIORS", 3)
    files = _staged(tmp_path, [(("UA", n, f"X{n % 4}"), 0.5) for n in range(8)])

    with pytest.raises(InputError, match=r"4 groups of at least 2 entities up to .*carrier, origin.*TOO_MANY"):
        _written(tmp_path, files)


_FLIGHT = st.tuples(st.sampled_from("ABC"), st.integers(0, 99), st.sampled_from("xy"), st.floats(0, 1))


@settings(deadline=None, max_examples=40)
@given(flights=st.lists(_FLIGHT))
def test_the_means_are_those_of_the_rows(
    flights: list[tuple[str, int, str, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, rows = tmp_path_factory.mktemp("priors"), flights
    half = len(rows) // 2
    files = _staged(folder, *([((c, f, o), s) for c, f, o, s in part] for part in (rows[:half], rows[half:])))

    found = {row["field"]: row["score"] for row in _written(folder, files)}

    for carrier in "ABC":
        for origin in "xy":
            scores = [score for c, _, o, score in rows if (c, o) == (carrier, origin)]
            expected = math.fsum(scores) / len(scores) if len(scores) >= 2 else None
            assert found.get(f"0:{carrier}:{origin}") == (None if expected is None else pytest.approx(expected))
