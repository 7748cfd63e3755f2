"""Rows that did not change are given the outputs of an earlier run: the bytes are those of scoring all of them."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import jobs.tasks
from jobs.reusable import reuse_of_plan
from jobs.stages import Plan, check_inputs, score
from jobs.training import train
from lookup.erasing import erase
from lookup.table import RedisTable
from lookup.writer import write_rows
from schemas.content import write_atomically
from schemas.declared import load_pipeline
from schemas.errors import InputError
from schemas.run import ENTITY_ID, FEATURES, FINGERPRINTS, MANIFEST_FILE, PREDICTIONS, Reused, RunManifest
from schemas.settings import Settings
from tests.jobs.test_shortcut import DAY, NAME, SQL, TAUTOLOGY, declare, rows

if TYPE_CHECKING:
    import redis
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

ROWS = 400
TABLE = rows(ROWS, is_clean=True)
# A fifth of the rows is set aside, and stands among the predictions as withheld.
RULES = [{"name": "has_word", "check": "word IS NOT NULL"}]
WITHHELD = TABLE["word"].null_count
WAYS: dict[str, list[dict[str, str]]] = {
    "short": RULES,
    "long": [*RULES, *TAUTOLOGY],
    "long, and judged": [*RULES, {"name": "low", "check": "score < 0.55", "on": "predictions"}],
}


def declared(root: Path, table: pa.Table, way: str = "short", **changes: Any) -> Settings:
    models = {"champion": {"bundle": "latest"}, "reuse": {"audit": 0.1}} | changes.pop("models", {})
    settled = {"key": ["name"], "sql": SQL.format(key="name"), "rules": WAYS[way], "quarantine": {"serve": "nothing"}}
    return declare(root, table, models=models, **settled | changes)


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.tasks, "ROWS_PER_FILE", 70)


@pytest.fixture(scope="module")
def store(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a bundle, and a run of either way."""
    root = tmp_path_factory.mktemp("reused")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.tasks, "ROWS_PER_FILE", 70)
        for way in WAYS:
            settings = declared(root, TABLE, way)
            if way == "short":
                train(spark.newSession(), settings, load_pipeline(settings, NAME))
            manifest = score(check_inputs(settings, NAME, DAY), spark.newSession)
            assert manifest.way is not None
            assert manifest.way.name == way.partition(",")[0]
            assert manifest.reused is not None
            assert manifest.reused.rows == 0
    return root / "store"


def changed(table: pa.Table) -> pa.Table:
    """A number, a missing number that is NaN now, a word, a word that is missing now; rows come and go and move."""
    x, word = table["x"].to_pylist(), table["word"].to_pylist()
    none = x.index(None)
    x[none], x[(none + 7) % ROWS] = float("nan"), 77.0
    word[11], word[12] = None if word[11] else "w1", "new"
    table = table.set_column(table.schema.get_field_index("x"), "x", pa.array(x))
    table = table.set_column(table.schema.get_field_index("word"), "word", pa.array(word))
    came = rows(3, seed=8, is_clean=True)
    came = came.set_column(0, "name", pa.array(["q-1", "q-2", "q-3"]))
    copies = table.slice(20, 2)  # of rows that are as they were
    return pa.concat_tables([came, table.slice(200), table.slice(0, 197), copies])


def planned(root: Path, store: Path, table: pa.Table, way: str = "short", **changes: Any) -> Plan:
    settings = declared(root, table, way, **changes)
    shutil.copytree(store, root / "store", dirs_exist_ok=True)
    return check_inputs(settings, NAME, DAY)


def both(plan: Plan, session: "SparkSession") -> tuple[RunManifest, RunManifest]:
    """The run by reuse, and in full."""
    again = plan.store.folder.parent.parent / "full"
    shutil.copytree(plan.store.folder.parent, again)
    full = replace(plan, full=True, settings=replace(plan.settings, store=again))
    return score(plan, session.newSession), score(full, session.newSession)


def base_of(plan: Plan) -> RunManifest:
    reuse = reuse_of_plan(plan)
    assert reuse is not None
    assert reuse.manifest is not None, reuse.why
    return reuse.manifest


@pytest.mark.parametrize("way", WAYS)
def test_reuse_leaves_the_bytes_of_scoring_all_rows(
    way: str, spark: "SparkSession", store: Path, tmp_path: Path
) -> None:
    plan = planned(tmp_path, store, changed(TABLE), way)

    reusing, full = both(plan, spark)

    assert reusing.files == full.files
    assert (reusing.counts, reusing.content) == (full.counts, full.content)
    assert reusing.reused is not None
    assert reusing.reused.base == base_of(plan).run_id
    assert reusing.counts.scored - 10 < reusing.reused.rows < reusing.counts.scored - 1
    assert 0 < reusing.reused.audited < ROWS // 2
    assert full.reused == Reused(why="all rows were to be scored (--full)")


def test_where_nothing_changed_all_scored_rows_are_reused(spark: "SparkSession", store: Path, tmp_path: Path) -> None:
    order = pa.array(np.random.default_rng(1).permutation(ROWS))
    reusing, full = both(planned(tmp_path, store, TABLE.take(order)), spark)
    assert reusing.reused is not None
    assert reusing.reused.rows == reusing.counts.scored == ROWS - WITHHELD
    assert reusing.files == full.files


def test_rows_that_are_cut_into_other_files_are_scored(spark: "SparkSession", store: Path, tmp_path: Path) -> None:
    more = rows(100, seed=9, is_clean=True)
    more = more.set_column(0, "name", pc.binary_join_element_wise("more", more["name"], "-"))
    reusing, full = both(planned(tmp_path, store, pa.concat_tables([TABLE, more])), spark)
    assert reusing.reused is not None
    assert reusing.reused.rows == 0
    assert "cut into other files" in reusing.reused.why
    assert reusing.files == full.files


@pytest.mark.parametrize(
    "changes",
    [
        {"sql": SQL.format(key="name") + "-- another text\n"},
        {"rules": [*RULES, {"name": "known", "check": "x IS NOT NULL"}]},
        {"models": {"routes": [{"name": "r", "where": "word = 'w1'", "bundle": "latest"}]}},
    ],
)
def test_another_declaration_of_scores_reuses_nothing(changes: dict[str, Any], store: Path, tmp_path: Path) -> None:
    if "models" in changes:
        bundle = (store / NAME / "bundles" / "latest.txt").read_text().strip()
        changes["models"]["routes"][0]["bundle"] = bundle
    reuse = reuse_of_plan(planned(tmp_path, store, TABLE, **changes))
    assert reuse is not None
    assert reuse.manifest is None
    assert "are others than those of any earlier run" in reuse.why


def test_another_bundle_reuses_nothing(spark: "SparkSession", store: Path, tmp_path: Path) -> None:
    before = planned(tmp_path, store, TABLE)
    base_of(before)
    training = {"label": "late = 1", "split": {"holdout_share": 0.3}, "rounds": 3, "params": {"min_data_in_leaf": 5}}
    other = declared(tmp_path, TABLE, training=training)
    train(spark.newSession(), other, load_pipeline(other, NAME))
    reuse = reuse_of_plan(check_inputs(declared(tmp_path, TABLE), NAME, DAY))
    assert reuse is not None
    assert reuse.manifest is None


def test_what_challengers_predict_is_not_reused(store: Path, tmp_path: Path) -> None:
    bundle = (store / NAME / "bundles" / "latest.txt").read_text().strip()
    shadow = {"name": "new", "mode": "shadow", "bundle": bundle}
    reuse = reuse_of_plan(planned(tmp_path, store, TABLE, models={"challengers": [shadow]}))
    assert reuse is not None
    assert (reuse.manifest, reuse.why) == (None, "what challengers predict is not reused")


def test_how_predictions_are_come_by_is_no_part_of_a_run_id(store: Path, tmp_path: Path) -> None:
    models: list[dict[str, Any]] = [{"reuse": {"audit": 0.5}}, {"reuse": None}]
    first, second = (planned(tmp_path, store, TABLE, models=each) for each in models)
    assert first.run_id == second.run_id
    assert reuse_of_plan(second) is None


def rewritten(plan: Plan, base: RunManifest, change: Callable[[RunManifest], RunManifest]) -> None:
    path = plan.store.run_folder(base.run_id) / MANIFEST_FILE
    write_atomically(path, change(base).model_dump_json(indent=2))


def test_what_another_engine_scored_is_not_reused(spark: "SparkSession", store: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path, store, changed(TABLE))
    parity = [one.model_copy(update={"engines": {"another engine": 6}}) for one in base_of(plan).parity]
    rewritten(plan, base_of(plan), lambda base: base.model_copy(update={"parity": tuple(parity)}))
    reusing, full = both(plan, spark)
    assert reusing.reused is not None
    assert (reusing.reused.rows, reusing.reused.audited) == (0, 0)
    assert reusing.files == full.files


@pytest.mark.parametrize("part", [PREDICTIONS, FINGERPRINTS])
def test_a_part_of_which_a_byte_changed_is_scored_anew(
    part: str, spark: "SparkSession", store: Path, tmp_path: Path
) -> None:
    plan = planned(tmp_path, store, pa.concat_tables([TABLE.slice(1), TABLE.slice(0, 1)]))
    base = base_of(plan)
    path = plan.store.run_folder(base.run_id) / base.files_in(part)[0].path
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    reusing, full = both(plan, spark)
    assert reusing.reused is not None
    assert reusing.reused.rows == reusing.counts.scored - base.files_in(FEATURES)[0].rows
    assert reusing.files == full.files


@pytest.mark.parametrize("way", ["short", "long, and judged"])
def test_an_audit_finds_predictions_that_were_changed_with_their_digests(
    way: str, spark: "SparkSession", store: Path, tmp_path: Path
) -> None:
    plan = planned(tmp_path, store, changed(TABLE), way, models={"reuse": {"audit": 1.0}})
    base = base_of(plan)
    folder, file = plan.store.run_folder(base.run_id), base.files_in(PREDICTIONS)[0]
    table = pq.read_table(folder / file.path)
    scores = pc.add(table["score"], 0.25)
    table = table.set_column(table.schema.get_field_index("score"), table.schema.field("score"), scores)
    forged = write_rows(folder / PREDICTIONS, Path(file.path).name, table.schema, table.to_batches())
    files = tuple(forged if one == file else one for one in base.files)
    rewritten(plan, base, lambda _: base.model_copy(update={"files": files}))

    with pytest.raises(InputError, match=r"audited rows score otherwise.*--full.*REUSE_AUDIT"):
        score(plan, spark.newSession)

    assert not plan.store.run_folder(plan.run_id).exists()
    assert score(replace(plan, full=True), spark.newSession).counts.scored > 0


def test_an_erased_entity_does_not_come_back(
    spark: "SparkSession", store: Path, tmp_path: Path, redis_client: "redis.Redis"
) -> None:
    plan = planned(tmp_path, store, TABLE)
    base = base_of(plan)
    folder = plan.store.run_folder(base.run_id)
    first = base.files_in(FEATURES)[0]
    entity = pq.read_table(folder / first.path)[ENTITY_ID][0].as_py()
    erase(plan.store, RedisTable(redis_client, NAME), entity, by="a test")

    left = base_of(plan)
    assert len(left.files_in(FINGERPRINTS)) == len(base.files_in(FINGERPRINTS)) - 1
    assert not (folder / FINGERPRINTS / Path(first.path).name).exists()
    without = TABLE.filter(pc.not_equal(TABLE["name"], entity))
    reusing, full = both(check_inputs(declared(tmp_path, without), NAME, DAY), spark)
    assert reusing.reused is not None
    assert reusing.reused.rows == reusing.counts.scored - (first.rows - 1)
    assert reusing.files == full.files
    ids = [
        each
        for file in reusing.files_in(PREDICTIONS)
        for each in pq.read_table(plan.store.run_folder(reusing.run_id) / file.path)[ENTITY_ID].to_pylist()
    ]
    assert entity not in ids
