"""Made-up people, of one Parquet source that features.sql only picks columns of: what may go the short way."""

import datetime as dt
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.training import train
from schemas.declared import load_pipeline
from schemas.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NAME = "people"
DAY = dt.date(2013, 7, 2)
NUMERIC, CATEGORICAL = ["x", "f", "w", "b", "n"], ["word", "code", "flag", "born"]
SQL = "SELECT {key}, x, f, w, b, n, word, w AS code, b AS flag, born FROM people"
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


def trained(root: Path, session: "SparkSession") -> Path:
    """A store with a bundle of these features."""
    made = declare(root, rows(400, is_clean=True), key=["name"], sql=SQL.format(key="name"))
    train(session, made, load_pipeline(made, NAME))
    return root / "store"


def routed(store: Path, routes: list[str], otherwise: str = "champion") -> dict[str, Any]:
    """Models that are all the one of that store: the champion, and one for each of these predicates."""
    bundle = (store / NAME / "bundles" / "latest.txt").read_text().strip()
    named = [{"name": f"r{at}", "where": where, "bundle": bundle} for at, where in enumerate(routes)]
    return {"champion": {"bundle": "latest"}, "routes": named, "otherwise": otherwise}
