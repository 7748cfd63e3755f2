"""Past dates filled in, on real Spark: which are scored and why, what moves, and what it ends with."""

import datetime as dt
import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console as RichConsole

from jobs.backfilling import Backfill, Done, Filled, Wanted
from jobs.bundles import make_latest, open_bundle, write_bundle
from jobs.console import Console
from jobs.filling import fill
from jobs.publishing import publisher
from jobs.verification import release_before
from lookup.log import live_entry
from lookup.publisher import Outcome
from lookup.store import Store
from schemas.declared import load_pipeline
from schemas.errors import UnavailableError
from schemas.release import Event
from schemas.report import Verdict
from schemas.settings import Settings
from tests.jobs.runs import PIPELINE, almanac, change_rows, column, flights_file, live_run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

NOBODY = "redis://127.0.0.1:1"  # no server answers there
FIRST, LAST = dt.date(2013, 1, 4), dt.date(2013, 1, 6)
DAY = dt.timedelta(days=1)


def wanted(start: dt.date = FIRST, end: dt.date = LAST, **options: object) -> Wanted:
    return replace(Wanted(pipeline=PIPELINE, start=start, end=end), **options)  # type: ignore[arg-type]


def backfill(settings: Settings, start: dt.date = FIRST, end: dt.date = LAST, **options: object) -> list[Filled]:
    return list(Backfill(settings, wanted(start, end, **options)).dates())


def page_of(settings: Settings, asked: Wanted) -> tuple[int, str]:
    """The exit code, and what a pipe is shown."""
    out = io.StringIO()
    code = fill(settings, asked, Console(rich=RichConsole(file=out))).exit_code
    return code, out.getvalue()


def told(filled: list[Filled]) -> list[tuple[str, str, str]]:
    return [(str(one.date), one.why, str(one.done)) for one in filled]


@pytest.fixture(scope="module")
def filled(
    trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory, spark: "SparkSession"
) -> tuple[Settings, list[Filled]]:
    """Three dates filled in, while there is no Redis. Copy it before changing anything."""
    root = tmp_path_factory.mktemp("filled") / "team"
    shutil.copytree(trained_workspace, root)
    settings = Settings(pipelines=root / "dags", store=root / "store", redis_url=NOBODY)
    return settings, backfill(settings)


@pytest.fixture
def settings(filled: tuple[Settings, list[Filled]], tmp_path: Path) -> Settings:
    """A copy of the place with three archived dates."""
    root = tmp_path / "team"
    shutil.copytree(filled[0].root, root)
    return replace(filled[0], pipelines=root / "dags", store=root / "store")


@pytest.fixture
def served(settings: Settings, redis_url: str) -> Settings:
    """The same with a Redis."""
    return replace(settings, redis_url=redis_url)


def another_bundle(settings: Settings, until: dt.date) -> str:
    """The trained model once more, as if its training had ended on another day."""
    bundles = Store(settings.store, PIPELINE).bundles
    before = bundles / (bundles / "latest.txt").read_text().strip()
    bundle = open_bundle(before)
    training = bundle.manifest.training.model_copy(update={"start": until - 3 * DAY, "end": until})
    manifest = bundle.manifest.model_copy(update={"training": training})
    model = (bundle.folder / bundle.manifest.model_file).read_bytes()
    return write_bundle(bundles, str(until), model, bundle.holdout, bundle.profile, manifest).name


def test_dates_are_archived_oldest_first_without_redis_and_nothing_is_live(
    filled: tuple[Settings, list[Filled]],
) -> None:
    settings, found = filled
    assert told(found) == [(f"2013-01-0{day}", "missing", "archived") for day in (4, 5, 6)]
    assert [(one.release, one.rows) for one in found] == [(1, 420), (2, 420), (3, 420)]
    entries = Store(settings.store, PIPELINE).log.entries()
    assert [(entry.event, entry.run_id) for entry in entries] == [(Event.COMMIT, one.run_id) for one in found]
    assert live_entry(entries) is None


def test_each_date_is_compared_with_the_release_before_it(filled: tuple[Settings, list[Filled]]) -> None:
    settings, found = filled
    reports = [Store(settings.store, PIPELINE).report(str(one.run_id)) for one in found]
    assert [report.compared_with for report in reports] == [None, found[0].run_id, found[1].run_id]
    assert "absolute floors of a first release" in [check.name for check in reports[0].checks]


def test_what_was_removed_to_make_room_is_no_measure_and_is_made_again(settings: Settings) -> None:
    store = Store(settings.store, PIPELINE)
    first, second, third = (store.manifest(release.run_id) for release in store.releases())
    shutil.rmtree(store.run_folder(second.run_id))
    assert release_before(store, third) == first
    assert told(backfill(settings, dry_run=True))[1] == ("2013-01-05", "removed", "to be scored")


def test_what_is_up_to_date_is_left_alone(settings: Settings) -> None:
    log = Store(settings.store, PIPELINE).log.entries()
    found = backfill(settings)
    assert told(found) == [(f"2013-01-0{day}", "up to date", "nothing") for day in (4, 5, 6)]
    assert Store(settings.store, PIPELINE).log.entries() == log


def test_only_dates_whose_source_changed_are_scored_again(settings: Settings) -> None:
    # The last of the seven days that the run of the 5th reads: that of the 4th does not read it, that of the 6th does.
    path = flights_file(settings, dt.date(2013, 1, 11))
    change_rows(path, {"distance": [151, *column(path, "distance")[1:]]})

    found = backfill(settings)

    assert told(found) == [
        ("2013-01-04", "up to date", "nothing"),
        ("2013-01-05", "source changed", "archived"),
        ("2013-01-06", "source changed", "archived"),
    ]
    assert [one.release for one in found] == [1, 4, 5]
    assert Store(settings.store, PIPELINE).report(str(found[2].run_id)).compared_with == found[1].run_id


def test_another_model_or_declaration_is_a_reason_too(settings: Settings) -> None:
    bundle = another_bundle(settings, dt.date(2013, 1, 3))
    asked = {"start": FIRST, "end": FIRST, "dry_run": True}
    assert told(backfill(settings, model=bundle, **asked)) == [  # type: ignore[arg-type]
        ("2013-01-04", "model changed", "to be scored")
    ]
    declaration = settings.pipelines / PIPELINE / "pipeline.yaml"
    declaration.write_text(declaration.read_text().replace("stale_after_hours: 36", "stale_after_hours: 24"))
    assert told(backfill(settings, model=bundle, **asked)) == [  # type: ignore[arg-type]
        ("2013-01-04", "model and declaration changed", "to be scored")
    ]


def test_as_of_takes_for_each_date_the_newest_model_whose_days_are_over(settings: Settings) -> None:
    old, older = another_bundle(settings, dt.date(2013, 1, 4)), another_bundle(settings, dt.date(2013, 1, 3))
    found = backfill(settings, dt.date(2013, 1, 3), dt.date(2013, 1, 5), model="as-of")
    assert [str(one.done) for one in found] == ["failed", "archived", "archived"]
    assert "no bundle in" in str(found[0].error)
    store = Store(settings.store, PIPELINE)
    assert [store.manifest(str(one.run_id)).models for one in found[1:]] == [{"champion": older}, {"champion": old}]
    assert [one.has_seen for one in found[1:]] == [False, False]


def test_a_bundle_from_elsewhere_is_taken_into_the_store(settings: Settings, tmp_path: Path) -> None:
    bundle = another_bundle(settings, dt.date(2013, 1, 3))
    bundles = Store(settings.store, PIPELINE).bundles
    elsewhere = shutil.move(bundles / bundle, tmp_path / bundle)
    backfill(settings, FIRST, FIRST, model=str(elsewhere), dry_run=True)
    assert not (bundles / bundle).exists()
    (found,) = backfill(settings, FIRST, FIRST, model=str(elsewhere))
    assert (found.why, found.done) == ("model changed", Done.ARCHIVED)
    assert open_bundle(bundles / bundle).id == bundle


def test_a_blocked_date_does_not_stop_the_others_and_the_exit_code_is_3(settings: Settings) -> None:
    # The 2nd is only read by the run of the 2nd and those before it.
    path = flights_file(settings, dt.date(2013, 1, 2))
    change_rows(path, {"distance": [distance * 1609 for distance in column(path, "distance")]})  # type: ignore[operator]

    code, page = page_of(settings, wanted(dt.date(2013, 1, 2), FIRST))

    assert code == 3
    lines = [" ".join(line.split()) for line in page.splitlines()]
    assert any(line.startswith("2013-01-02 missing, blocked, FAIL, 420 rows") for line in lines)
    assert any(line.startswith("2013-01-03 missing, archived as release 4, PASS, 420 rows") for line in lines)
    assert any(line.startswith("✗ flight_delay run 2013-01-02-") and "[BLOCKED]" in line for line in lines)
    assert "3 dates: 1 blocked, 1 archived, 1 left as they are" in lines
    assert "what is live was left alone" in lines
    store = Store(settings.store, PIPELINE)
    assert dt.date(2013, 1, 2) not in {release.date for release in store.releases()}
    # What was blocked is judged again, not scored again.
    (again,) = backfill(settings, dt.date(2013, 1, 2), dt.date(2013, 1, 2))
    assert (again.done, again.verdict) == (Done.BLOCKED, Verdict.FAIL)


def test_a_date_without_its_source_fails_alone(settings: Settings) -> None:
    # The schedule of the 9th is missing: the run of the 9th has no first day, and the next one does not need it.
    shutil.rmtree(flights_file(settings, dt.date(2013, 1, 9)).parent)
    code, page = page_of(settings, wanted(dt.date(2013, 1, 9), dt.date(2013, 1, 10)))
    assert code == 2
    assert "2013-01-10  missing, archived as release 4" in page
    assert "✗ 2013-01-09: source 'flights': no partition date=2013-01-09; expected it under" in page


def test_the_live_head_moves_to_the_newest_date_only_when_told(served: Settings) -> None:
    almanac(served, FIRST)
    live = live_run(served)
    backfill(served, end=LAST + DAY)
    assert live_run(served) == live

    code, page = page_of(served, wanted(end=LAST + DAY, publish_latest=True))

    assert code == 0
    assert "release 4 live (was release 1): 420 entities" in page
    assert str(live_run(served)).startswith("2013-01-07-")


def test_a_live_date_that_was_corrected_is_published_only_when_told(served: Settings) -> None:
    almanac(served, LAST)
    live = live_run(served)
    path = flights_file(served, LAST)
    change_rows(path, {"distance": [151, *column(path, "distance")[1:]]})

    (found,) = backfill(served, LAST, LAST)
    assert (found.why, found.done) == ("source changed", Done.ARCHIVED)
    assert live_run(served) == live

    assert page_of(served, wanted(LAST, LAST, publish_latest=True))[0] == 0
    assert live_run(served) == found.run_id


def test_publishing_the_newest_never_goes_back(served: Settings) -> None:
    almanac(served, LAST)
    live = live_run(served)
    code, page = page_of(served, wanted(FIRST, FIRST, publish_latest=True))
    assert code == 0
    assert "release 1 archived (was release 3): 420 entities; what is live is newer, and stays so" in page
    assert live_run(served) == live
    declared = load_pipeline(served, PIPELINE)
    older = next(release for release in Store(served.store, PIPELINE).releases() if release.date == FIRST)
    assert publisher(served, declared).publish(older.run_id).outcome is Outcome.ARCHIVED
    assert live_run(served) == live


def test_an_archived_release_can_be_rolled_back_to_and_is_left_alone_once_it_was_rolled_back(served: Settings) -> None:
    almanac(served, LAST)
    publishes = publisher(served, load_pipeline(served, PIPELINE))
    assert publishes.roll_back(to=1).release == 1
    assert str(live_run(served)).startswith("2013-01-04-")
    found = backfill(served)
    assert told(found)[2] == ("2013-01-06", "rolled back", "nothing")
    assert page_of(served, wanted(LAST, LAST, publish_latest=True))[0] == 0
    assert str(live_run(served)).startswith("2013-01-04-")


def test_a_run_of_an_older_date_is_compared_with_the_release_before_it_not_with_a_later_one(served: Settings) -> None:
    almanac(served, LAST + DAY)
    before = Store(served.store, PIPELINE).releases()[-2].run_id
    path = flights_file(served, LAST)
    change_rows(path, {"distance": [151, *column(path, "distance")[1:]]})
    late = almanac(served, LAST)
    assert late.published is not None
    assert late.published.outcome is Outcome.ARCHIVED
    assert late.report.compared_with != live_run(served)
    assert late.report.compared_with is not None
    assert late.report.compared_with.startswith("2013-01-05-")
    assert before.startswith("2013-01-06-")


def test_a_full_disk_stops_it_and_what_is_done_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(settings.store))

    monkeypatch.setattr("jobs.backfilling.archive", full)
    code, page = page_of(settings, wanted(end=LAST + 2 * DAY))
    assert code == 1
    assert f"✗ {settings.store}: No space left on device; expected room on the disk [ENV_STORE]" in page
    assert "not reached: 2 dates; the same command goes on with them" in page


def test_a_second_backfill_of_the_pipeline_is_refused_while_one_is_under_way(settings: Settings) -> None:
    first = Backfill(settings, wanted()).dates()
    next(first)
    with pytest.raises(UnavailableError, match=r"another backfill is under way: .*@.*, from 2013-01-04 to 2013-01-06"):
        backfill(settings)
    backfill(settings, dry_run=True)
    first.close()  # type: ignore[attr-defined]
    assert len(backfill(settings)) == 3


def test_a_program_gets_a_document(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = fill(settings, wanted(end=LAST + DAY, dry_run=True), Console(as_json=True))
    assert capsys.readouterr().out == ""
    assert code == document["exit_code"] == 0
    assert [(one["date"], one["why"], one["done"]) for one in document["dates"][-2:]] == [
        (LAST, "up to date", "nothing"),
        (LAST + DAY, "missing", "to be scored"),
    ]
    assert (document["published"], document["stopped"]) == (None, [])


def test_latest_moves_what_declared_means(settings: Settings) -> None:
    make_latest(Store(settings.store, PIPELINE).bundles / another_bundle(settings, dt.date(2013, 1, 3)))
    assert {one.why for one in backfill(settings, dry_run=True)} == {"model changed"}
