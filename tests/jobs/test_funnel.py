"""The funnel: who survives the cheap model, who decided each row, and what an audit says of the rest."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.bundles import Bundle, open_bundle
from jobs.dealing import dealt, drawn
from jobs.funnel import sieve_of
from jobs.lineup import Lineup
from lookup.erasing import erase
from lookup.store import Store
from lookup.table import RedisTable
from schemas.declared import load_pipeline
from schemas.errors import DeclarationError, InputError
from schemas.models import Challenger, Funnel, Models
from schemas.run import CHAMPION, ENTITY_ID, FEATURES, PREDICTIONS, SHADOW, RunManifest
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import CHAMPION as DECLARED_CHAMPION
from tests.jobs.runs import PIPELINE, WEEK, almanac, flight_id, look_up, rows
from tests.jobs.runs import declare as declare_models
from validation.recall import recall_interval

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

BUDGET = 50
# One feature and few trees: many rows have the same cheap score, so that the cut goes through a tie.
CHEAP = "rounds: 2, features: [day_of_week], audit: 0.3, positive_at: 0.5"


@pytest.fixture(autouse=True)
def _one_session(spark: "SparkSession") -> None:
    """Runs find the session of the tests, as they find one of their process."""


def declare(settings: Settings, spark: "SparkSession", *models: str) -> None:
    """As others do; but so poor a model spreads its scores otherwise than the champion, which shall not stop a run."""
    loose = "scores: {warn: 9}"
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, ("scores: {warn: 1, fail: 2}", loose), ("scores: {warn: 0.1, fail: 0.5}", loose))
    declare_models(settings, spark, *models)


def bundle_of(settings: Settings, manifest: RunManifest, variant: str) -> Bundle:
    return open_bundle(Store(settings.store, PIPELINE).bundles / manifest.models[variant])


def ranking(settings: Settings, manifest: RunManifest) -> list[str]:
    """All ids as the cheap model ranks them, worked out by hand."""
    features = rows(settings, manifest, FEATURES)
    scores = bundle_of(settings, manifest, "cheap").predict(features)[:, 0].tolist()
    ids = features.column(ENTITY_ID).to_pylist()
    return [entity for _, entity in sorted(zip([-score for score in scores], ids, strict=True))]


def decided(predictions: pa.Table, variant: str) -> pa.Table:
    return predictions.filter(pc.equal(predictions.column("variant"), variant))


def test_the_champion_scores_just_the_budget_and_the_row_says_who_decided(
    settings: Settings, spark: "SparkSession"
) -> None:
    alone = rows(settings, almanac(settings).manifest, PREDICTIONS)
    declare(settings, spark, f"funnel: {{budget: {BUDGET}, {CHEAP}}}")

    finished = almanac(settings)

    manifest, measure = finished.manifest, finished.report.funnel
    predictions, audit = rows(settings, manifest, PREDICTIONS), rows(settings, manifest, SHADOW)
    survivors = ranking(settings, manifest)[:BUDGET]
    features = rows(settings, manifest, FEATURES)
    cheap = pa.array(bundle_of(settings, manifest, "cheap").predict(features)[:, 0])
    assert manifest.counts.variants == {CHAMPION: BUDGET, "cheap": WEEK - BUDGET}
    assert sorted(decided(predictions, CHAMPION).column(ENTITY_ID).to_pylist()) == sorted(survivors)
    is_champions = pc.equal(predictions.column("variant"), CHAMPION)
    expected = pc.if_else(is_champions, alone.column("score"), cheap)
    assert predictions.column("score").equals(expected)
    # The audit has the champion's word for some of the rejected, and is served to nobody.
    audited = pc.is_in(predictions.column(ENTITY_ID), value_set=audit.column(ENTITY_ID).combine_chunks())
    assert set(decided(predictions.filter(audited), "cheap").column(ENTITY_ID)) == set(audit.column(ENTITY_ID))
    assert audit.column("score").equals(alone.filter(audited).column("score"))
    assert manifest.counts.dealt == {"cheap": audit.num_rows}
    assert 0.15 * WEEK < audit.num_rows < 0.45 * WEEK
    # What the report says is what the champion says of everybody.
    assert measure is not None
    positive = pc.greater_equal(alone.column("score"), 0.5)
    assert measure.positives == pc.sum(pc.and_(positive, is_champions)).as_py()
    assert measure.audited_positives == pc.sum(pc.and_(positive, audited)).as_py()
    truth = measure.positives / pc.sum(positive).as_py()
    assert measure.recall.low <= truth <= measure.recall.high
    page = (Store(settings.store, PIPELINE).run_folder(manifest.run_id) / "report.html").read_text()
    assert "Funnel cheap" in page
    (answer,) = look_up(settings, survivors[0])
    assert (answer.variant, answer.model) == (CHAMPION, manifest.models[CHAMPION])


def test_a_funnel_that_loses_too_much_stops_the_run(settings: Settings, spark: "SparkSession") -> None:
    few = CHEAP.replace("positive_at: 0.5", "positive_at: 0.0001")
    declare(settings, spark, f"funnel: {{budget: 5, {few}, min_recall: {{warn: 0.9, fail: 0.5}}}}")

    with pytest.raises(Exception, match=r"recall of cheap: .*expected at least 90\.0%, 50\.0% or it stops"):
        almanac(settings)


def test_an_erased_entity_leaves_the_audit_too(settings: Settings, spark: "SparkSession", redis_client: Any) -> None:
    declare(settings, spark, f"funnel: {{threshold: 2, {CHEAP.replace('0.3', '1.0')}}}")  # nobody survives
    manifest, entity = almanac(settings).manifest, flight_id(settings, 3)
    store = Store(settings.store, PIPELINE)
    assert manifest.counts.variants == {"cheap": WEEK}

    erase(store, RedisTable(redis_client, PIPELINE), entity, by="test")

    left = store.manifest(manifest.run_id)
    assert entity not in rows(settings, left, SHADOW).column(ENTITY_ID).to_pylist()
    assert left.counts.dealt == {"cheap": WEEK - 1}


def test_routes_go_round_the_funnel_and_a_canary_is_held_against_what_it_lets_through(
    settings: Settings, spark: "SparkSession"
) -> None:
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, ("rules:\n", "rules:\n  - {name: bounded, check: score < 2, on: predictions}\n"))
    declare(
        settings, spark,
        f"funnel: {{share: 0.25, {CHEAP}}}",
        "routes: [{name: jfk, where: \"origin = 'JFK'\"}]",
        "challengers: [{name: canary, mode: canary, share: 0.2, rounds: 5}, {name: fewer, mode: shadow, rounds: 1}]",
    )  # fmt: skip

    finished = almanac(settings)

    manifest = finished.manifest
    predictions, shadow = rows(settings, manifest, PREDICTIONS), rows(settings, manifest, SHADOW)
    at_jfk = pc.equal(rows(settings, manifest, FEATURES).column("origin"), "JFK")
    entering = pc.sum(pc.invert(at_jfk)).as_py()
    served = decided(predictions, CHAMPION).num_rows
    beside = {name: rows_of(settings, manifest, name) for name in ("canary", "cheap", "fewer")}
    assert served + decided(beside["canary"], CHAMPION).num_rows == round(0.25 * entering)
    assert set(pc.unique(predictions.filter(at_jfk).column("variant")).to_pylist()) == {"jfk", "canary"}
    assert set(pc.unique(beside["canary"].column("variant")).to_pylist()) == {CHAMPION, "cheap", "jfk"}
    assert set(pc.unique(beside["cheap"].column("variant")).to_pylist()) == {CHAMPION}
    assert shadow.num_rows == sum(table.num_rows for table in beside.values())
    assert finished.report.funnel is not None
    assert finished.report.funnel.survivors == served


def rows_of(settings: Settings, manifest: RunManifest, name: str) -> pa.Table:
    files = [file for file in manifest.files if f"/{name}-" in file.path or not file.path.startswith(SHADOW)]
    return rows(settings, manifest.model_copy(update={"files": tuple(files)}), SHADOW)


def test_the_cut_is_exact_whatever_the_partitioning(settings: Settings, spark: "SparkSession") -> None:
    (champion,) = (Store(settings.store, PIPELINE).bundles).glob("20*")
    bundle = open_bundle(champion)
    lineup = Lineup(bundle, {"cheap": bundle})
    names = [feature.name for feature in bundle.manifest.features]
    # Each holdout row many times under ids of its own, so that nearly every score is a tie.
    held = pa.concat_tables([bundle.holdout.select(names)] * 20)
    table = held.add_column(0, ENTITY_ID, pa.array([f"UA:{n}" for n in range(held.num_rows)]))
    scores = bundle.predict(table)[:, 0].tolist()
    order = sorted(zip([-score for score in scores], table.column(ENTITY_ID).to_pylist(), strict=True))
    frame = spark.createDataFrame(table)

    for partitions, budget in ((3, 777), (7, 777), (4, len(order) - 1), (2, len(order))):
        models = Models(funnel=Funnel(budget=budget, audit=0.1, positive_at=0.5))
        assert models.funnel is not None
        spread = dealt(frame.repartition(partitions), models, where="test")
        cut = sieve_of(spread, models.funnel, lineup).cut
        kept = cut.survivors(bundle.predict(table)[:, 0], table.column(ENTITY_ID).combine_chunks())
        survivors = set(table.filter(pa.array(kept)).column(ENTITY_ID).to_pylist())
        assert survivors == {entity for _, entity in order[:budget]}


def test_the_audit_is_no_part_of_what_a_challenger_is_dealt(spark: "SparkSession") -> None:
    entities = spark.range(20_000).selectExpr("concat('UA:', id) AS entity_id")
    funnel = Funnel(budget=1, audit=0.2, positive_at=0.5)
    models = Models(funnel=funnel, challengers=[Challenger(name="new", mode="ab", share=0.2)])

    found = dealt(entities, models, where="test")

    both = found.where("__other_cheap = 'champion' AND __other_new IS NOT NULL").count()
    assert abs(both - 800) < 150


def test_the_audits_of_a_hundred_salts_cover_the_true_recall(spark: "SparkSession") -> None:
    rejected, positives = 20_000, 300
    is_lost = np.random.default_rng(7).random(rejected) < 0.004
    truth = positives / (positives + is_lost.sum())
    entities = spark.range(rejected).selectExpr("concat('UA:', id) AS entity_id", "id")

    audits = entities.select("id", *(drawn(0.05, f"audit:{salt}").alias(str(salt)) for salt in range(100)))
    table = audits.toArrow().sort_by("id")

    covered = 0
    for salt in range(100):
        audit = table.column(str(salt)).to_numpy()
        found = recall_interval(positives, rejected, int(audit.sum()), int((audit & is_lost).sum()), 0.95)
        covered += found.low <= truth <= found.high
    assert covered >= 90


def test_a_cheap_bundle_that_was_changed_stops_the_run(settings: Settings, spark: "SparkSession") -> None:
    (champion,) = (Store(settings.store, PIPELINE).bundles).glob("20*")
    models = Models(funnel=Funnel(budget=5, audit=0.1, positive_at=0.5))
    assert models.funnel is not None
    bundle = replace(open_bundle(champion), digest="0" * 64)
    frame = spark.createDataFrame(bundle.holdout.slice(0, 1))

    with pytest.raises(InputError, match="BUNDLE_CHECKSUM"):
        sieve_of(dealt(frame, models, where="test"), models.funnel, Lineup(bundle, {"cheap": bundle}))


BAD_FUNNELS = {
    "two ways to cut": (f"{{budget: 5, share: 0.1, {CHEAP}}}", "share and budget to cut by"),
    "no way to cut": (f"{{{CHEAP}}}", "nothing to cut by: declare one of threshold, share and budget"),
    "no audit": ("{budget: 5, positive_at: 0.5}", "audit"),
    "a feature that is none": (
        "{budget: 5, audit: 0.1, positive_at: 0.5, features: [nope]}", "nope is not a declared feature",
    ),
    "the champion's name": (f"{{name: champion, budget: 5, {CHEAP}}}", "needs a name of its own"),
    "levels the wrong way": (
        f"{{budget: 5, {CHEAP}, min_recall: {{warn: 0.5, fail: 0.9}}}}", "warn 0.5 is below fail 0.9",
    ),
    "no row that enters": (
        f"{{budget: 5, {CHEAP}}}\n  routes: [{{name: a, where: 'true'}}]\n  otherwise: quarantine",
        "none to its funnel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FUNNELS)
def test_a_funnel_that_cannot_be_is_refused(settings: Settings, name: str) -> None:
    funnel, told = BAD_FUNNELS[name]
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, (DECLARED_CHAMPION, f"{DECLARED_CHAMPION}  funnel: {funnel}\n"))

    with pytest.raises(DeclarationError) as caught:
        load_pipeline(settings, PIPELINE)
    assert told in str(caught.value)
