"""What is wrong with a stage that a scheduler runs: its exit code, by which it is tried again or not, and its words."""

import importlib
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from jobs.arguments import exit_with
from jobs.cli import main
from lookup.connect import connect
from lookup.store import Store
from lookup.table import RedisTable
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.refusals import (
    Case,
    assert_refused,
    bad_sql,
    cut_file,
    damaged_bundle,
    empty_partition,
    files_of,
    folder,
    half_written,
    hole,
    is_like,
    no_bundle,
    no_source,
    nothing,
    one_name_twice,
    other_outputs,
    small_disk,
    store_is_a_file,
    unknown_key,
)
from tests.jobs.runs import PIPELINE

DATE = ("--date", "2013-01-05")
_MIB = 1 << 20


class Ended(NamedTuple):
    """The exit code of a stage, and the lines of its error."""

    code: int
    lines: list[str]


Stage = Callable[..., Ended]


@pytest.fixture
def stage(place: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Stage:
    """`stage("score", ...)`: the program `jobs/score.py` with these arguments."""

    def stage(job: str, *arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [f"{job}.py", *arguments])
        caplog.clear()
        code = 0
        try:
            with caplog.at_level(logging.INFO):
                exit_with(importlib.import_module(f"jobs.{job}").main)
        except SystemExit as ended:
            code = int(ended.code or 0)
        told = [record for record in caplog.records if record.name == "almanac"]
        assert not [record for record in told if record.exc_info], "a traceback beside the error"
        return Ended(code, [record.getMessage() for record in told])

    return stage


# {root} and {bundle} are filled in; ... stands for what differs from machine to machine.
CHECKED = {
    "no date": Case(nothing, (PIPELINE, "--date", "5.1.2013"), 2, "--date: '5.1.2013'; expected a day ... [CLI_DATE]"),
    "no such day": Case(
        nothing, (PIPELINE, "--date", "2013-02-30"), 2, "--date: '2013-02-30'; expected ... [CLI_DATE]"
    ),
    "before all records": Case(
        nothing, (PIPELINE, "--date", "0001-01-01"), 2, "--date: '0001-01-01'; expected a day from 1900 on [CLI_DATE]"
    ),
    "future date": Case(
        nothing, (PIPELINE, "--date", "2999-01-01"), 2, "--date: 2999-01-01; expected ... or earlier [CLI_DATE_FUTURE]"
    ),
    "unknown pipeline": Case(
        nothing, ("flight_dely", *DATE), 2, "pipeline 'flight_dely': not declared; did you mean ... [CFG_NOT_FOUND]"
    ),
    "two pipelines with one name": Case(
        one_name_twice,
        ("other", *DATE),
        2,
        "other/pipeline.yaml...'flight_delay', which another folder declares too; expected the folder's name, "
        "'other' [CFG_NAME]",
    ),
    "broken declaration": Case(
        unknown_key, (PIPELINE, *DATE), 2, "flight_delay/pipeline.yaml:4: ownr: unknown key; ... [CFG_UNKNOWN_KEY]"
    ),
    "SQL of an undeclared table": Case(
        bad_sql, (PIPELINE, *DATE), 2, "flight_delay/features.sql:11: table 'flight'; expected ... [SQL_TABLE]"
    ),
    "declaration of another model": Case(
        other_outputs, (PIPELINE, *DATE), 2, "flight_delay/pipeline.yaml: fallback.default: ... [CFG_INVALID]"
    ),
    "nothing trained": Case(
        no_bundle, (PIPELINE, *DATE), 2, "flight_delay/pipeline.yaml: models.champion.bundle: ... [BUNDLE_NOT_FOUND]"
    ),
    "damaged model": Case(damaged_bundle, (PIPELINE, *DATE), 2, "bundle {bundle}: model.txt: ... [BUNDLE_CHECKSUM]"),
    "before the data begins": Case(
        nothing,
        (PIPELINE, "--date", "2012-12-31"),
        2,
        "source 'flights': no partition date=2012-12-31; expected it under {root}/data/flights; ... [IN_STALE]",
    ),
    "a source missing in the middle": Case(
        hole, (PIPELINE, "--date", "2013-01-06"), 2, "source 'flights': no partition date=2013-01-06; ... [IN_STALE]"
    ),
    "a source half written": Case(
        half_written, (PIPELINE, *DATE), 2, "source 'flights' date=2013-01-05: ... did not finish; ... [IN_INCOMPLETE]"
    ),
    "no such source": Case(
        no_source,
        (PIPELINE, *DATE),
        2,
        "source 'planes': no such file or folder: {root}/data/planes; ... [IN_NOT_FOUND]",
    ),
    "an empty partition": Case(
        empty_partition, (PIPELINE, "--date", "2013-01-18"), 2, "source 'flights' date=2013-01-18: ... [IN_EMPTY]"
    ),
    "a file cut off": Case(
        cut_file, (PIPELINE, "--date", "2013-01-18"), 2, "source 'flights' {root}/data/flights/... [IN_BAD_FILE]"
    ),
    "store is a file": Case(
        store_is_a_file, (PIPELINE, *DATE), 2, "{root}/store: is a file, not a folder; expected ... [ENV_STORE]"
    ),
}


@pytest.mark.spark
@pytest.mark.parametrize("name", CHECKED)
def test_check_inputs_refuses_what_cannot_be_and_changes_nothing(place: Settings, stage: Stage, name: str) -> None:
    assert_refused(CHECKED[name], place, lambda *arguments: stage("check", "--pipeline", *arguments))


STAGE = ("--pipeline", PIPELINE, *DATE)


# Job -> what it says where the stage before it has not been.
@pytest.mark.spark
@pytest.mark.parametrize("job", ["verify", "publish", "smoke"])
def test_a_stage_whose_turn_it_is_not_is_refused(
    place: Settings, stage: Stage, job: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALMANAC_REDIS_URL", redis_url)
    before = files_of(place.root)

    ended = stage(job, *STAGE)

    assert (ended.code, len(ended.lines)) == (2, 1)
    assert is_like(ended.lines[0], "... no such file; expected ... [OUT_NOT_FOUND]")
    assert files_of(place.root) == before


@pytest.mark.spark
def test_a_stage_of_another_run_than_was_checked_is_refused(place: Settings, stage: Stage, spark: object) -> None:
    rewrite(folder(place) / "features.sql", ("  s.distance,", "  s.distance * 2 AS distance,"))

    ended = stage("score", *STAGE, "--run-id", "2013-01-05-000000000000")

    assert ended.code == 2
    assert is_like(ended.lines[0], "flight_delay 2013-01-05: now run ...; start again at check_inputs [IN_CHANGED]")
    assert Store(place.store, PIPELINE).releases() == []


def runs(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.store / PIPELINE / "runs").glob("*"))


def fill(folder: Path) -> Path:
    """A file that takes all the room that is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return path


# As a scheduler goes on: each stage once on a disk that is read-only, once on a full one, and then as it should be.
@pytest.mark.spark
def test_a_store_that_cannot_be_written_stops_each_stage_and_the_next_try_goes_on(
    place: Settings, stage: Stage, redis_url: str, monkeypatch: pytest.MonkeyPatch, spark: object
) -> None:
    monkeypatch.setenv("ALMANAC_REDIS_URL", redis_url)
    with small_disk(place.store, 64 * _MIB) as remount:
        for job in ("score", "verify", "publish"):
            before = runs(place), files_of(place.store)
            remount("ro")
            refused = stage(job, *STAGE)
            remount("rw")
            filler = fill(place.store)
            full = stage(job, *STAGE)
            filler.unlink()

            assert (refused.code, full.code) == (2, 1), (job, refused, full)
            assert is_like(refused.lines[0], f"{place.store}...: Read-only file system; expected ... [ENV_STORE]")
            assert is_like(full.lines[0], "...No space left on device; expected room on the disk [ENV_STORE]")
            assert (len(refused.lines), len(full.lines)) == (1, 1)
            assert (runs(place), files_of(place.store)) == before, job
            with connect(redis_url) as client:
                assert RedisTable(client, PIPELINE).head() is None
            assert stage(job, *STAGE).code == 0
        assert stage("smoke", *STAGE).code == 0
        assert [release.number for release in Store(place.store, PIPELINE).releases()] == [1]


@pytest.mark.spark
def test_a_publication_without_redis_may_be_tried_again(place: Settings, stage: Stage, spark: object) -> None:
    for job in ("score", "verify"):
        assert stage(job, *STAGE).code == 0

    ended = stage("publish", *STAGE)

    assert ended.code == 1
    assert is_like(ended.lines[0], "...127.0.0.1:1...: [Errno 111] Connection refused; expected ... [STORE_DOWN]")
    assert Store(place.store, PIPELINE).releases() == []


@pytest.mark.spark
def test_almanac_run_on_such_a_disk_says_the_same_and_then_goes_on(
    place: Settings,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spark: object,
) -> None:
    monkeypatch.setenv("ALMANAC_REDIS_URL", redis_url)
    monkeypatch.setattr(sys, "argv", ["almanac", "run", PIPELINE, *DATE])

    def run() -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    with small_disk(place.store, 64 * _MIB) as remount:
        remount("ro")
        refused = run()
        remount("rw")
        filler = fill(place.store)
        full = run()
        filler.unlink()
        assert runs(place) == []
        ended = run()

    assert (refused[0], full[0], ended[0]) == (2, 1, 0)
    assert "Read-only file system; expected a folder to write in" in refused[1]
    assert "No space left on device; expected room on the disk [ENV_STORE]" in full[1]
