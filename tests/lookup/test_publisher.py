"""Publishing and rolling back with a real store and a real Redis: what is served, recorded, refused and healed."""

import datetime as dt
import json
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from lookup.connect import connect
from lookup.heads import head_of
from lookup.loader import Loaded, in_threads
from lookup.log import entry_for
from lookup.publisher import Outcome, Published, Publisher
from lookup.reader import Reader
from lookup.rows import StoredRows
from lookup.store import Store
from lookup.table import RedisTable
from lookup.versions import Flip
from schemas.errors import DeclarationError, InputError, RefusedError, UnavailableError
from schemas.head import Head
from schemas.keys import bucket_key, bucket_of, head_key
from schemas.release import Event
from schemas.report import Verdict
from schemas.run import RunManifest
from tests.lookup.given import GivenPart, GivenRows, InterruptedPart, halves, one_by_one

MONDAY, TUESDAY, WEDNESDAY = (dt.date(2013, 7, day) for day in (1, 2, 3))
OLD = {f"UA:{number}": 0.25 for number in range(200)}
NEW = {f"UA:{number}": 0.5 for number in range(200)}
NEWEST = {f"UA:{number}": 0.75 for number in range(200)}
Client = redis.Redis


def _served(client: Client, entities: Iterable[str] = OLD) -> tuple[int, set[Any]]:
    """The release that a reader is answered from, and the scores that it sees."""
    head, answers = Reader(client, "flights").lookup(list(entities))
    return head.release, {answer.outputs.get("score") for answer in answers}


def _events(staging: Any) -> list[tuple[str, int]]:
    return [(entry.event.value, entry.release) for entry in staging.store.log.entries()]


def _agree(staging: Any, table: RedisTable) -> bool:
    """Whether the log names what the head serves."""
    live, head = staging.store.live(), table.head()
    named = live and (live.release, live.run_id, live.token, str(live.date))
    return bool(head and named == (head.release, head.run_id, head.token, head.date))


def _keys_of(client: Client, version: int) -> list[bytes]:
    return list(client.scan_iter(f"almanac:flights:{version}:*"))


def _killed_behind_its_flip(staging: Any, table: RedisTable, manifest: RunManifest) -> Head:
    commit = staging.store.commit(manifest)
    head = head_of(manifest, commit, version=commit.sequence)
    table.load(head, StoredRows(staging.store, manifest))
    assert table.flip(head) is Flip.FLIPPED
    return head


def _states(staging: Any) -> dict[int, str]:
    return {release.number: release.state.value for release in staging.store.releases()}


def test_the_first_publication_is_release_1_and_readers_see_it(
    staging: Any, publisher: Publisher, redis_client: Client
) -> None:
    run = staging.run(MONDAY, OLD)

    published = publisher.publish(run)

    assert published == (Outcome.LIVE, 1, run, 200, None, ())
    assert _served(redis_client) == (1, {0.25})
    assert _events(staging) == [("commit", 1), ("live", 1)]


def test_the_second_publication_is_release_2_after_release_1(
    staging: Any, publisher: Publisher, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))

    published = publisher.publish(staging.run(TUESDAY, NEW))

    assert (published.outcome, published.release, published.previous) == (Outcome.LIVE, 2, 1)
    assert _served(redis_client) == (2, {0.5})
    assert _states(staging) == {1: "RETIRED", 2: "LIVE"}


def test_an_entity_that_left_the_list_is_unknown_after_the_next_release(
    staging: Any, publisher: Publisher, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD | {"gone": 1.0}))

    publisher.publish(staging.run(TUESDAY, NEW))

    assert _served(redis_client, ["gone"]) == (2, {None})


def test_publishing_again_does_nothing(staging: Any, publisher: Publisher, redis_client: Client) -> None:
    run = staging.run(MONDAY, OLD)
    publisher.publish(run)
    head, log = redis_client.get(head_key("flights")), staging.log_files()

    published = publisher.publish(run)

    assert (published.outcome, published.release, published.previous) == (Outcome.ALREADY_LIVE, 1, 1)
    assert redis_client.get(head_key("flights")) == head
    assert staging.log_files() == log


def _fail(staging: Any, run: str) -> None:
    staging.report(run, Verdict.FAIL)


def _lose_report(staging: Any, run: str) -> None:
    (staging.store.run_folder(run) / "report.json").unlink()


def _verify_other_content(staging: Any, run: str) -> None:
    staging.report(run, Verdict.PASS, content="f" * 64)


def _change_a_byte(staging: Any, run: str) -> None:
    path = staging.predictions(run)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def _cut(staging: Any, run: str) -> None:
    path = staging.predictions(run)
    path.write_bytes(path.read_bytes()[:-100])


def _lose_predictions(staging: Any, run: str) -> None:
    staging.predictions(run).unlink()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_fail, "PUBLISH_UNVERIFIED"),
        (_lose_report, "OUT_NOT_FOUND"),
        (_verify_other_content, "PUBLISH_UNVERIFIED"),
        (_change_a_byte, "OUT_CHECKSUM"),
        (_cut, "OUT_CHECKSUM"),
        (_lose_predictions, "OUT_CHECKSUM"),
    ],
)
def test_a_run_that_may_not_be_served_leaves_head_log_and_live_release_alone(
    staging: Any, publisher: Publisher, redis_client: Client, spoil: Any, code: str
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    run = staging.run(TUESDAY, NEW)
    spoil(staging, run)
    before = {key: redis_client.dump(key) for key in redis_client.scan_iter("*")}
    log = staging.log_files()

    with pytest.raises((RefusedError, InputError), match=code):
        publisher.publish(run)

    assert {key: redis_client.dump(key) for key in redis_client.scan_iter("*")} == before
    assert staging.log_files() == log
    assert _served(redis_client) == (1, {0.25})


def test_an_older_date_is_archived_and_not_served(staging: Any, publisher: Publisher, redis_client: Client) -> None:
    publisher.publish(staging.run(TUESDAY, NEW))
    head = redis_client.get(head_key("flights"))

    published = publisher.publish(staging.run(MONDAY, OLD))

    assert (published.outcome, published.release, published.previous) == (Outcome.ARCHIVED, 2, 1)
    assert redis_client.get(head_key("flights")) == head
    assert _states(staging) == {1: "LIVE", 2: "COMMITTED"}


def test_an_older_date_is_served_where_it_is_forced(staging: Any, publisher: Publisher, redis_client: Client) -> None:
    publisher.publish(staging.run(TUESDAY, NEW))
    run = staging.run(MONDAY, OLD)
    publisher.publish(run)

    assert publisher.publish(run, force=True).outcome is Outcome.LIVE
    assert _served(redis_client) == (2, {0.25})


def test_a_rollback_goes_to_the_release_before_with_reason_and_name(
    staging: Any, publisher: Publisher, redis_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "oncall")
    publisher.publish(staging.run(MONDAY, OLD))
    publisher.publish(staging.run(TUESDAY, NEW))

    moved = publisher.roll_back(reason="scores too high")

    entry = staging.store.log.entries()[-1]
    assert (moved.outcome, moved.release, moved.previous) == (Outcome.LIVE, 1, 2)
    assert _served(redis_client) == (1, {0.25})
    assert (entry.event, entry.release, entry.reason) == (Event.ROLLBACK, 1, "scores too high")
    assert entry.by.startswith("oncall@")
    assert _states(staging) == {1: "LIVE", 2: "ROLLED_BACK"}


def test_rollbacks_one_after_another_go_back_one_release_each(
    staging: Any, publisher: Publisher, redis_client: Client
) -> None:
    for date, scores in ((MONDAY, OLD), (TUESDAY, NEW), (WEDNESDAY, NEWEST)):
        publisher.publish(staging.run(date, scores))

    assert publisher.roll_back().release == 2
    assert publisher.roll_back().release == 1
    with pytest.raises(RefusedError, match=r"no earlier release was live.*ROLLBACK_TARGET"):
        publisher.roll_back()
    assert _served(redis_client) == (1, {0.25})


def test_a_rollback_never_goes_forward(staging: Any, publisher: Publisher) -> None:
    for date, scores in ((MONDAY, OLD), (TUESDAY, NEW), (WEDNESDAY, NEWEST)):
        publisher.publish(staging.run(date, scores))
    publisher.roll_back(to=1)

    with pytest.raises(RefusedError, match="ROLLBACK_TARGET"):
        publisher.roll_back()


def test_a_rollback_to_a_version_that_redis_no_longer_has_loads_it(
    staging: Any, table: RedisTable, redis_client: Client
) -> None:
    publisher = Publisher(staging.store, table, keep=1, grace_seconds=0)
    publisher.publish(staging.run(MONDAY, OLD))
    assert publisher.publish(staging.run(TUESDAY, NEW)).retired == (1,)

    publisher.roll_back()

    assert _served(redis_client) == (1, {0.25})


def test_a_rollback_that_cannot_be_loaded_is_not_recorded(
    staging: Any, table: RedisTable, redis_client: Client
) -> None:
    publisher = Publisher(staging.store, table, keep=1, grace_seconds=0)
    old = staging.run(MONDAY, OLD)
    publisher.publish(old)
    publisher.publish(staging.run(TUESDAY, NEW))
    _cut(staging, old)
    log = staging.log_files()

    with pytest.raises(InputError, match="OUT_CHECKSUM"):
        publisher.roll_back()

    assert staging.log_files() == log
    assert _served(redis_client) == (2, {0.5})


def test_a_rollback_killed_between_its_log_entry_and_the_flip_is_finished_by_the_next(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client
) -> None:
    for date, scores in ((MONDAY, OLD), (TUESDAY, NEW), (WEDNESDAY, NEWEST)):
        publisher.publish(staging.run(date, scores))
    staging.store.record_rollback(staging.store.release(2), "killed behind this")
    assert _served(redis_client) == (3, {0.75})

    moved = publisher.roll_back()

    assert (moved.outcome, moved.release) == (Outcome.LIVE, 2)
    assert _served(redis_client) == (2, {0.5})
    assert _events(staging)[-2:] == [("live", 3), ("rollback", 2)]
    assert _agree(staging, table)


def test_a_rollback_killed_between_its_log_entry_and_the_flip_is_finished_by_publishing_the_live_run(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client
) -> None:
    old = staging.run(MONDAY, OLD)
    publisher.publish(old)
    publisher.publish(staging.run(TUESDAY, NEW))
    staging.store.record_rollback(staging.store.release(1), "killed behind this")

    # The head that it was to leave has a newer date.
    assert publisher.publish(old).outcome is Outcome.LIVE

    assert _served(redis_client) == (1, {0.25})
    assert _events(staging)[-2:] == [("live", 2), ("rollback", 1)]
    assert _agree(staging, table)


def test_a_rollback_that_is_slower_than_the_rollback_after_it_is_fenced_out(
    staging: Any, publisher: Publisher, table: RedisTable, redis_url: str, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    publisher.publish(staging.run(TUESDAY, NEW))
    with connect(redis_url) as client, ThreadPoolExecutor() as pool:
        slow = _PausedTable(client, "flights", before="flip")
        going_back = pool.submit(Publisher(staging.store, slow).roll_back)
        slow.wait_until_paused()
        publisher.roll_back(to=2, force=True)
        slow.resume.set()
        with pytest.raises(RefusedError, match="PUBLISH_FENCED"):
            going_back.result()

    assert _served(redis_client) == (2, {0.5})
    assert _agree(staging, table)


def test_a_publication_killed_between_its_flip_and_the_log_is_finished_by_publishing_again(
    staging: Any, publisher: Publisher, table: RedisTable
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    manifest = staging.store.manifest(staging.run(TUESDAY, NEW))
    head = _killed_behind_its_flip(staging, table, manifest)

    published = publisher.publish(manifest.run_id)

    assert (published.outcome, published.release, published.previous) == (Outcome.LIVE, 2, 1)
    assert table.head() == head
    assert _events(staging) == [("commit", 1), ("live", 1), ("commit", 2), ("live", 2)]
    assert _agree(staging, table)


def test_a_publication_killed_between_its_flip_and_the_log_can_be_rolled_back(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    manifest = staging.store.manifest(staging.run(TUESDAY, NEW))
    _killed_behind_its_flip(staging, table, manifest)

    assert publisher.roll_back().release == 1

    assert _served(redis_client) == (1, {0.25})
    assert _states(staging) == {1: "LIVE", 2: "ROLLED_BACK"}
    assert _agree(staging, table)


def test_a_rollback_with_nothing_live_is_one_clear_error(publisher: Publisher) -> None:
    with pytest.raises(RefusedError, match=r"^flights: nothing is live; expected a published release \[ROLLBACK_"):
        publisher.roll_back()


def test_a_rollback_with_no_earlier_release_is_one_clear_error(
    staging: Any, publisher: Publisher, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))

    with pytest.raises(RefusedError, match=r"^flights: no earlier release was live; .* \[ROLLBACK_TARGET\]$"):
        publisher.roll_back()

    assert _served(redis_client) == (1, {0.25})


def test_a_rollback_to_an_unknown_release_is_one_clear_error(staging: Any, publisher: Publisher) -> None:
    publisher.publish(staging.run(MONDAY, OLD))

    with pytest.raises(RefusedError, match=r"^flights: release 7: no such release; expected one of 1 \[RELEASE_UNK"):
        publisher.roll_back(to=7)

    assert _events(staging) == [("commit", 1), ("live", 1)]


def test_a_rollback_to_the_live_release_changes_nothing(staging: Any, publisher: Publisher) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    log = staging.log_files()

    assert publisher.roll_back(to=1).outcome is Outcome.ALREADY_LIVE
    assert staging.log_files() == log


def test_a_rolled_back_run_is_refused_and_served_where_it_is_forced(
    staging: Any, publisher: Publisher, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    run = staging.run(TUESDAY, NEW)
    publisher.publish(run)
    publisher.roll_back()

    with pytest.raises(
        RefusedError, match=r"release 2 was rolled back; expected another run, or --force \[ROLLED_BACK"
    ):
        publisher.publish(run)
    assert _served(redis_client) == (1, {0.25})

    assert publisher.publish(run, force=True).release == 2
    assert _served(redis_client) == (2, {0.5})


class _PausedTable(RedisTable):
    """A table that stops at one step until it is told to go on; in `load` after half of a version's rows."""

    def __init__(self, client: Client, table: str, *, before: str) -> None:
        super().__init__(client, table)
        self.resume = threading.Event()
        self._before, self._reached = before, threading.Event()

    def wait_until_paused(self) -> None:
        assert self._reached.wait(20)

    def load(self, head: Head, rows: Any, **options: Any) -> None:
        every = list(rows)
        before, behind = halves(head, every)
        given = GivenRows(every, priors=rows.priors)
        given.parts = [GivenPart(before), InterruptedPart(behind, lambda: self._pause("load"))]
        super().load(head, given, **{**options, "spread": one_by_one})

    def flip(self, head: Head, *, allow_older: bool = False) -> Flip:
        self._pause("flip")
        return super().flip(head, allow_older=allow_older)

    def drop(self, head: Head) -> bool:
        self._pause("claim")
        return super().drop(head)

    def _unlink(self, head: Head) -> None:
        self._pause("unlink")
        super()._unlink(head)

    def _pause(self, step: str) -> None:
        if step == self._before:
            self._reached.set()
            assert self.resume.wait(20)


@pytest.mark.parametrize("grace_seconds", [300, 0])
@pytest.mark.parametrize("buckets", [4, 2000])
def test_a_publisher_that_another_overtook_while_it_loaded_is_fenced_out(
    staging: Any, redis_url: str, redis_client: Client, table: RedisTable, buckets: int, grace_seconds: int
) -> None:
    slow_scores = {f"UA:{number}": 0.25 for number in range(3000)}
    slow, fast = staging.run(MONDAY, slow_scores, buckets=buckets), staging.run(TUESDAY, NEW)
    errors: list[Exception] = []

    def publish_slowly() -> None:
        try:
            Publisher(staging.store, paused, grace_seconds=grace_seconds).publish(slow)
        except RefusedError as err:
            errors.append(err)

    with connect(redis_url) as client:
        paused = _PausedTable(client, "flights", before="load")
        thread = threading.Thread(target=publish_slowly)
        thread.start()
        paused.wait_until_paused()
        Publisher(staging.store, table, keep=1, grace_seconds=grace_seconds).publish(fast)
        head = redis_client.get(head_key("flights"))
        paused.resume.set()
        thread.join()

    assert [problem.code for error in errors for problem in error.problems] == ["PUBLISH_FENCED"]  # type: ignore[attr-defined]
    assert redis_client.get(head_key("flights")) == head
    assert _served(redis_client) == (2, {0.5})
    assert _states(staging) == {1: "COMMITTED", 2: "LIVE"}
    assert _agree(staging, table)
    assert _keys_of(redis_client, 1) == []


def _overtaken_by_a_newer_date(staging: Any, redis_url: str, newer: str, older: str) -> Published:
    """The newer date commits first, the older one second; the newer flips and is recorded, then the older flips."""
    with connect(redis_url) as first, connect(redis_url) as second, ThreadPoolExecutor() as pool:
        loading, flipping = (
            _PausedTable(client, "flights", before=step) for client, step in ((first, "load"), (second, "flip"))
        )
        newer_one = pool.submit(Publisher(staging.store, loading).publish, newer)
        loading.wait_until_paused()
        older_one = pool.submit(Publisher(staging.store, flipping).publish, older)
        flipping.wait_until_paused()
        loading.resume.set()
        assert newer_one.result().outcome is Outcome.LIVE
        flipping.resume.set()
        return older_one.result()


def test_an_older_date_that_commits_later_and_flips_last_is_archived(
    staging: Any, table: RedisTable, redis_url: str, redis_client: Client
) -> None:
    newer, older = staging.run(TUESDAY, NEW), staging.run(MONDAY, OLD)

    published = _overtaken_by_a_newer_date(staging, redis_url, newer, older)

    assert (published.outcome, published.release, published.run_id) == (Outcome.ARCHIVED, 2, older)
    assert _served(redis_client) == (1, {0.5})
    assert _events(staging) == [("commit", 1), ("commit", 2), ("live", 1)]
    assert _states(staging) == {1: "LIVE", 2: "COMMITTED"}
    assert _agree(staging, table)
    assert sorted(table.versions()) == [1]
    assert _keys_of(redis_client, 2) == []


def test_an_older_date_that_is_forced_after_it_was_archived_has_keys_of_its_own(
    staging: Any, publisher: Publisher, table: RedisTable, redis_url: str, redis_client: Client
) -> None:
    newer, older = staging.run(TUESDAY, NEW), staging.run(MONDAY, OLD)
    _overtaken_by_a_newer_date(staging, redis_url, newer, older)

    assert publisher.publish(older, force=True).outcome is Outcome.LIVE

    # Its first version was dropped: a dropper that is still at it must not meet what is served now.
    head = table.head()
    assert head is not None
    assert (head.release, head.version, head.token) == (2, 4, 4)
    assert _served(redis_client) == (2, {0.25})
    assert _agree(staging, table)


def test_a_rollback_that_comes_before_retirement_claims_its_version_keeps_it(
    staging: Any, publisher: Publisher, table: RedisTable, redis_url: str, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    publisher.publish(staging.run(TUESDAY, NEW))
    with connect(redis_url) as client, ThreadPoolExecutor() as pool:
        retiring = _PausedTable(client, "flights", before="claim")
        retired = pool.submit(retiring.retire, keep=1, grace_seconds=0)
        retiring.wait_until_paused()
        publisher.roll_back()
        retiring.resume.set()

        assert retired.result() == []

    head = table.head()
    assert head is not None
    assert (head.version, table.count(head)) == (1, 200)
    assert _served(redis_client) == (1, {0.25})
    assert _agree(staging, table)


def test_a_rollback_whose_version_is_retired_before_its_flip_loads_it_anew(
    staging: Any, publisher: Publisher, table: RedisTable, redis_url: str, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    publisher.publish(staging.run(TUESDAY, NEW))
    with connect(redis_url) as client, ThreadPoolExecutor() as pool:
        flipping = _PausedTable(client, "flights", before="flip")
        going_back = pool.submit(Publisher(staging.store, flipping).roll_back)
        flipping.wait_until_paused()
        assert table.retire(keep=1, grace_seconds=0) == [1]
        flipping.resume.set()

        assert going_back.result().outcome is Outcome.LIVE

    head = table.head()
    assert head is not None
    assert (head.release, head.version, table.count(head)) == (1, 5, 200)
    assert _served(redis_client) == (1, {0.25})
    assert _keys_of(redis_client, 1) == []
    assert _agree(staging, table)


def test_a_rollback_is_not_harmed_by_a_slow_retirement_of_the_version_that_it_loads_anew(
    staging: Any, publisher: Publisher, table: RedisTable, redis_url: str, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    publisher.publish(staging.run(TUESDAY, NEW))
    with connect(redis_url) as client, ThreadPoolExecutor() as pool:
        dropping = _PausedTable(client, "flights", before="unlink")
        retired = pool.submit(dropping.retire, keep=1, grace_seconds=0)
        dropping.wait_until_paused()
        publisher.roll_back()
        dropping.resume.set()
        assert retired.result() == [1]

    head = table.head()
    assert head is not None
    assert (head.release, head.version, table.count(head)) == (1, 5, 200)
    assert _served(redis_client) == (1, {0.25})
    assert _keys_of(redis_client, 1) == []
    assert _agree(staging, table)


def test_a_rollback_takes_the_version_that_was_loaded_because_an_earlier_one_had_lost_rows(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client
) -> None:
    old, new = staging.run(MONDAY, OLD), staging.run(TUESDAY, NEW)
    publisher.publish(old)
    publisher.publish(new)
    _lose_a_bucket(redis_client)
    publisher.publish(old, force=True)
    publisher.publish(new)

    publisher.roll_back(to=1)

    assert _served(redis_client) == (1, {0.25})
    assert _agree(staging, table)


_PUBLISH = """
import sys
from pathlib import Path
from lookup.connect import connect
from lookup.publisher import Publisher
from lookup.store import Store
from lookup.table import RedisTable
root, url, run = sys.argv[1:]
with connect(url) as client:
    publisher = Publisher(Store(Path(root), "flights"), RedisTable(client, "flights"))
    print("ready", flush=True)
    sys.stdin.readline()
    print(publisher.publish(run).release)
"""


def test_two_processes_that_publish_the_same_run_at_once_both_end_well_with_one_release(
    staging: Any, redis_url: str, redis_client: Client
) -> None:
    run = staging.run(MONDAY, {f"UA:{number}": 0.25 for number in range(20_000)})
    command = [sys.executable, "-c", _PUBLISH, str(staging.store.folder.parent), redis_url, run]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in processes]

    assert [(process.returncode, *result) for process, result in zip(processes, results, strict=True)] == [
        (0, "1\n", ""),
        (0, "1\n", ""),
    ]
    assert _events(staging) == [("commit", 1), ("live", 1)]
    assert _served(redis_client) == (1, {0.25})


def test_publishing_again_heals_a_redis_that_lost_everything(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client
) -> None:
    run = staging.run(MONDAY, OLD)
    publisher.publish(run)
    redis_client.flushall()

    assert publisher.publish(run).outcome is Outcome.LIVE
    assert _served(redis_client) == (1, {0.25})
    assert _events(staging) == [("commit", 1), ("live", 1)]
    assert _agree(staging, table)


def test_a_rollback_after_redis_lost_everything_goes_back_to_the_release_before(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    publisher.publish(staging.run(TUESDAY, NEW))
    redis_client.flushall()

    moved = publisher.roll_back()

    assert (moved.outcome, moved.release, moved.previous) == (Outcome.LIVE, 1, 2)
    assert _served(redis_client) == (1, {0.25})
    assert _states(staging) == {1: "LIVE", 2: "ROLLED_BACK"}
    assert _agree(staging, table)


def test_a_rollback_whose_head_was_lost_is_finished_and_not_done_once_more(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client
) -> None:
    for date, scores in ((MONDAY, OLD), (TUESDAY, NEW), (WEDNESDAY, NEWEST)):
        publisher.publish(staging.run(date, scores))
    publisher.roll_back()
    log = staging.log_files()
    redis_client.flushall()

    assert publisher.roll_back().release == 2
    assert _served(redis_client) == (2, {0.5})
    assert staging.log_files() == log
    assert _agree(staging, table)


def test_a_redis_that_loses_a_version_before_its_flip_is_told_and_nothing_is_recorded_live(
    staging: Any, redis_client: Client
) -> None:
    class Lost(RedisTable):
        def flip(self, head: Head, *, allow_older: bool = False) -> Flip:
            redis_client.flushall()
            return super().flip(head, allow_older=allow_older)

    with pytest.raises(UnavailableError, match=r"flights version 1: its rows were lost.*publish again \[STORE_COUNT\]"):
        Publisher(staging.store, Lost(redis_client, "flights")).publish(staging.run(MONDAY, OLD))

    assert redis_client.get(head_key("flights")) is None
    assert _events(staging) == [("commit", 1)]


def test_after_a_redis_that_went_back_in_time_the_live_release_is_put_back(
    staging: Any, publisher: Publisher, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    old = redis_client.get(head_key("flights"))
    run = staging.run(TUESDAY, NEW)
    publisher.publish(run)
    assert isinstance(old, bytes)
    redis_client.set(head_key("flights"), old)

    publisher.publish(run)

    assert _served(redis_client) == (2, {0.5})


def _lose_a_bucket(client: Client) -> None:
    client.delete(bucket_key("flights", 1, 0))


def _lose_a_field(client: Client) -> None:
    client.hdel(bucket_key("flights", 1, bucket_of("UA:7", 4)), "UA:7")


def _lose_the_list_of_versions(client: Client) -> None:
    client.delete("almanac:{flights}:versions")


@pytest.mark.parametrize("lose", [_lose_a_bucket, _lose_a_field, _lose_the_list_of_versions])
def test_publishing_again_heals_a_version_that_lost_rows(
    staging: Any, publisher: Publisher, redis_client: Client, lose: Any
) -> None:
    run = staging.run(MONDAY, OLD)
    publisher.publish(run)
    whole = {key: redis_client.hgetall(key) for key in redis_client.scan_iter("almanac:flights:1:*")}
    lose(redis_client)

    assert publisher.publish(run).outcome is Outcome.LIVE

    assert {key: redis_client.hgetall(key) for key in redis_client.scan_iter("almanac:flights:1:*")} == whole
    assert _served(redis_client) == (1, {0.25})


def test_a_version_whose_load_was_killed_half_way_is_loaded_whole_by_the_next_attempt(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client
) -> None:
    manifest = staging.store.manifest(staging.run(MONDAY, OLD))
    commit = staging.store.commit(manifest)
    rows = GivenRows(list(StoredRows(staging.store, manifest))[:90])
    with pytest.raises(InputError, match=r"90 rows in Redis; expected 200 \[STORE_COUNT\]"):
        table.load(head_of(manifest, commit, version=commit.sequence), rows)

    assert publisher.publish(manifest.run_id).outcome is Outcome.LIVE
    assert _served(redis_client) == (1, {0.25})
    assert _agree(staging, table)


def test_rows_that_do_not_belong_to_the_version_stop_its_publication(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client
) -> None:
    redis_client.hset(bucket_key("flights", 1, 0), "foreign", b"row")

    with pytest.raises(RefusedError, match=r"flights version 1: another program's keys .*STORE_FOREIGN"):
        publisher.publish(staging.run(MONDAY, OLD))

    assert table.head() is None


def _meddle(client: Client, loaded: list[Loaded]) -> list[Loaded]:
    """Change every row of version 1 behind its load."""
    for key in client.scan_iter("almanac:flights:1:*"):
        for entity in client.hkeys(key):
            client.hset(key, entity, b"other")
    return loaded


def test_rows_that_another_program_changes_while_they_load_stop_the_publication_as_often_as_it_is_tried(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client
) -> None:
    run = staging.run(MONDAY, OLD)
    meddled = Publisher(staging.store, table, spread=lambda *parts: _meddle(redis_client, in_threads(*parts)))

    # A second attempt trusts nothing that the first one left.
    for _ in range(2):
        with pytest.raises(InputError, match=r"67 of 67 sampled rows differ; expected the store's \[STORE_ROWS\]"):
            meddled.publish(run)

    assert (redis_client.get(head_key("flights")), table.versions()) == (None, {})
    assert publisher.publish(run).outcome is Outcome.LIVE
    assert _served(redis_client) == (1, {0.25})


def test_publication_keeps_as_many_versions_as_declared_in_redis(
    staging: Any, table: RedisTable, redis_client: Client
) -> None:
    publisher = Publisher(staging.store, table, keep=2, grace_seconds=0)
    publisher.publish(staging.run(MONDAY, OLD))
    assert publisher.publish(staging.run(TUESDAY, NEW)).retired == ()

    assert publisher.publish(staging.run(WEDNESDAY, NEWEST)).retired == (1,)

    assert _keys_of(redis_client, 1) == []
    # A version has the number of its commit in the log, where each publication has two entries.
    assert sorted(table.versions()) == [3, 5]


@pytest.mark.parametrize(("order", "what"), [([0, 0, 1], "an id twice"), ([1, 0, 2], "rows out of order")])
def test_files_with_doubled_or_disordered_rows_move_no_head(
    staging: Any, publisher: Publisher, redis_client: Client, order: list[int], what: str
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    head = redis_client.get(head_key("flights"))
    disordered = [(f"UA:{number}", 0.5) for number in order]
    run = staging.run_of_rows(TUESDAY, disordered, verdict=Verdict.PASS, buckets=1)

    with pytest.raises(InputError, match=f"{what}.*ROW_ORDER"):
        publisher.publish(run)

    assert redis_client.get(head_key("flights")) == head
    assert _served(redis_client) == (1, {0.25})


def test_a_server_that_may_evict_is_refused_before_anything_is_recorded(
    staging: Any, publisher: Publisher, redis_client: Client
) -> None:
    run = staging.run(MONDAY, OLD)
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(DeclarationError, match="STORE_POLICY"):
            publisher.publish(run)
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")

    assert staging.log_files() == {}


def test_a_server_that_may_evict_is_refused_by_a_rollback_before_anything_is_recorded(
    staging: Any, publisher: Publisher, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    publisher.publish(staging.run(TUESDAY, NEW))
    log = staging.log_files()
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(DeclarationError, match=r"allkeys-lru would drop predictions.*STORE_POLICY"):
            publisher.roll_back()
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")

    assert staging.log_files() == log
    assert _served(redis_client) == (2, {0.5})


def test_a_garbage_head_is_refused_and_left_alone(staging: Any, publisher: Publisher, redis_client: Client) -> None:
    redis_client.set(head_key("flights"), "garbage")

    with pytest.raises(InputError, match="STORE_POINTER_FORMAT"):
        publisher.publish(staging.run(MONDAY, OLD))
    with pytest.raises(InputError, match="STORE_POINTER_FORMAT"):
        _served(redis_client)

    assert redis_client.get(head_key("flights")) == b"garbage"


def test_a_redis_without_memory_keeps_the_live_version_whole_and_takes_the_new_one_later(
    staging: Any, own_redis: Any
) -> None:
    with connect(own_redis().url) as client:
        publisher = Publisher(staging.store, RedisTable(client, "flights"))
        publisher.publish(staging.run(MONDAY, OLD))
        run = staging.run(TUESDAY, {f"UA:{number}": 0.5 for number in range(50_000)})
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 300_000)

        with pytest.raises(UnavailableError, match="STORE_FULL") as full:
            publisher.publish(run)
        assert "UA:" not in str(full.value)
        assert _served(client) == (1, {0.25})

        client.config_set("maxmemory", 0)
        publisher.publish(run)
        assert _served(client) == (2, {0.5})


def test_a_redis_that_is_down_records_nothing(staging: Any, own_redis: Any) -> None:
    server = own_redis()
    run = staging.run(MONDAY, OLD)
    with connect(server.url) as client:
        server.kill()

        with pytest.raises(UnavailableError, match="STORE_DOWN"):
            Publisher(staging.store, RedisTable(client, "flights")).publish(run)

    assert staging.log_files() == {}


def test_a_replica_is_refused(staging: Any, own_redis: Any) -> None:
    primary, replica = own_redis(), own_redis()
    with connect(replica.url) as client:
        client.replicaof("127.0.0.1", str(primary.port))

        with pytest.raises(DeclarationError, match="STORE_READONLY"):
            Publisher(staging.store, RedisTable(client, "flights")).publish(staging.run(MONDAY, OLD))


def test_a_store_that_was_lost_does_not_write_over_what_redis_serves(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client, tmp_path: Path
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    fresh = type(staging)(tmp_path / "fresh store")
    run = fresh.run(TUESDAY, NEW)

    refusal = r"release 1 of run .*, which is not in this store's log.*STORE_FOREIGN"
    with pytest.raises(RefusedError, match=refusal):
        Publisher(fresh.store, table).publish(run)
    with pytest.raises(RefusedError, match=refusal):
        Publisher(fresh.store, table).roll_back()

    assert _served(redis_client) == (1, {0.25})
    assert fresh.log_files() == {}


def test_a_store_that_was_lost_leaves_the_rows_of_the_one_before_even_where_the_head_was_lost_too(
    staging: Any, publisher: Publisher, table: RedisTable, redis_client: Client, tmp_path: Path
) -> None:
    old = staging.run(MONDAY, OLD)
    publisher.publish(old)
    redis_client.delete(head_key("flights"))
    before = {key: redis_client.dump(key) for key in redis_client.scan_iter("*")}
    fresh = type(staging)(tmp_path / "fresh store")

    with pytest.raises(RefusedError, match="STORE_FOREIGN"):
        Publisher(fresh.store, table).publish(fresh.run(TUESDAY, NEW))

    assert {key: redis_client.dump(key) for key in redis_client.scan_iter("*")} == before
    assert publisher.publish(old).outcome is Outcome.LIVE
    assert _served(redis_client) == (1, {0.25})


def test_equal_runs_have_equal_heads(staging: Any, tmp_path: Path) -> None:
    twin = type(staging)(tmp_path / "twin")
    manifests = [one.store.manifest(one.run(MONDAY, OLD)) for one in (staging, twin)]
    entry = entry_for(Event.COMMIT, staging.store.commit(manifests[0]), 1)

    first, second = (head_of(manifest, entry, version=1).model_dump_json() for manifest in manifests)

    assert first == second
    assert json.loads(first)["scored_at"] == "2013-07-01T04:00:00Z"


def test_the_store_of_one_pipeline_knows_nothing_of_another(staging: Any, publisher: Publisher) -> None:
    publisher.publish(staging.run(MONDAY, OLD))

    assert Store(staging.store.folder.parent, "other").releases() == []
