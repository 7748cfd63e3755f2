"""Misses are counted within bounds, written whole, read together, and forgotten."""

import datetime as dt
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lookup.misses import KEEP_DAYS, MAX_IDS, Missed, Misses, forget, read_misses
from schemas.errors import InputError

NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC).timestamp()


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def misses(tmp_path: Path, clock: Clock) -> Misses:
    return Misses(tmp_path, clock=clock)


def files(root: Path, table: str = "flights") -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted((root / table / "misses").glob("*.json"))]


def test_what_was_counted_is_in_one_file_of_the_day(misses: Misses, tmp_path: Path) -> None:
    for entity in ("UA:1", "UA:2", "UA:1"):
        misses.add("flights", entity)

    misses.flush()

    expected = {"table": "flights", "date": "2026-11-23", "ids": {"UA:1": 2, "UA:2": 1}, "dropped": 0}
    assert files(tmp_path) == [expected]
    (path,) = (tmp_path / "flights" / "misses").glob("*.json")
    assert path.name.startswith("2026-11-23-")
    assert f"-{os.getpid()}-" in path.name


def test_a_later_flush_replaces_the_file(misses: Misses, tmp_path: Path) -> None:
    misses.add("flights", "UA:1")
    misses.flush()
    misses.add("flights", "UA:1")
    misses.add("flights", "UA:2")

    misses.flush()

    assert [file["ids"] for file in files(tmp_path)] == [{"UA:1": 2, "UA:2": 1}]


def test_nothing_is_written_where_nothing_was_missed(misses: Misses, tmp_path: Path) -> None:
    misses.add("flights", "UA:1")
    misses.flush()
    (path,) = (tmp_path / "flights" / "misses").glob("*.json")
    before = path.stat()

    misses.flush()

    assert path.stat().st_ino == before.st_ino
    assert not (tmp_path / "other").exists()


def test_a_new_day_begins_a_new_file_and_the_old_one_is_finished(misses: Misses, tmp_path: Path, clock: Clock) -> None:
    misses.add("flights", "UA:1")
    misses.flush()
    misses.add("flights", "UA:1")
    clock.now += 86_400
    misses.add("flights", "UA:2")

    misses.flush()

    assert [(file["date"], file["ids"]) for file in files(tmp_path)] == [
        ("2026-11-23", {"UA:1": 2}),
        ("2026-11-24", {"UA:2": 1}),
    ]


def test_ids_beyond_the_limit_are_only_numbered(misses: Misses, tmp_path: Path) -> None:
    for number in range(MAX_IDS + 5):
        misses.add("flights", f"UA:{number}")

    misses.flush()

    (file,) = files(tmp_path)
    assert (len(file["ids"]), set(file["ids"].values()), file["dropped"]) == (MAX_IDS, {1}, 5)


def test_a_scan_over_many_ids_keeps_no_other_out_and_counts_stay_right(tmp_path: Path, clock: Clock) -> None:
    misses = Misses(tmp_path, clock=clock, key=b"a fixed one")
    for number in range(30_000):
        misses.add("flights", f"scanned:{number}")
    for _ in range(3):
        for number in range(10_000):
            misses.add("flights", f"UA:{number}")

    misses.flush()

    (file,) = files(tmp_path)
    asked = {number for entity, number in file["ids"].items() if entity.startswith("UA:")}
    kept = sum(entity.startswith("UA:") for entity in file["ids"])
    assert len(file["ids"]) == MAX_IDS
    assert asked == {3}
    assert kept == 2478  # a quarter of what is kept, as they are a quarter of all
    assert sum(file["ids"].values()) + file["dropped"] == 60_000


def test_what_was_erased_makes_room_for_others(misses: Misses, tmp_path: Path) -> None:
    for number in range(MAX_IDS):
        misses.add("flights", f"UA:{number}")
    misses.flush()
    for number in range(10):
        forget(tmp_path, "flights", f"UA:{number}")
    misses.add("flights", "UA:77")
    misses.flush()
    for number in range(1000):
        misses.add("flights", f"AA:{number}")

    misses.flush()

    (file,) = files(tmp_path)
    assert len(file["ids"]) == MAX_IDS
    assert not {f"UA:{number}" for number in range(10)} & set(file["ids"])


def test_tables_do_not_share_a_limit_or_a_folder(misses: Misses, tmp_path: Path) -> None:
    for number in range(MAX_IDS + 1):
        misses.add("flights", f"UA:{number}")
    misses.add("trains", "ICE:1")

    misses.flush()

    assert files(tmp_path, "trains")[0]["ids"] == {"ICE:1": 1}


def test_all_processes_are_read_together_the_most_asked_first(tmp_path: Path, clock: Clock) -> None:
    for asked in (["UA:1", "UA:2"], ["UA:2", "UA:3", "UA:2"]):
        misses = Misses(tmp_path, clock=clock)
        for entity in asked:
            misses.add("flights", entity)
        misses.flush()

    assert read_misses(tmp_path, "flights") == Missed({"UA:2": 3, "UA:1": 1, "UA:3": 1}, 0)
    assert list(read_misses(tmp_path, "flights").ids) == ["UA:2", "UA:1", "UA:3"]


def test_a_table_that_missed_nothing_has_no_misses(tmp_path: Path) -> None:
    assert read_misses(tmp_path, "flights") == Missed({}, 0)


def test_a_disk_that_fails_breaks_nothing_and_is_told_once(
    misses: Misses, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "flights").write_text("a file where the folder should be")
    for _ in range(3):
        misses.add("flights", "UA:1")
        misses.flush()

    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    assert "UA:1" not in caplog.text


def test_what_a_failing_disk_kept_back_is_written_when_it_works_again(misses: Misses, tmp_path: Path) -> None:
    (tmp_path / "flights").write_text("a file where the folder should be")
    misses.add("flights", "UA:1")
    misses.flush()
    (tmp_path / "flights").unlink()

    misses.flush()

    assert read_misses(tmp_path, "flights").ids == {"UA:1": 1}


def test_files_older_than_is_kept_are_removed(misses: Misses, tmp_path: Path, clock: Clock) -> None:
    misses.add("flights", "UA:1")
    misses.flush()
    clock.now += (KEEP_DAYS + 1) * 86_400
    misses.add("flights", "UA:2")

    misses.flush()

    assert read_misses(tmp_path, "flights").ids == {"UA:2": 1}


def test_a_damaged_file_is_named(misses: Misses, tmp_path: Path) -> None:
    misses.add("flights", "UA:1")
    misses.flush()
    (path,) = (tmp_path / "flights" / "misses").glob("*.json")
    path.write_text('{"ids": ')

    with pytest.raises(InputError, match=rf"{path.name}.*OUT_FORMAT"):
        read_misses(tmp_path, "flights")


def test_an_erased_entity_is_in_no_file(tmp_path: Path, clock: Clock) -> None:
    for _ in range(2):
        misses = Misses(tmp_path, clock=clock)
        for entity in ("UA:1", "UA:2", "UA:1"):
            misses.add("flights", entity)
        misses.flush()

    assert forget(tmp_path, "flights", "UA:1") == 4

    assert read_misses(tmp_path, "flights").ids == {"UA:2": 2}
    assert not [path for path in (tmp_path / "flights" / "misses").iterdir() if b"UA:1" in path.read_bytes()]


def test_a_process_that_counts_does_not_bring_back_what_was_erased(misses: Misses, tmp_path: Path) -> None:
    for entity in ("UA:1", "UA:2"):
        misses.add("flights", entity)
    misses.flush()
    forget(tmp_path, "flights", "UA:1")
    for entity in ("UA:2", "UA:3"):
        misses.add("flights", entity)

    misses.flush()
    misses.add("flights", "UA:3")
    misses.flush()

    assert read_misses(tmp_path, "flights").ids == {"UA:2": 2, "UA:3": 2}


def test_erasing_what_was_never_missed_changes_nothing(misses: Misses, tmp_path: Path) -> None:
    assert forget(tmp_path, "flights", "UA:1") == 0
    misses.add("flights", "UA:2")
    misses.flush()

    assert forget(tmp_path, "flights", "UA:1") == 0

    assert read_misses(tmp_path, "flights").ids == {"UA:2": 1}


def test_a_flush_that_comes_while_another_one_writes_waits_for_it(
    misses: Misses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()
    write = misses._write

    def slowly(count: Any) -> None:
        writing.set()
        assert go_on.wait(10)
        write(count)

    monkeypatch.setattr(misses, "_write", slowly)
    misses.add("flights", "UA:1")
    first, second = (threading.Thread(target=misses.flush) for _ in range(2))
    first.start()
    assert writing.wait(10)
    misses.add("flights", "UA:1")
    second.start()
    second.join(0.2)
    is_waiting = second.is_alive()
    go_on.set()
    first.join(10)
    second.join(10)

    assert is_waiting
    assert [file["ids"] for file in files(tmp_path)] == [{"UA:1": 2}]


_COUNT = """
import sys
from pathlib import Path
from lookup.misses import Misses
misses = Misses(Path(sys.argv[1]))
for round in range(20):
    for number in range(50):
        misses.add("flights", f"UA:{number}")
    misses.flush()
"""


@pytest.fixture
def counters(tmp_path: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    started = [subprocess.Popen([sys.executable, "-c", _COUNT, str(tmp_path)]) for _ in range(2)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_several_processes_and_an_eraser_lose_no_other_count(
    counters: list["subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    while any(process.poll() is None for process in counters):
        forget(tmp_path, "flights", "UA:0")

    forget(tmp_path, "flights", "UA:0")
    assert [process.returncode for process in counters] == [0, 0]
    assert read_misses(tmp_path, "flights").ids == {f"UA:{number}": 40 for number in range(1, 50)}
