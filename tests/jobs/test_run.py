"""A whole run on real Spark, Great Expectations and Redis: the main job and its promises."""

import datetime as dt
import io
import os
import shutil
import time
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console as RichConsole

from jobs.bundles import open_bundle
from jobs.console import Console
from jobs.kernel.library import load_library
from jobs.running import run
from jobs.scaffold import scaffold
from jobs.stages import check_inputs, score
from jobs.training import train
from jobs.verification import verify
from lookup.connect import connect
from lookup.erasing import erase
from lookup.publisher import Outcome, Publisher
from lookup.reader import Reader
from lookup.store import Store
from lookup.table import RedisTable
from schemas.content import sha256_file
from schemas.declared import load_pipeline
from schemas.errors import AlmanacError, BlockedError, DeclarationError, InputError, RefusedError, UnavailableError
from schemas.report import Verdict
from schemas.run import FEATURES, MANIFEST_FILE, PREDICTIONS, QUARANTINE, REPORT_FILE, REPORT_PAGE
from schemas.settings import Settings
from tests.customers import customers
from tests.flights import FLIGHTS, rewrite
from tests.jobs.runs import DATE, NEXT, PIPELINE, almanac, change_rows, column, flights_file, live_run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def _one_session(spark: "SparkSession") -> None:
    """Runs find the session of the tests, as they find one of their process."""


def test_a_run_scores_every_known_flight_of_the_week_and_serves_it(settings: Settings) -> None:
    finished = almanac(settings)
    assert finished.manifest.counts.scored == finished.manifest.counts.entities == 7 * 60
    assert finished.report.verdict is Verdict.PASS
    assert finished.published is not None
    assert finished.published.outcome is Outcome.LIVE
    folder = Store(settings.store, PIPELINE).run_folder(finished.manifest.run_id)
    stored = pq.read_table(folder / PREDICTIONS)
    with connect(str(settings.redis_url)) as client:
        _, answers = Reader(client, PIPELINE).lookup(stored.column("entity_id").to_pylist())
    assert [answer.outputs["score"] for answer in answers] == stored.column("score").to_pylist()
    assert {answer.status for answer in answers} == {"exact"}
    assert (folder / REPORT_PAGE).read_text().count("<html") == 1
    compiled = not isinstance(load_library(), str)
    assert [one.partition(" ")[0] for one in finished.manifest.parity[0].engines] == [
        "kernel" if compiled else "lightgbm:"
    ]


def test_what_is_served_is_what_the_named_model_says_of_the_stored_features(settings: Settings) -> None:
    manifest = almanac(settings).manifest
    store = Store(settings.store, PIPELINE)
    folder = store.run_folder(manifest.run_id)
    bundle = open_bundle(store.bundles / manifest.models["champion"])
    features, predictions = pq.read_table(folder / FEATURES), pq.read_table(folder / PREDICTIONS)
    assert features.column("entity_id").equals(predictions.column("entity_id"))
    assert bundle.predict(features)[:, 0].tolist() == predictions.column("score").to_pylist()


def test_flights_that_no_run_knew_are_answered_with_the_mean_of_their_group(settings: Settings) -> None:
    manifest = almanac(settings).manifest
    folder = Store(settings.store, PIPELINE).run_folder(manifest.run_id)
    stored = pq.read_table(folder / PREDICTIONS).to_pylist()
    origin = stored[0]["entity_id"].split(":")[2]
    scores = [row["score"] for row in stored if row["entity_id"].split(":")[2] == origin]
    with connect(str(settings.redis_url)) as client:
        _, (near, far) = Reader(client, PIPELINE).lookup([f"ZZ:1:{origin}:2013-01-05", "ZZ:1:ZZZ:2013-01-05"])
    assert (near.status, near.segment) == ("prior", "origin")
    assert near.outputs["score"] == pytest.approx(sum(scores) / len(scores))
    assert (far.status, far.outputs) == ("default", {"score": 0.25})


def test_a_default_of_other_outputs_than_the_model_has_stops_the_run_before_spark(settings: Settings) -> None:
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("default: {score: 0.25}", "default: {delay: 0.25}"))
    with pytest.raises(DeclarationError, match=r"fallback\.default: outputs delay; expected score"):
        almanac(settings)
    assert not (settings.store / PIPELINE / "runs").exists()


def test_a_run_that_an_entity_was_erased_from_stays_live_and_the_next_is_compared_with_it(settings: Settings) -> None:
    first = almanac(settings)
    store = Store(settings.store, PIPELINE)
    entity = str(pq.read_table(store.run_folder(first.manifest.run_id) / PREDICTIONS).column("entity_id")[0])
    with connect(str(settings.redis_url)) as client:
        erase(store, RedisTable(client, PIPELINE), entity, by="ops")
    again = almanac(settings)
    assert again.published is not None
    assert again.published.outcome is Outcome.ALREADY_LIVE
    assert (again.manifest.counts.scored, again.manifest.counts.erased) == (7 * 60 - 1, 1)
    assert again.report == first.report
    assert almanac(settings, NEXT).report.compared_with == first.manifest.run_id


def test_an_entity_that_is_erased_while_its_run_is_verified_is_not_told_of(
    settings: Settings, session: "SparkSession"
) -> None:
    plan = check_inputs(settings, PIPELINE, DATE)
    manifest = score(plan, lambda: session)
    folder = plan.store.run_folder(manifest.run_id)
    entity = str(pq.read_table(folder / PREDICTIONS).column("entity_id")[0])

    def erased_meanwhile() -> "SparkSession":
        with connect(str(settings.redis_url)) as client:
            erase(plan.store, RedisTable(client, PIPELINE), entity, by="ops")
        return session

    with pytest.raises(UnavailableError, match=r"an entity was erased from it while it was verified; .*IN_CHANGED"):
        verify(plan, manifest, erased_meanwhile)

    assert not [path for path in (folder / REPORT_FILE, folder / REPORT_PAGE, folder / "profile.json") if path.exists()]
    assert verify(plan, plan.store.manifest(manifest.run_id), lambda: session).checks


def test_a_second_run_does_nothing(settings: Settings) -> None:
    first = almanac(settings)
    store = Store(settings.store, PIPELINE)
    log, manifest_file = store.log.entries(), store.run_folder(first.manifest.run_id) / MANIFEST_FILE
    os.utime(manifest_file, (0, 0))
    second = almanac(settings)
    assert second.manifest == first.manifest
    assert manifest_file.stat().st_mtime > 0  # maintenance sees that it is in use
    assert second.published is not None
    assert second.published.outcome is Outcome.ALREADY_LIVE
    assert Store(settings.store, PIPELINE).log.entries() == log


@pytest.mark.parametrize("partitions", [1, 7])
def test_another_partitioning_gives_the_same_bytes(
    settings: Settings, session: "SparkSession", partitions: int
) -> None:
    plan = check_inputs(settings, PIPELINE, DATE)
    first = score(plan, lambda: session)
    shutil.rmtree(plan.store.run_folder(plan.run_id))
    session.conf.set("spark.sql.shuffle.partitions", partitions)
    session.conf.set("spark.sql.adaptive.enabled", "false")
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 17)
    second = score(plan, lambda: session)
    assert second.files == first.files
    assert second.content == first.content


def test_a_damaged_run_is_made_again_with_the_same_bytes(settings: Settings, session: "SparkSession") -> None:
    plan = check_inputs(settings, PIPELINE, DATE)
    first = score(plan, lambda: session)
    file = plan.store.run_folder(plan.run_id) / first.files[0].path
    file.write_bytes(file.read_bytes()[:-10])
    assert score(plan, lambda: session).files == first.files
    assert sha256_file(file) == first.files[0].sha256
    assert [path.name for path in file.parents[2].iterdir()] == [plan.run_id]


def test_a_flight_without_a_plane_or_weather_record_is_scored(settings: Settings) -> None:
    rows = column(flights_file(settings), "tailnum")
    change_rows(flights_file(settings), {"tailnum": ["NOWHERE"] * len(rows)})
    weather = settings.root / "data" / "weather" / f"date={DATE}" / "part-0.parquet"
    change_rows(weather, {"origin": ["XXX"] * len(column(weather, "origin"))})
    rewrite(settings.pipelines / PIPELINE / "expectations.yaml", ("mostly: 0.9", "mostly: 0.5"))
    assert almanac(settings).manifest.counts.scored == 7 * 60


def test_a_category_never_seen_in_training_is_scored_as_missing(settings: Settings) -> None:
    change_rows(flights_file(settings), {"dest": ["XYZ"] * 60})
    manifest = almanac(settings).manifest
    assert manifest.counts.scored == 7 * 60


def test_rows_without_a_sound_key_are_set_aside_with_every_reason(settings: Settings) -> None:
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("max_quarantined: 0.01", "max_quarantined: 0.05"))
    carriers = column(flights_file(settings), "carrier")
    departures = column(flights_file(settings), "sched_dep_time")
    change_rows(
        flights_file(settings),
        {
            "carrier": [None, " ", "A\nB", "x" * 600, *carriers[4:]],
            "sched_dep_time": [*departures[:4], None, *departures[5:]],
        },
    )
    finished = almanac(settings)
    assert finished.manifest.counts.reasons == {"bad_key": 2, "blank_key": 1, "leaves_at_a_real_time": 1, "null_key": 1}
    assert finished.manifest.counts.scored == 7 * 60 - 5
    assert finished.manifest.counts.quarantined == 5
    folder = Store(settings.store, PIPELINE).run_folder(finished.manifest.run_id)
    assert pq.read_table(folder / QUARANTINE).num_rows == 5


def test_identical_duplicates_collapse_and_conflicting_ones_are_set_aside(settings: Settings) -> None:
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("max_quarantined: 0.01", "max_quarantined: 0.05"))
    table = pq.read_table(flights_file(settings), partitioning=None)
    twin, rival = table.slice(0, 1), table.slice(1, 1)
    rival = rival.set_column(
        table.schema.get_field_index("distance"), FLIGHTS.field("distance"), pa.array([9], pa.int64())
    )
    features = settings.pipelines / PIPELINE / "features.sql"
    # the count of departures sees the twins; here it must not
    rewrite(features, ("count(*) OVER (PARTITION BY s.origin, s.date, s.dep_hour) AS", "1 AS"))
    pq.write_table(pa.concat_tables([table, twin, rival]), flights_file(settings))
    rewrite(settings.pipelines / PIPELINE / "expectations.yaml", ("min_value: 10, max", "min_value: 1, max"))
    counts = almanac(settings).manifest.counts
    assert (counts.collapsed, counts.quarantined, counts.reasons) == (1, 1, {"duplicate_key": 2})
    assert counts.scored == 7 * 60 - 1


def poison(settings: Settings, sql: tuple[str, str]) -> None:
    rewrite(settings.pipelines / PIPELINE / "features.sql", sql)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("features.sql", ("  s.distance,", "  s.distance * 1609 AS distance,"), r"distance.*unexpected"),
        ("features.sql", ("WHERE date >= :ds", "WHERE date > :ds"), "60 lost"),
        ("features.sql", ("LEFT JOIN planes", "JOIN planes"), "lost"),
        ("features.sql", ("WHERE date >= :ds", "WHERE false"), "0 scored"),
        ("pipeline.yaml", ("dep_minute BETWEEN 0 AND 1439", "dep_minute > 720"), "quarantined share"),
        (
            "expectations.yaml",
            ("min_value: 0.05, max_value: 0.95", "min_value: 0.01, max_value: 0.02"),
            "expect_column_mean",
        ),
        ("pipeline.yaml", ("entities: {min: 50", "entities: {min: 5000"), "enough entities"),
    ],
)
def test_a_run_that_fails_verification_leaves_the_live_release_alone(
    settings: Settings, file: str, change: tuple[str, str], message: str
) -> None:
    good = almanac(settings).manifest.run_id
    rewrite(settings.pipelines / PIPELINE / file, change)
    with pytest.raises(BlockedError, match=message) as caught:
        almanac(settings, NEXT)
    assert caught.value.exit_code == 3
    assert live_run(settings) == good
    blocked = Store(settings.store, PIPELINE).latest_run()
    folder = Store(settings.store, PIPELINE).run_folder(blocked.run_id)
    assert Store(settings.store, PIPELINE).report(blocked.run_id).failures
    assert (folder / REPORT_PAGE).is_file()


def test_drifted_scores_fail_the_run_against_the_live_release(settings: Settings) -> None:
    good = almanac(settings).manifest.run_id
    poison(settings, ("  w.wind_speed,", "  60.0 AS wind_speed,"))
    rewrite(settings.pipelines / PIPELINE / "expectations.yaml", ("max_value: 0.95", "max_value: 1.0"))
    with pytest.raises(BlockedError) as caught:
        almanac(settings, NEXT)
    assert any("drift of scores against the live release" in problem.where for problem in caught.value.problems)
    assert live_run(settings) == good
    store = Store(settings.store, PIPELINE)
    measured = {(one.baseline, one.column): one for one in store.report(store.latest_run().run_id).drift}
    assert len(measured) == 2 * 23
    assert measured["training", "wind_speed"].verdict is Verdict.WARN


def test_the_first_run_is_compared_with_the_training_already(settings: Settings) -> None:
    poison(settings, ("  w.wind_speed,", "  60.0 AS wind_speed,"))
    levels = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(levels, ("features: {warn: 10}", "features: {warn: 1, fail: 5}"))
    with pytest.raises(BlockedError, match="drift of features against the training data: 1 of 22 moved: wind_speed"):
        almanac(settings)
    assert live_run(settings) is None


def test_normal_days_drift_from_neither_baseline(settings: Settings) -> None:
    almanac(settings)
    run_id = almanac(settings, NEXT).manifest.run_id
    drift = [check for check in Store(settings.store, PIPELINE).report(run_id).checks if check.family == "drift"]
    assert [(check.name, check.verdict) for check in drift] == [
        ("drift of scores against the live release", Verdict.PASS),
        ("drift of features against the live release", Verdict.PASS),
        ("drift of scores against the training data", Verdict.PASS),
        ("drift of features against the training data", Verdict.PASS),
    ]


def test_a_run_that_was_not_verified_cannot_be_published(settings: Settings, session: "SparkSession") -> None:
    plan = check_inputs(settings, PIPELINE, DATE)
    manifest = score(plan, lambda: session)
    with connect(str(settings.redis_url)) as client, pytest.raises(InputError, match="a verified run"):
        Publisher(plan.store, RedisTable(client, PIPELINE)).publish(manifest.run_id)
    report = verify(plan, manifest, lambda: session)
    path = plan.store.run_folder(manifest.run_id) / REPORT_FILE
    path.write_text(report.model_copy(update={"content": "0" * 64}).model_dump_json())
    with connect(str(settings.redis_url)) as client, pytest.raises(RefusedError, match="PUBLISH_UNVERIFIED"):
        Publisher(plan.store, RedisTable(client, PIPELINE)).publish(manifest.run_id)
    assert live_run(settings) is None


def test_inputs_that_change_between_scoring_and_verification_block_the_run(
    settings: Settings, session: "SparkSession"
) -> None:
    plan = check_inputs(settings, PIPELINE, DATE)
    manifest = score(plan, lambda: session)
    change_rows(flights_file(settings), {"distance": [500] * 60})
    report = verify(plan, manifest, lambda: session)
    assert report.verdict is Verdict.FAIL
    assert [check.observed for check in report.failures] == [f"1 files differ: flights/date={DATE}/part-0.parquet"]


def test_a_check_that_cannot_be_computed_has_failed(settings: Settings) -> None:
    first = almanac(settings).manifest
    profile = Store(settings.store, PIPELINE).run_folder(first.run_id) / "profile.json"
    profile.unlink()
    with pytest.raises(BlockedError, match="the live release's profile"):
        almanac(settings, NEXT)
    assert live_run(settings) == first.run_id


def test_an_older_date_is_kept_but_not_served(settings: Settings) -> None:
    newest = almanac(settings, NEXT).manifest.run_id
    older = almanac(settings, DATE)
    assert older.published is not None
    assert older.published.outcome is Outcome.ARCHIVED
    assert live_run(settings) == newest


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda bundle: (bundle / "model.txt").write_text("tree"), "BUNDLE_CHECKSUM"),
        (lambda bundle: (bundle / "extra.pkl").write_bytes(b"\x80"), "BUNDLE_FILES"),
        (lambda bundle: (bundle / "manifest.json").unlink(), "BUNDLE_FILES"),
        (lambda bundle: shutil.rmtree(bundle), "BUNDLE_NOT_FOUND"),
    ],
)
def test_a_bundle_that_cannot_be_trusted_stops_the_run_before_spark(
    settings: Settings, damage: object, message: str
) -> None:
    (bundle,) = (settings.store / PIPELINE / "bundles").glob("2013*")
    damage(bundle)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        almanac(settings)
    assert not (settings.store / PIPELINE / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("s.distance,", "s.no_such_column AS distance,"), r"features\.sql.*no_such_column.*SQL_ERROR"),
        (("s.distance,", "'far' AS distance,"), r"distance: string; expected a number"),
        (("  s.date,\n", "  CAST(s.date AS TIMESTAMP) AS date,\n"), "a key of string, integer or date"),
        (("dayofweek(s.date)", "s.distance DIV (s.distance - s.distance)"), r"features\.sql.*[Dd]ivision by zero"),
    ],
)
def test_sql_that_spark_cannot_run_names_the_file_and_changes_nothing(
    settings: Settings, change: tuple[str, str], message: str
) -> None:
    poison(settings, change)
    with pytest.raises(AlmanacError, match=message) as caught:
        almanac(settings)
    assert isinstance(caught.value, DeclarationError)
    assert live_run(settings) is None
    assert not list((settings.store / PIPELINE / "runs").glob(".staging*"))


def test_a_session_is_asked_for_only_when_there_is_work(settings: Settings) -> None:
    almanac(settings)
    plan = check_inputs(settings, PIPELINE, DATE)

    @cache
    def no_spark() -> "SparkSession":
        raise AssertionError("a finished run started Spark")

    manifest = score(plan, no_spark)
    assert verify(plan, manifest, no_spark).verdict is Verdict.PASS


def test_a_floor_raised_since_training_stops_the_run(settings: Settings) -> None:
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("floors: {auc: 0.55}", "floors: {auc: 0.9999}"))
    with pytest.raises(InputError, match=r"auc: 0\.\d+; expected at least 0\.9999"):
        almanac(settings)


def test_a_source_row_without_a_key_must_be_set_aside(settings: Settings) -> None:
    carriers = column(flights_file(settings), "carrier")
    change_rows(flights_file(settings), {"carrier": [None, *carriers[1:]]})
    poison(settings, ("WHERE date >= :ds", "WHERE date >= :ds AND carrier IS NOT NULL"))
    with pytest.raises(BlockedError, match="1 without a key lost"):
        almanac(settings)


def test_a_slice_declared_since_the_live_release_is_a_warning(settings: Settings) -> None:
    almanac(settings)
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("columns: [origin, carrier]", "columns: [origin, dest]"))
    report = almanac(settings, NEXT).report
    (new,) = [check for check in report.checks if check.name == "slices by dest"]
    assert (new.verdict, new.observed) == (
        Verdict.WARN,
        "declared since the live release: nothing to compare with",
    )


def test_what_a_killed_attempt_left_is_removed_once_it_is_old(settings: Settings) -> None:
    runs = settings.store / PIPELINE / "runs"
    young, old = runs / ".staging-young", runs / ".damaged-old"
    for path in (young, old):
        path.mkdir(parents=True)
    yesterday = time.time() - 90_000
    os.utime(old, (yesterday, yesterday))
    almanac(settings)
    assert (young.exists(), old.exists()) == (True, False)


def test_a_pipeline_scaffolded_from_a_parquet_file_trains_and_runs(settings: Settings, session: "SparkSession") -> None:
    pq.write_table(pa.Table.from_pylist(customers()), settings.root / "customers.parquet")
    scaffold(settings, "churn", table=settings.root / "customers.parquet", key=["region", "account"], target="churned")
    train(session, settings, load_pipeline(settings, "churn"))
    finished = run(settings, "churn", dt.date(2026, 1, 31), console=Console(rich=RichConsole(file=io.StringIO())))
    assert finished.manifest.counts.scored == 600
    assert finished.published is not None
    assert finished.published.outcome is Outcome.LIVE
