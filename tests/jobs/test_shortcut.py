"""The short way round the JVM leaves the bytes that the long way leaves, and is taken where it may be."""

import datetime as dt
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import jobs.shortcut
import jobs.tasks
from jobs.reading import entity_ids
from jobs.stages import check_inputs
from jobs.staging import stage
from jobs.training import train
from schemas.declared import load_pipeline
from schemas.keys import entity_id
from schemas.run import RunManifest
from schemas.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

NAME = "people"
DAY = dt.date(2013, 7, 2)
NUMERIC, CATEGORICAL = ["x", "f", "w", "b", "n"], ["word", "code", "flag", "born"]
SQL = "SELECT {key}, x, f, w, b, n, word, w AS code, b AS flag, born FROM people"
TAUTOLOGY = [{"name": "anything", "check": "true"}]  # which only Spark can tell of
TEXTS = ["a", "a:b", "a\\", "", " ", "é", "b\n", "x" * 600, "c"]
_DATE = re.compile(r'"(\d{4}-\d\d-\d\d)"')  # as YAML has it
STRANGE = [0.0, -0.0, float("nan"), float("inf"), None, 1.5, -2.0]


def rows(count: int, seed: int = 7, *, is_clean: bool = False) -> pa.Table:
    """Made-up people; unless they are clean, with keys of every fault, and copies, equal or not."""
    draw = np.random.default_rng(seed)
    name: list[str | None] = [f"p-{number}" for number in range(count)]
    if not is_clean:
        name = [str(draw.choice(TEXTS)) if draw.random() < 0.2 else each for each in name]
        name = [each if draw.random() > 0.05 else None for each in name]
    table = pa.table(
        {
            "name": pa.array(name, pa.string()),
            "n": pa.array(draw.integers(0, 3 if not is_clean else 1 << 60, count), pa.int64()),
            "x": pa.array([STRANGE[at] for at in draw.integers(0, len(STRANGE), count)], pa.float64()),
            "f": pa.array(draw.normal(0, 1, count), pa.float32()),
            "w": pa.array(draw.integers(-5, 5, count), pa.int16(), mask=draw.random(count) < 0.1),
            "b": pa.array(draw.random(count) < 0.5, mask=draw.random(count) < 0.1),
            "word": pa.array([None if at == 3 else f"w{at}" for at in draw.integers(0, 5, count)], pa.string()),
            "born": pa.array([dt.date(1990, 1, 1) + dt.timedelta(int(at)) for at in draw.integers(0, 9, count)]),
            "late": pa.array(draw.integers(0, 2, count), pa.int64()),
        }
    )
    if is_clean:
        return table
    return pa.concat_tables([table, table.slice(0, count // 4), table.slice(0, 5)])


def declare(root: Path, table: pa.Table, **changes: Any) -> Settings:
    """The pipeline with these rows in three files, as JSON, which is YAML."""
    folder, data = root / "dags" / NAME, root / "data"
    partition = changes.pop("partition", None)
    days = [DAY - dt.timedelta(1), DAY] if partition else []
    for target in [data / f"{partition}={day}" for day in days] or [data]:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        third = -(-table.num_rows // 3)
        for part in range(3):
            pq.write_table(table.slice(part * third, third), target / f"{part}.parquet", row_group_size=70)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.sql").write_text(changes.pop("sql", SQL.format(key="name, n AS number")))
    declared = {
        "pipeline": NAME,
        "description": "Made-up people.",
        "owner": "tests",
        "start": "2013-07-01",
        "entity": {"source": NAME, "key": changes.pop("key", ["name", "number"])},
        "sources": {
            NAME: {"path": str(data), "forbidden": ["late"]} | ({"partition_by": partition} if partition else {})
        },
        "features": {"sql": "features.sql", "numeric": NUMERIC, "categorical": CATEGORICAL},
        "models": {"champion": {"bundle": "latest"}},
        "training": {
            "label": "late = 1",
            "split": {"holdout_share": 0.3},
            "rounds": 15,
            "params": {"min_data_in_leaf": 5},
        }
        | ({"start": str(days[0]), "end": str(days[0])} if partition else {}),
    }
    (folder / "pipeline.yaml").write_text(_DATE.sub(r"\1", json.dumps(declared | changes)))
    suites = {
        part: [{"type": "expect_column_to_exist", "kwargs": {"column": column}}]
        for part, column in (("inputs", "x"), ("predictions", "score"))
    }
    (folder / "expectations.yaml").write_text(json.dumps(suites))
    return Settings(pipelines=root / "dags", store=root / "store")


@pytest.fixture(scope="module")
def store(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a bundle of these features."""
    root = tmp_path_factory.mktemp("people")
    made = declare(root, rows(400, is_clean=True), key=["name"], sql=SQL.format(key="name"))
    train(spark.newSession(), made, load_pipeline(made, NAME))
    return root / "store"


def staged(root: Path, session: "SparkSession", store: Path, table: pa.Table, **changes: Any) -> RunManifest:
    if routes := changes.pop("routes", []):
        bundle = (store / NAME / "bundles" / "latest.txt").read_text().strip()
        named = [{"name": f"r{at}", "where": where, "bundle": bundle} for at, where in enumerate(routes)]
        otherwise = changes.pop("otherwise", "champion")
        changes["models"] = {"champion": {"bundle": "latest"}, "routes": named, "otherwise": otherwise}
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
