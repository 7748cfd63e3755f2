"""Routes, and a challenger in the shadow or before a share of the entities: who scored whom, and who can see it."""

from math import sqrt
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from jobs.dealing import dealt
from jobs.training import train
from lookup.erasing import erase
from lookup.store import Store
from lookup.table import RedisTable
from schemas.binding import bound
from schemas.declared import load_pipeline
from schemas.errors import DeclarationError, InputError
from schemas.models import Challenger, Models, Route
from schemas.report import Verdict
from schemas.run import FEATURES, PREDICTIONS, SHADOW, Counts, RunManifest
from schemas.settings import Settings
from schemas.sql import check_sql
from tests.flights import rewrite
from tests.jobs.runs import CHAMPION, NEXT, PIPELINE, WEEK, almanac, declare, flight_id, look_up, rows
from validation.contest import check_sample_ratio

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

SCORES = ["entity_id", "score"]
JFK = "\"origin = 'JFK'\""


@pytest.fixture(autouse=True)
def _one_session(spark: "SparkSession") -> None:
    """Runs find the session of the tests, as they find one of their process."""


def test_rows_of_a_route_are_scored_by_its_model_and_the_others_by_the_champion(
    settings: Settings, spark: "SparkSession"
) -> None:
    declare(settings, spark, "routes:", f"  - {{name: jfk, where: {JFK}, params: {{num_leaves: 7}}}}")

    finished = almanac(settings)

    manifest = finished.manifest
    assert finished.report.verdict is Verdict.PASS
    assert [*manifest.models] == ["champion", "jfk"]
    assert manifest.models["jfk"].startswith("jfk-")
    predictions, features = rows(settings, manifest, PREDICTIONS), rows(settings, manifest, FEATURES)
    at_jfk = pc.equal(features.column("origin"), "JFK")
    for variant, mask in (("jfk", at_jfk), ("champion", pc.invert(at_jfk))):
        mine = predictions.filter(mask)
        assert pc.unique(mine.column("variant")).to_pylist() == [variant]
        assert pc.unique(mine.column("model")).to_pylist() == [manifest.models[variant]]
    assert manifest.counts.variants == {"champion": WEEK - at_jfk.to_numpy().sum(), "jfk": at_jfk.to_numpy().sum()}
    assert [one.model for one in manifest.parity] == [*manifest.models.values()]
    served = predictions.filter(at_jfk).slice(0, 1).to_pylist()[0]
    (answer,) = look_up(settings, str(served["entity_id"]))
    assert (answer.variant, answer.model) == ("jfk", manifest.models["jfk"])


def test_rows_that_no_route_takes_are_set_aside_where_that_is_declared(
    settings: Settings, spark: "SparkSession"
) -> None:
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, ("max_quarantined: 0.01", "max_quarantined: 0.9"))
    declare(settings, spark, "routes:", f"  - {{name: jfk, where: {JFK}}}", "otherwise: quarantine")

    manifest = almanac(settings).manifest

    aside = WEEK - manifest.counts.variants["jfk"]
    assert [*manifest.counts.variants] == ["jfk"]
    assert manifest.counts.reasons == {"no_route": aside}
    assert 0 < aside < WEEK


def test_a_shadow_scores_everybody_and_no_reader_sees_it(settings: Settings, spark: "SparkSession") -> None:
    alone = rows(settings, almanac(settings).manifest, PREDICTIONS)
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("min_rows: 20", "min_rows: 150"))
    declare(settings, spark, "challengers: [{name: fewer, mode: shadow, rounds: 5}]")

    finished = almanac(settings)

    manifest, contest = finished.manifest, finished.report.contests[0]
    shadow = rows(settings, manifest, SHADOW)
    assert rows(settings, manifest, PREDICTIONS).select(SCORES).equals(alone.select(SCORES))
    assert manifest.models["fewer"] != manifest.models["champion"]
    assert (shadow.num_rows, manifest.counts.dealt) == (WEEK, {"fewer": WEEK})
    assert pc.unique(shadow.column("model")).to_pylist() == [manifest.models["fewer"]]
    assert shadow.column("entity_id").equals(rows(settings, manifest, PREDICTIONS).column("entity_id"))
    assert not shadow.column("score").equals(rows(settings, manifest, PREDICTIONS).column("score"))
    assert {answer.model for answer in look_up(settings, *(flight_id(settings, at) for at in range(9)))} == {
        manifest.models["champion"]
    }
    assert (contest.mode, contest.rows, contest.unsound) == ("shadow", WEEK, 0)
    assert contest.challenger_mean == pytest.approx(pc.mean(shadow.column("score")).as_py())
    assert {group.column for group in contest.groups} == {"origin", "carrier"}
    assert sum(group.rows for group in contest.groups if group.column == "origin") == WEEK
    kennedy = next(group for group in contest.groups if group.value == "JFK")
    is_there = pc.equal(rows(settings, manifest, FEATURES).column("origin"), "JFK")
    two = (rows(settings, manifest, part).filter(is_there).column("score").to_numpy() for part in (PREDICTIONS, SHADOW))
    assert kennedy.rank_correlation == pytest.approx(spearmanr(*two).statistic)
    assert kennedy.top_decile_overlap is not None
    united = next(group for group in contest.groups if group.value == "UA")
    assert united.rows < 150  # too few for an order
    assert united.rank_correlation is united.top_decile_overlap is None
    page = (Store(settings.store, PIPELINE).run_folder(manifest.run_id) / "report.html").read_text()
    assert "same highest tenth" in page


def test_a_canary_serves_its_share_and_the_champions_word_is_kept_beside(
    settings: Settings, spark: "SparkSession"
) -> None:
    alone = rows(settings, almanac(settings).manifest, PREDICTIONS)
    declare(settings, spark, "challengers: [{name: canary, mode: canary, share: 0.1, rounds: 5}]")

    finished = almanac(settings)

    manifest = finished.manifest
    predictions, kept = rows(settings, manifest, PREDICTIONS), rows(settings, manifest, SHADOW)
    canary = pc.equal(predictions.column("variant"), "canary")
    share = manifest.counts.variants["canary"]
    assert finished.report.verdict is Verdict.PASS
    assert abs(share - WEEK * 0.1) < 4 * sqrt(WEEK * 0.1 * 0.9)
    assert predictions.filter(canary).column("entity_id").equals(kept.column("entity_id"))
    assert kept.column("score").equals(alone.filter(canary).column("score"))
    others = pc.invert(canary)
    assert predictions.filter(others).select(SCORES).equals(alone.filter(others).select(SCORES))
    assert pc.unique(kept.column("variant")).to_pylist() == ["champion"]
    (check,) = [check for check in finished.report.checks if check.family == "challenger"]
    assert (check.name, check.verdict) == ("sample ratio of canary", Verdict.PASS)


def test_an_erased_entity_leaves_the_shadow_too(settings: Settings, spark: "SparkSession", redis_client: Any) -> None:
    declare(settings, spark, "challengers: [{name: fewer, mode: shadow, rounds: 5}]")
    manifest, entity = almanac(settings).manifest, flight_id(settings, 3)
    store = Store(settings.store, PIPELINE)

    erase(store, RedisTable(redis_client, PIPELINE), entity, by="test")

    left = store.manifest(manifest.run_id)
    assert rows(settings, left, SHADOW).num_rows == WEEK - 1
    assert entity not in rows(settings, left, SHADOW).column("entity_id").to_pylist()
    assert left.counts.dealt == {"fewer": WEEK - 1}


def test_an_entity_keeps_its_arm_whatever_the_partitioning_and_the_shares_are_fair(spark: "SparkSession") -> None:
    entities = spark.range(100_000).selectExpr("concat('UA:', id) AS entity_id")
    models = Models(challengers=[Challenger(name="new", mode="ab", share=0.3, salt="autumn")])

    def arms(partitions: int, models: Models) -> dict[str, str]:
        dealt_rows = dealt(entities.repartition(partitions), models, where="test").select("entity_id", "__variant")
        return {row[0]: row[1] for row in dealt_rows.collect()}

    first = arms(3, models)
    other = arms(5, Models(challengers=[Challenger(name="new", mode="ab", share=0.3, salt="winter")]))

    assert first == arms(7, models)
    for found in (first, other):
        share = sum(arm == "new" for arm in found.values())
        assert abs(share - 30_000) < 4 * sqrt(100_000 * 0.3 * 0.7)
    both = sum(first[entity] == other[entity] == "new" for entity in first)
    assert abs(both - 9_000) < 4 * sqrt(100_000 * 0.09 * 0.91)  # another salt deals anew


def test_a_larger_share_keeps_those_it_had(spark: "SparkSession") -> None:
    entities = spark.range(10_000).selectExpr("concat('UA:', id) AS entity_id")

    def served(share: float) -> set[str]:
        models = Models(challengers=[Challenger(name="canary", mode="canary", share=share)])
        found = dealt(entities, models, where="test").where("__variant = 'canary'").collect()
        return {row["entity_id"] for row in found}

    assert served(0.1) < served(0.2)


@pytest.mark.parametrize(
    ("dealt_rows", "verdict"), [(1000, "PASS"), (1140, "PASS"), (1200, "FAIL"), (800, "FAIL"), (0, "FAIL")]
)
def test_arms_that_are_not_what_was_declared_fail(dealt_rows: int, verdict: str) -> None:
    counts = Counts(entities=10_000, scored=10_000, quarantined=0, collapsed=0, dealt={"new": dealt_rows})

    assert check_sample_ratio(Challenger(name="new", mode="ab", share=0.1), counts).verdict == verdict


BAD_MODELS = {
    "a canary without a share": (
        "challengers: [{name: a, mode: canary}]", "canary serves a share of the entities: declare it",
    ),
    "a route named as the champion": (
        f"routes: [{{name: champion, where: {JFK}}}]", "champion: each route and challenger needs a name of its own",
    ),
    "a route and a challenger of one name": (
        f"routes: [{{name: a, where: {JFK}}}]\n  challengers: [{{name: a, mode: shadow}}]",
        "a: each route and challenger",
    ),
    "two that serve": (
        "challengers: [{name: a, mode: ab, share: 0.1}, {name: b, mode: canary, share: 0.1}]",
        "a, b: one challenger may serve at a time",
    ),
    "nothing that takes a row": ("otherwise: quarantine", "there is no route"),
    "a share of everybody": ("challengers: [{name: a, mode: ab, share: 1.0}]", "less than 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MODELS)
def test_models_that_cannot_be_are_refused(settings: Settings, name: str) -> None:
    line, told = BAD_MODELS[name]
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", (CHAMPION, f"{CHAMPION}  {line}\n"))

    with pytest.raises(DeclarationError) as caught:
        load_pipeline(settings, PIPELINE)
    assert told in str(caught.value)


def test_a_route_that_is_no_predicate_is_told_with_its_name(spark: "SparkSession") -> None:
    models = Models(routes=[Route(name="jfk", where="orign = 'JFK'")])

    with pytest.raises(DeclarationError, match=r"models\.routes\.jfk.*orign"):
        dealt(spark.sql("SELECT 'a' AS entity_id, 'JFK' AS origin"), models, where="p.yaml")


def test_a_route_whose_bundle_was_never_trained_is_told(settings: Settings) -> None:
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, (CHAMPION, f"{CHAMPION}  routes: [{{name: jfk, where: {JFK}}}]\n"))

    with pytest.raises(InputError, match=r"models\.jfk\.bundle: no bundle.*BUNDLE_NOT_FOUND"):
        almanac(settings)


def test_a_challenger_is_held_against_what_came_once_that_is_known(settings: Settings, spark: "SparkSession") -> None:
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    quarantined = "  max_quarantined: 0.01\n"
    calibration = "  calibration: {after_days: 1, error: {warn: 0.5, fail: 0.9}, min_rows: 20}\n"
    rewrite(path, (quarantined, quarantined + calibration))
    both = "{name: fewer, mode: shadow, rounds: 1}, {name: canary, mode: canary, share: 0.4, rounds: 5}"
    declare(settings, spark, f"challengers: [{both}]")
    first = almanac(settings)
    assert first.report.outcomes == ()

    report = almanac(settings, NEXT).report

    canary, shadow = report.outcomes
    assert report.calibrated == shadow.run_id == canary.run_id == first.manifest.run_id
    assert (shadow.name, shadow.rows) == ("fewer", WEEK)
    assert (canary.name, canary.rows) == ("canary", first.manifest.counts.variants["canary"])
    labels = dict(zip(*(known_labels(settings)[name] for name in ("id", "late")), strict=True))
    served, other = (rows(settings, first.manifest, part) for part in (PREDICTIONS, SHADOW))
    alike = other.filter(pc.equal(other.column("variant"), "fewer"))
    truth = [labels[entity] for entity in served.column("entity_id").to_pylist()]
    assert shadow.champion["auc"] == pytest.approx(roc_auc_score(truth, served.column("score").to_pylist()))
    assert shadow.challenger["auc"] == pytest.approx(roc_auc_score(truth, alike.column("score").to_pylist()))
    assert shadow.difference is not None
    difference = shadow.challenger["log_loss"] - shadow.champion["log_loss"]
    assert shadow.difference.value == pytest.approx(difference)
    assert shadow.difference.low > 0  # a single tree foresees less
    origins = rows(settings, first.manifest, FEATURES).column("origin").to_pylist()
    by_origin = {group.values[0]: group for group in shadow.groups if group.columns == ("origin",)}
    for origin in ("EWR", "JFK", "LGA"):
        chosen = [at for at, each in enumerate(origins) if each == origin]
        known, scores = [truth[at] for at in chosen], [served.column("score")[at].as_py() for at in chosen]
        assert by_origin[origin].rows == len(chosen)
        assert by_origin[origin].champion["auc"] == pytest.approx(roc_auc_score(known, scores))
    assert min(group.rows for group in (*shadow.groups, *canary.groups)) >= 20
    page = (Store(settings.store, PIPELINE).run_folder(report.run_id) / "report.html").read_text()
    assert "fewer by what came" in page
    assert "difference of log loss" in page
    assert "origin: JFK" in page


def known_labels(settings: Settings) -> dict[str, list[Any]]:
    """Each flight and whether it was late, read from the source as a person would."""
    found: dict[str, list[Any]] = {"id": [], "late": []}
    for folder in (settings.root / "data" / "flights").glob("date=*"):
        day = folder.name.removeprefix("date=")
        for row in pq.read_table(folder / "part-0.parquet", partitioning=None).to_pylist():
            found["id"].append(f"{row['carrier']}:{row['flight']}:{row['origin']}:{day}")
            found["late"].append(row["arr_delay"] is None or row["arr_delay"] > 15)
    return found


def test_a_route_and_the_features_go_by_the_parameters_of_the_run(settings: Settings, spark: "SparkSession") -> None:
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, ("\nfeatures:\n", "\nparameters:\n  at: {default: JFK, allowed: [JFK, EWR, LGA]}\nfeatures:\n"))
    declare(settings, spark, "routes:", '  - {name: theirs, where: "origin = :at"}')

    def taken(**parameters: str) -> tuple[RunManifest, set[str]]:
        manifest = almanac(settings, parameters=parameters).manifest
        features, predictions = rows(settings, manifest, FEATURES), rows(settings, manifest, PREDICTIONS)
        theirs = features.filter(pc.equal(predictions.column("variant"), "theirs"))
        return manifest, set(theirs.column("origin").to_pylist())

    first, jfk = taken()
    again, _ = taken(at="JFK")
    other, ewr = taken(at="EWR")

    assert (jfk, ewr) == ({"JFK"}, {"EWR"})
    assert first.run_id == again.run_id != other.run_id
    assert (first.parameters, other.parameters) == ({"at": "JFK"}, {"at": "EWR"})
    with pytest.raises(DeclarationError, match=r"parameter 'at': 'BOS'; expected one of JFK, EWR, LGA.*PARAM_VALUE"):
        taken(at="BOS")


def test_the_query_reads_a_parameter_as_it_reads_the_date(settings: Settings, spark: "SparkSession") -> None:
    folder = settings.pipelines / PIPELINE
    factor = "\nparameters:\n  factor: {type: float, default: 1.0}\nfeatures:\n"
    rewrite(folder / "pipeline.yaml", ("\nfeatures:\n", factor))
    rewrite(folder / "features.sql", ("  s.distance,", "  s.distance * :factor AS distance,"))
    train(spark, settings, bound(load_pipeline(settings, PIPELINE), {}))

    one, two = (almanac(settings, parameters=given).manifest for given in ({}, {"factor": 2}))

    before, after = (rows(settings, each, FEATURES).column("distance") for each in (one, two))
    assert pc.multiply(before, 2.0).equals(after)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("origin = :at", r"models\.routes\.jfk: parameter ':at'; expected none.*SQL_PARAMETER"),
        ("rand() < 0.5", r"models\.routes\.jfk: rand\(\).*SQL_UNSTEADY"),
        ("origin = 'JFK', 1", r"models\.routes\.jfk: .* is more than an expression.*SQL_SYNTAX"),
    ],
)
def test_a_route_that_is_not_a_steady_predicate_is_refused_before_spark(
    settings: Settings, where: str, told: str
) -> None:
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, (CHAMPION, f'{CHAMPION}  routes: [{{name: jfk, where: "{where}"}}]\n'))

    with pytest.raises(DeclarationError, match=told):
        check_sql(load_pipeline(settings, PIPELINE))
