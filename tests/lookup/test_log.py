"""The release log: entries that appear once and whole, and what they say is live."""

import datetime as dt
import getpass
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from lookup.log import ReleaseLog, entry_for, live_before, live_entry, releases
from schemas.content import canonical_json, create_exclusively, sha256_file, sha256_text, write_atomically
from schemas.errors import InputError
from schemas.release import Event, LogEntry, Release, ReleaseState


def _release(number: int) -> Release:
    return Release(
        number=number,
        run_id=f"2013-07-01-{number:012x}",
        date=dt.date(2013, 7, 1),
        committed_at=dt.datetime(2013, 7, 1, 4, tzinfo=dt.UTC),
        state=ReleaseState.COMMITTED,
    )


def _entries(*events: tuple[str, int]) -> list[LogEntry]:
    return [
        entry_for(Event(event), _release(number), sequence) for sequence, (event, number) in enumerate(events, start=1)
    ]


def _append(log: ReleaseLog, *releases: int) -> None:
    for number in releases:
        log.append(lambda _, sequence, number=number: entry_for(Event.COMMIT, _release(number), sequence))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "releases"


@pytest.fixture
def log(folder: Path) -> ReleaseLog:
    return ReleaseLog(folder)


def test_a_log_that_was_never_written_is_empty(log: ReleaseLog) -> None:
    assert log.entries() == []


def test_entries_are_numbered_from_one_and_read_back_as_written(log: ReleaseLog, folder: Path) -> None:
    _append(log, 7, 8)

    assert [(entry.sequence, entry.release) for entry in log.entries()] == [(1, 7), (2, 8)]
    assert sorted(path.name for path in folder.iterdir()) == ["00000001.json", "00000002.json"]


def test_a_draft_that_declines_writes_nothing(log: ReleaseLog, folder: Path) -> None:
    assert log.append(lambda entries, sequence: None) is None
    assert not folder.exists()


def test_a_draft_sees_the_entries_before_it(log: ReleaseLog) -> None:
    _append(log, 7)
    seen: list[int] = []

    def draft(entries: Sequence[LogEntry], sequence: int) -> None:
        seen.extend([*(entry.release for entry in entries), sequence])

    log.append(draft)

    assert seen == [7, 2]


def test_eight_threads_that_append_at_once_leave_no_gap_no_double_and_no_temporary_file(folder: Path) -> None:
    ready = threading.Barrier(8)

    def work(thread: int) -> None:
        ready.wait()
        _append(ReleaseLog(folder), *(10 * thread + number for number in range(1, 6)))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    entries = ReleaseLog(folder).entries()
    assert [entry.sequence for entry in entries] == list(range(1, 41))
    assert sorted(entry.release for entry in entries) == sorted(10 * t + n for t in range(8) for n in range(1, 6))
    assert sorted(path.name for path in folder.iterdir()) == [f"{number:08}.json" for number in range(1, 41)]


def test_a_missing_entry_is_refused(log: ReleaseLog, folder: Path) -> None:
    _append(log, 1, 2, 3)
    (folder / "00000002.json").unlink()

    with pytest.raises(InputError, match=r"00000003\.json: entry 3; expected entry 2: one is missing \[LOG_GAP\]"):
        log.entries()


def test_an_entry_under_the_name_of_another_is_refused_instead_of_appended_behind_for_ever(
    log: ReleaseLog, folder: Path
) -> None:
    _append(log, 1, 2)
    (folder / "00000002.json").rename(folder / "00000003.json")

    with pytest.raises(InputError, match=r"00000003\.json: entry 2; expected entry 2.*LOG_GAP"):
        _append(log, 3)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 1, "sequence": 1}', b"\xff\xfe", b'{"format": 2}'])
def test_a_damaged_entry_is_refused(log: ReleaseLog, folder: Path, damage: bytes) -> None:
    _append(log, 1)
    (folder / "00000001.json").write_bytes(damage)

    with pytest.raises(InputError, match=r"00000001\.json: .*expected an entry of the release log \[LOG_FORMAT\]"):
        log.entries()


def test_what_a_killed_writer_left_is_no_entry(log: ReleaseLog, folder: Path) -> None:
    _append(log, 1)
    (folder / ".00000002.json-abc").write_text("{")

    _append(log, 2)

    assert [entry.release for entry in log.entries()] == [1, 2]


def test_an_entry_names_who_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "nightly")

    assert entry_for(Event.COMMIT, _release(1), 1).by.startswith("nightly@")


def test_a_container_user_without_a_name_can_write_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr(getpass, "getuser", nobody)

    assert entry_for(Event.COMMIT, _release(1), 1).by.startswith(f"uid-{os.getuid()}@")


def test_a_commit_alone_makes_nothing_live() -> None:
    assert live_entry(_entries(("commit", 1))) is None


def test_the_last_live_or_rollback_entry_names_the_live_release() -> None:
    entries = _entries(("commit", 1), ("live", 1), ("commit", 2), ("live", 2), ("rollback", 1), ("commit", 3))

    live = live_entry(entries)

    assert live is not None
    assert (live.sequence, live.release) == (5, 1)


def test_states_follow_from_the_log() -> None:
    entries = _entries(
        ("commit", 1),
        ("live", 1),
        ("commit", 2),
        ("live", 2),
        ("commit", 3),
        ("live", 3),
        ("rollback", 2),
        ("commit", 4),
    )

    assert {release.number: release.state.value for release in releases(entries)} == {
        1: "RETIRED",
        2: "LIVE",
        3: "ROLLED_BACK",
        4: "COMMITTED",
    }


@pytest.mark.parametrize(
    ("events", "before"),
    [
        ([], None),
        ([("live", 1)], None),
        ([("live", 1), ("live", 2)], 1),
        ([("live", 1), ("live", 3), ("live", 2)], 3),
        ([("live", 1), ("live", 2), ("live", 3), ("rollback", 2)], 1),
        ([("live", 1), ("live", 2), ("live", 3), ("rollback", 1)], None),
        ([("live", 1), ("live", 2), ("rollback", 1), ("live", 3)], 1),
    ],
)
def test_the_release_live_before_is_the_one_that_a_reader_saw_before(
    events: list[tuple[str, int]], before: int | None
) -> None:
    assert live_before(_entries(*events)) == before


def test_creating_what_exists_changes_nothing_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    assert create_exclusively(tmp_path / "entry", "first") is True
    assert create_exclusively(tmp_path / "entry", "second") is False

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("entry", "first")]


def test_replacing_shows_the_new_text_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "state", "old")
    write_atomically(tmp_path / "state", "new")

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("state", "new")]


@pytest.mark.parametrize("write", [write_atomically, create_exclusively])
def test_a_write_that_fails_half_way_leaves_no_temporary_file(write: object, tmp_path: Path) -> None:
    assert callable(write)
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "entry", "a lone surrogate: \ud800")

    assert list(tmp_path.iterdir()) == []


def test_equal_values_have_equal_text_and_equal_digests(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"a":1,"b":"é"}')

    assert canonical_json({"b": "é", "a": 1}) == '{"a":1,"b":"é"}'
    assert sha256_text('{"a":1,"b":"é"}') == sha256_file(tmp_path / "file")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_cannot_say_has_no_canonical_text(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json([number])
