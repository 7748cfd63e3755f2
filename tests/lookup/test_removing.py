"""What is too old leaves the store, and nothing else does; a removal may be killed anywhere."""

import datetime as dt
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lookup.archiving import archive
from lookup.publisher import Publisher
from lookup.reconciling import Reconciler
from lookup.removing import Keeping, Kind, Removal, Survey, remove_outdated
from lookup.table import RedisTable
from lookup.turns import alone, beside_others, only_backfill
from lookup.writer import write_rows
from schemas.errors import InputError, UnavailableError
from schemas.report import Verdict
from schemas.retention import Retention
from schemas.run import MANIFEST_FILE, CarriedFrom

FIRST = dt.date(2013, 7, 1)
LATER = dt.datetime.now(dt.UTC) + dt.timedelta(days=400)
KEEPING = Keeping(Retention(keep_releases=2), versions=2, after_days=None, held=set())


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


def published(staging: Any, publisher: Publisher, count: int) -> list[str]:
    made = [str(staging.run(day(number), {"UA:1": number / 100, "UA:2": 0.5})) for number in range(count)]
    for run_id in made:
        publisher.publish(run_id)
    return made


def set_aside(staging: Any, run_id: str) -> None:
    """Give a run one row of quarantine."""
    schema = pa.schema([pa.field("entity_id", pa.string(), nullable=False)])
    batch = pa.RecordBatch.from_arrays([pa.array(["UA:9"])], schema=schema)
    manifest = staging.store.manifest(run_id)
    file = write_rows(staging.store.run_folder(run_id) / "quarantine", "part-00000.parquet", schema, [batch])
    counts = manifest.counts.model_copy(update={"entities": 3, "quarantined": 1, "reasons": {"null_key": 1}})
    staging.amend(run_id, files=(*manifest.files, file), counts=counts)


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below, with the digest of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def told(removals: list[Removal]) -> list[tuple[Kind, str]]:
    return [(removal.kind, removal.name) for removal in removals]


def remove(staging: Any, **changed: Any) -> list[Removal]:
    return remove_outdated(staging.store, lambda: KEEPING._replace(**changed), LATER)


def test_an_old_release_goes_and_everything_that_asks_for_it_says_when_and_why(
    staging: Any, publisher: Publisher
) -> None:
    made = published(staging, publisher, 5)
    before = staging.log_files()

    assert told(remove(staging)) == [(Kind.RELEASE, made[0]), (Kind.RELEASE, made[1])]

    assert staging.log_files() == before
    assert [release.number for release in staging.store.releases()] == [1, 2, 3, 4, 5]
    note = staging.store.removed(made[0])
    assert (note.release, note.models, note.counts.scored) == (1, {"champion": "delay-1"}, 2)
    words = f"{made[0]} .release 1.: removed by retention on {LATER.date()}: beyond the last 2 releases and 90 days"
    for ask in (staging.store.manifest, staging.store.report, staging.store.verified):
        with pytest.raises(InputError, match=rf"{words}; expected .*--date 2013-07-01.*OUT_REMOVED"):
            ask(made[0])
    with pytest.raises(InputError, match=words):
        publisher.roll_back(to=1)
    with pytest.raises(InputError, match=words):
        publisher.publish(made[0], force=True)
    assert staging.store.live().release == 5
    assert staging.log_files() == before
    assert remove(staging) == []


def test_a_run_that_is_scored_again_after_its_removal_is_there_again(staging: Any, publisher: Publisher) -> None:
    made = published(staging, publisher, 5)
    remove(staging)
    assert staging.run(day(0), {"UA:1": 0.0, "UA:2": 0.5}) == made[0]
    assert staging.store.removed(made[0]) is None
    assert staging.store.manifest(made[0]).run_id == made[0]


def test_what_redis_holds_stays_and_where_it_cannot_be_asked_every_release_stays(
    staging: Any, publisher: Publisher, table: RedisTable
) -> None:
    made = published(staging, publisher, 5)
    held = Reconciler(staging.store, table, keep=3, grace_seconds=300).held_runs()
    assert held == set(made)  # all within their grace
    assert remove(staging, held=held) == []
    assert remove(staging, held=None) == []
    assert table.retire(keep=3, grace_seconds=0) == [1, 3]
    held = Reconciler(staging.store, table, keep=3, grace_seconds=0).held_runs()
    assert told(remove(staging, held=held)) == [(Kind.RELEASE, made[0])]  # 2 is the base of 3


def test_what_the_live_release_carries_on_stays(staging: Any, publisher: Publisher) -> None:
    made = published(staging, publisher, 5)
    staging.amend(made[4], carried_from=CarriedFrom(run_id=made[0]))
    assert told(remove(staging)) == [(Kind.RELEASE, made[1])]


def test_runs_that_nobody_committed_go_by_their_age_whatever_became_of_them(staging: Any, publisher: Publisher) -> None:
    published(staging, publisher, 1)
    verdicts: Mapping[int, Verdict | None] = {5: None, 6: Verdict.PASS, 7: Verdict.FAIL}
    waiting = [staging.run(day(number), {"UA:1": 0.5}, verdict=verdict) for number, verdict in verdicts.items()]
    archived = staging.run(day(8), {"UA:1": 0.5})
    archive(staging.store, archived)
    in_a_week = dt.datetime.now(dt.UTC) + dt.timedelta(days=7)
    assert remove_outdated(staging.store, lambda: KEEPING, in_a_week) == []

    assert told(remove(staging)) == [(Kind.STAGED, run_id) for run_id in waiting]

    assert staging.store.manifest(archived).run_id == archived
    with pytest.raises(InputError, match=f"{waiting[1]}: removed by retention on .* never committed"):
        publisher.publish(waiting[1])


def test_what_was_touched_today_is_in_use(staging: Any, publisher: Publisher) -> None:
    made = published(staging, publisher, 5)
    waiting = staging.run(day(6), {"UA:1": 0.5})
    for run_id in (made[0], waiting):
        manifest = staging.store.run_folder(run_id) / MANIFEST_FILE
        os.utime(manifest, (LATER.timestamp() - 60, LATER.timestamp() - 60))
    assert told(remove(staging)) == [(Kind.RELEASE, made[1])]


def test_what_killed_attempts_left_goes_by_its_age_and_a_stopped_removal_at_once(
    staging: Any, publisher: Publisher
) -> None:
    made = published(staging, publisher, 1)
    runs = staging.store.run_folder(made[0]).parent
    now, old = dt.datetime.now(dt.UTC), LATER.timestamp()
    for name in (".staging-2013-07-01-0123456789ab-x", ".damaged-x", ".removed-2013-07-01-0123456789ab"):
        (runs / name / "predictions").mkdir(parents=True)
    assert told(remove_outdated(staging.store, lambda: KEEPING, now)) == [
        (Kind.LEFTOVER, ".removed-2013-07-01-0123456789ab")
    ]
    os.utime(runs / ".damaged-x", (old, old))
    assert told(remove(staging)) == [(Kind.LEFTOVER, ".staging-2013-07-01-0123456789ab-x")]


def test_old_quarantine_goes_and_the_counts_of_the_run_stay(staging: Any, publisher: Publisher) -> None:
    (run_id,) = published(staging, publisher, 1)
    waiting = staging.run(day(9), {"UA:1": 0.5})
    for each in (run_id, waiting):
        set_aside(staging, each)
    before = staging.store.manifest(run_id)

    now = dt.datetime.now(dt.UTC)  # it was scored years ago, and staged just now
    assert told(remove_outdated(staging.store, lambda: KEEPING, now)) == [(Kind.QUARANTINE, run_id)]

    after = staging.store.verified(run_id)
    assert not (staging.store.run_folder(run_id) / "quarantine").exists()
    assert (after.counts, after.content, after.quarantine_removed) == (before.counts, before.content, now.date())
    assert after.files == tuple(file for file in before.files if not file.path.startswith("quarantine/"))
    assert staging.store.damage(after, "predictions", "quarantine") == []
    assert publisher.publish(run_id).release == 1
    assert (staging.store.run_folder(waiting) / "quarantine").exists()


def test_nothing_changes_while_one_only_looks(staging: Any, publisher: Publisher) -> None:
    made = published(staging, publisher, 5)
    set_aside(staging, made[4])
    before = tree(staging.store.folder)
    found = Survey(staging.store, KEEPING, LATER).outdated()
    assert [removal.kind for removal in found] == [Kind.RELEASE, Kind.RELEASE, Kind.QUARANTINE]
    assert tree(staging.store.folder) == before
    assert remove(staging) == found


def test_beside_a_backfill_only_leftovers_and_quarantine_go(staging: Any, publisher: Publisher) -> None:
    made = published(staging, publisher, 5)
    set_aside(staging, made[4])
    staging.run(day(6), {"UA:1": 0.5})
    with only_backfill(staging.store.folder, "somebody"):
        assert told(remove(staging, is_filling=True)) == [(Kind.QUARANTINE, made[4])]


def test_it_waits_for_a_publication_and_says_so_where_that_does_not_end(
    staging: Any, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(staging, publisher, 5)
    before = tree(staging.store.folder)
    monkeypatch.setattr("lookup.removing.alone", lambda folder, *, again: alone(folder, seconds=0, again=again))
    with beside_others(staging.store.folder), pytest.raises(UnavailableError, match=r"its end; maintain again"):
        remove(staging)
    assert tree(staging.store.folder) == before


def test_a_release_with_a_damaged_manifest_is_as_old_as_its_files(staging: Any, publisher: Publisher) -> None:
    made = published(staging, publisher, 5)
    (staging.store.run_folder(made[0]) / MANIFEST_FILE).write_text("{")
    assert told(remove(staging)) == [(Kind.RELEASE, made[0]), (Kind.RELEASE, made[1])]
    assert staging.store.removed(made[0]).counts is None


# Kills itself with the nth change of the file system, and has no time to tidy up.
_KILLED = """
import datetime as dt, os, pathlib, signal, sys
from lookup.removing import Keeping, remove_outdated
from lookup.store import Store
from schemas.retention import Retention
store, now, left = Store(pathlib.Path(sys.argv[1]), "flights"), dt.datetime.fromisoformat(sys.argv[2]), int(sys.argv[3])
def count(event, arguments):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
keeping = Keeping(Retention(keep_releases=2), versions=2, after_days=None, held=set())
remove_outdated(store, lambda: keeping, now)
"""


@pytest.mark.parametrize("change", [1, 2, 3, 4, 6, 9, 12])
def test_wherever_it_is_killed_readers_see_a_run_or_its_note_and_the_next_one_ends_it(
    staging: Any, publisher: Publisher, change: int
) -> None:
    made = published(staging, publisher, 4)
    set_aside(staging, made[3])
    root = staging.store.folder.parent
    # Without the profile of a test run: the killed process must not wait for one.
    command = [sys.executable, "-c", _KILLED, str(root), LATER.isoformat(), str(change)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr

    for run_id in made:
        folder = staging.store.run_folder(run_id)
        if folder.exists():
            manifest = staging.store.verified(run_id)
            assert staging.store.damage(manifest, "predictions", "quarantine") == []
        else:
            assert staging.store.removed(run_id) is not None
    assert publisher.publish(made[3]).release == 4

    remove(staging)

    assert [path.name for path in sorted((staging.store.folder / "runs").iterdir())] == made[1:]
    assert staging.store.removed(made[0]).release == 1
    assert staging.store.manifest(made[3]).quarantine_removed == LATER.date()
    assert not (staging.store.run_folder(made[3]) / "quarantine").exists()
    assert remove(staging) == []
