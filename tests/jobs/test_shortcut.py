"""The short way round the JVM leaves the bytes that the long way leaves, and is taken where it may be."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import jobs.shortcut
import jobs.tasks
from jobs.reading import entity_ids
from jobs.stages import check_inputs
from jobs.staging import stage
from schemas.keys import entity_id
from schemas.run import RunManifest
from tests.jobs.people import DAY, NAME, SQL, declare, routed, rows, trained

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

TAUTOLOGY = [{"name": "anything", "check": "true"}]  # which only Spark can tell of


@pytest.fixture(scope="module")
def store(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("people"), spark.newSession())


def staged(root: Path, session: "SparkSession", store: Path, table: pa.Table, **changes: Any) -> RunManifest:
    if routes := changes.pop("routes", []):
        changes["models"] = routed(store, routes, changes.pop("otherwise", "champion"))
    made = declare(root, table, **changes)
    shutil.copytree(store, root / "store", dirs_exist_ok=True)
    plan = check_inputs(made, NAME, DAY)
    folder = root / "staged"
    folder.mkdir()
    manifest = stage(folder, plan, session.newSession())
    assert not (folder / jobs.shortcut.SCRATCH).exists()
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")} == {one.path for one in manifest.files}
    return manifest


CASES: dict[str, dict[str, Any]] = {
    "clean": {"table": rows(500, is_clean=True)},
    "with bad keys and copies": {"table": rows(500)},
    "without any sound key": {"table": rows(60).filter(pc.is_null(rows(60)["name"]))},
    "with a key that is a feature": {"table": rows(300), "key": ["name", "n"], "sql": SQL.format(key="name")},
    "with a date in the key": {"table": rows(300), "key": ["born", "name"], "sql": SQL.format(key="name")},
    "with a key cast to text": {
        "table": rows(300),
        "key": ["id"],
        "sql": SQL.format(key="CAST(n AS STRING) AS id"),
    },
    "with rules": {
        "table": rows(400),
        "rules": [
            {"name": "some_x", "check": "x IS NOT NULL AND x > -1"},
            {"name": "known_word", "check": "word IN ('w0', 'w1', 'w2') OR code = '1'"},
        ],
    },
    "with routes": {"table": rows(300), "routes": ["word = 'w1'", "born < '1990-01-04' AND NOT f >= 0.5"]},
    "with rows that no route takes": {
        "table": rows(300),
        "routes": ["x >= 0", "flag = 'true'"],
        "otherwise": "quarantine",
    },
    "of one day": {
        "table": rows(300, is_clean=True),
        "partition": "day",
        "key": ["day", "name"],
        "sql": SQL.format(key="day, name") + " WHERE day = :ds",
    },
}


@pytest.mark.parametrize("case", CASES)
def test_both_ways_leave_the_same_bytes(
    case: str, spark: "SparkSession", store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.tasks, "ROWS_PER_FILE", 90)  # several files of few rows
    short = staged(tmp_path / "short", spark, store, **CASES[case])
    rules = [*CASES[case].get("rules", []), *TAUTOLOGY]
    long = staged(tmp_path / "long", spark, store, **CASES[case] | {"rules": rules})
    assert (short.way and short.way.name, long.way and long.way.name) == ("short", "long")
    assert short.counts == long.counts
    assert short.files == long.files
    assert (short.buckets, short.content) == (long.buckets, long.content)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sql": SQL.format(key="name, n + 1 AS number")}, "number is computed"),
        ({"sql": SQL.format(key="name, n AS number") + " WHERE n > 0"}, "features.sql has a condition on its rows"),
        ({"sql": SQL.format(key="DISTINCT name, n AS number")}, "more than a projection"),
        ({"sql": SQL.format(key="name, n AS number").replace("born", "CAST(x AS STRING) AS born")}, "born is string"),
        ({"rules": TAUTOLOGY}, "Literal in a predicate"),
        ({"rules": [{"name": "long", "check": "length(word) > 1"}]}, "length(word) in a predicate"),
        ({"rules": [{"name": "wide", "check": "score < 2", "on": "predictions"}]}, "rule wide is not about features"),
    ],
)
def test_what_is_no_plain_projection_goes_the_long_way(
    changes: dict[str, Any], why: str, spark: "SparkSession", store: Path, tmp_path: Path
) -> None:
    way = staged(tmp_path / "run", spark, store, rows(100, is_clean=True), **changes).way
    assert way is not None
    assert way.name == "long"
    assert why in way.why


def test_rows_that_would_not_fit_into_a_task_go_the_long_way(
    spark: "SparkSession", store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.shortcut, "MOST_FILE_BYTES", 1000)
    way = staged(tmp_path / "run", spark, store, rows(100, is_clean=True)).way
    assert way is not None
    assert (way.name, way.why) == ("long", "the rows of one file take 0 MiB")


@hypothesis_settings(max_examples=50)
@given(
    keys=st.lists(
        st.tuples(st.one_of(st.none(), st.text()), st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))), max_size=8
    )
)
def test_an_entity_id_is_joined_as_everywhere(keys: list[tuple[str | None, int | None]]) -> None:
    keys = [(text, number) for text, number in keys if text is None or text.isascii()]
    texts, numbers = (pa.array([each[at] for each in keys], kind) for at, kind in ((0, pa.string()), (1, pa.int64())))
    expected = [None if None in each else entity_id(each) for each in keys]
    assert entity_ids([texts, numbers]).to_pylist() == expected
