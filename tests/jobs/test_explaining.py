"""Explanations of a run: kept of those that were asked for, told of everybody, forgotten with who is erased."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from jobs.bundles import open_bundle
from jobs.cli import app
from jobs.contributions import explained
from jobs.explaining import EXPLAINED, Explainer
from jobs.explanations import explanation_of
from jobs.predicting import Contender
from lookup.erasing import erase
from lookup.store import Store
from lookup.table import RedisTable
from schemas.errors import DeclarationError, RefusedError
from schemas.explain import Explain
from schemas.run import ENTITY_ID, EXPLANATIONS, FEATURES, PREDICTIONS
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import PIPELINE, WEEK, almanac, declare, rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def _one_session(spark: "SparkSession") -> None:
    """Runs find the session of the tests, as they find one of their process."""


def test_a_share_of_the_entities_is_explained_by_the_model_that_serves_each(
    settings: Settings, spark: "SparkSession", redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = almanac(settings).manifest
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, ("\ntraining:\n", "\nexplain: {top: 2, share: 0.4}\n\ntraining:\n"))
    rewrite(path, ("rules:\n", "rules:\n  - {name: bounded, check: score < 2, on: predictions}\n"))
    declare(settings, spark, "routes: [{name: jfk, where: \"origin = 'JFK'\"}]")

    manifest = almanac(settings).manifest

    store = Store(settings.store, PIPELINE)
    kept, predictions = rows(settings, manifest, EXPLANATIONS), rows(settings, manifest, PREDICTIONS)
    mine = pc.is_in(predictions.column(ENTITY_ID), value_set=kept.column(ENTITY_ID).combine_chunks())
    assert 0.25 * WEEK < kept.num_rows < 0.55 * WEEK
    assert predictions.filter(mine).select([ENTITY_ID, "model"]).equals(kept.select([ENTITY_ID, "model"]))
    assert set(pc.unique(kept.column("model")).to_pylist()) == set(manifest.models.values())
    scores = predictions.filter(mine).column("score").to_numpy()
    assert np.abs(1 / (1 + np.exp(-kept.column("raw").to_numpy())) - scores).max() < 1e-12
    assert set(pc.list_value_length(kept.column("contributions")).to_pylist()) == {2}
    assert not alone.files_in(EXPLANATIONS)
    _tells_of_everybody(settings, store, kept, predictions, mine, monkeypatch)
    _forgets(store, RedisTable(redis_client, PIPELINE), kept, manifest.run_id, settings)


def test_a_combination_is_not_explained(settings: Settings, spark: "SparkSession") -> None:
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, ("\ntraining:\n", "\nexplain: {}\n\ntraining:\n"))
    both = "{how: mean, members: [{name: a, rounds: 3}, {name: b, rounds: 4}]}"
    declare(settings, spark, f"routes: [{{name: jfk, where: \"origin = 'JFK'\", combine: {both}}}]")

    with pytest.raises(DeclarationError, match=r"explain: jfk: bundle jfk-.* of the flavor ensemble"):
        almanac(settings)


def test_a_batch_is_explained_in_its_order_and_only_where_it_is_asked_for(settings: Settings) -> None:
    (folder,) = (Store(settings.store, PIPELINE).bundles).glob("20*")
    bundle = open_bundle(folder)
    table = bundle.holdout.slice(0, 6).append_column("__variant", pa.array(["b", "a", "b", "a", "a", "b"]))
    asked = pa.array([True, True, False, True, False, True])
    (batch,) = table.append_column(EXPLAINED, asked).combine_chunks().to_batches()
    contender = Contender(bundle.id, bundle.folder, bundle.digest)
    explain = Explainer(3, {"a": contender, "b": contender})

    assert explain(batch).equals(explained(bundle, table.filter(asked), 3))
    assert explain(batch.filter(pa.array([False] * 6))).num_rows == 0


def _tells_of_everybody(
    settings: Settings,
    store: Store,
    kept: pa.Table,
    predictions: pa.Table,
    mine: pa.ChunkedArray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`almanac explain` tells what is kept, and works out what is not, in the same way."""
    for name, value in (
        ("PIPELINES", settings.pipelines),
        ("STORE", settings.store),
        ("REDIS_URL", settings.redis_url),
    ):
        monkeypatch.setenv(f"ALMANAC_{name}", str(value))
    asked, other = kept.to_pylist()[0], predictions.filter(pc.invert(mine)).to_pylist()[0]

    for entity, is_stored in ((asked[ENTITY_ID], True), (other[ENTITY_ID], False)):
        result = CliRunner().invoke(app, ["explain", PIPELINE, entity, "--json"])
        told = json.loads(result.stdout)
        assert (told["id"], told["stored"]) == (entity, is_stored)
        assert len(told["contributions"]) == 2
        assert set(told["values"]) == {each["feature"] for each in told["contributions"]}
    assert told["outputs"]["score"] == other["score"]
    words = CliRunner().invoke(app, ["explain", PIPELINE, asked[ENTITY_ID]]).output
    assert "expected of anybody" in words

    live = store.live()
    assert live is not None
    manifest = store.manifest(live.run_id)
    again = manifest.model_copy(update={"files": tuple(f for f in manifest.files if EXPLANATIONS not in f.path)})
    found = explanation_of(store, again, asked[ENTITY_ID], Explain(top=2))
    assert (found.explanation, found.is_stored) == (asked, False)
    with pytest.raises(RefusedError, match=r"id 'nobody': its row is not there.*EXPLAIN_UNKNOWN"):
        explanation_of(store, manifest, "nobody", Explain())


def _forgets(store: Store, table: RedisTable, kept: pa.Table, run_id: str, settings: Settings) -> None:
    """What is erased is explained no more."""
    entity = kept.column(ENTITY_ID)[0].as_py()

    erase(store, table, entity, by="test")

    left = store.manifest(run_id)
    assert rows(settings, left, EXPLANATIONS).num_rows == kept.num_rows - 1
    assert rows(settings, left, FEATURES).num_rows == WEEK - 1
    with pytest.raises(RefusedError, match="EXPLAIN_UNKNOWN"):
        explanation_of(store, left, entity, Explain())
