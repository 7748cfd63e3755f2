"""What is wrong with a backfill, in one clear error each: its exit code, its words, and that nothing was changed."""

import json
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from jobs.cli import main
from lookup.store import Store
from lookup.turns import PENDING_FILE, only_backfill
from schemas.settings import Settings
from tests.jobs.refusals import (
    Case,
    assert_refused,
    bad_sql,
    cut_file,
    damaged_bundle,
    empty_partition,
    files_of,
    gap_in_the_log,
    half_written,
    hole,
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

DAYS = ("--from", "2013-01-04", "--to", "2013-01-05")
LATER = ("--from", "2013-01-18", "--to", "2013-01-19")


class Shown(NamedTuple):
    """What a person sees: the exit code, standard output, and the lines of standard error."""

    code: int
    out: str
    err: list[str]


Backfill = Callable[..., Shown]


@pytest.fixture
def backfill(place: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Backfill:
    def backfill(*arguments: str) -> Shown:
        monkeypatch.setattr(sys, "argv", ["almanac", "backfill", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return Shown(int(ended.value.code or 0), shown.out, shown.err.splitlines())

    return backfill


# {root} and {bundle} are filled in; ... stands for what differs from machine to machine.
CASES = {
    "dates reversed": Case(
        nothing,
        (PIPELINE, "--from", "2013-01-06", "--to", "2013-01-05"),
        2,
        "✗ --from: 2013-01-06 is after --to 2013-01-05; expected the earlier one first [CLI_RANGE]",
    ),
    "no date": Case(
        nothing,
        (PIPELINE, "--from", "5.1.2013", "--to", "2013-01-05"),
        2,
        "✗ --from: '5.1.2013'; expected a day as YYYY-MM-DD [CLI_DATE]",
    ),
    "no such day": Case(
        nothing,
        (PIPELINE, "--from", "2013-02-01", "--to", "2013-02-30"),
        2,
        "✗ --to: '2013-02-30'; expected a day as YYYY-MM-DD [CLI_DATE]",
    ),
    "before all records": Case(
        nothing,
        (PIPELINE, "--from", "0001-01-01", "--to", "2013-01-05"),
        2,
        "✗ --from: '0001-01-01'; expected a day from 1900 on [CLI_DATE]",
    ),
    "future date": Case(
        nothing,
        (PIPELINE, "--from", "2013-01-04", "--to", "2999-01-01"),
        2,
        "✗ --to: 2999-01-01; expected ... or earlier [CLI_DATE_FUTURE]",
    ),
    "unknown pipeline": Case(
        nothing,
        ("flight_dely", *DAYS),
        2,
        "✗ pipeline 'flight_dely': not declared; did you mean 'flight_delay'?; expected one of flight_delay "
        "[CFG_NOT_FOUND]",
    ),
    "two pipelines with one name": Case(
        one_name_twice,
        ("other", *DAYS),
        2,
        "✗ other/pipeline.yaml...'flight_delay', which another folder declares too; expected the folder's name, "
        "'other' [CFG_NAME]",
    ),
    "broken declaration": Case(
        unknown_key,
        (PIPELINE, *DAYS),
        2,
        "✗ flight_delay/pipeline.yaml:4: ownr: unknown key; did you mean 'owner'? [CFG_UNKNOWN_KEY]",
    ),
    "SQL of an undeclared table": Case(
        bad_sql,
        (PIPELINE, *DAYS),
        2,
        "✗ flight_delay/features.sql:11: table 'flight'; expected a declared source: airports, flights, planes, "
        "weather [SQL_TABLE]",
    ),
    "nothing trained": Case(
        no_bundle,
        (PIPELINE, *DAYS),
        2,
        "✗ flight_delay/pipeline.yaml: models.champion.bundle: no bundle in {root}/store/flight_delay/bundles; "
        "expected one; train it first [BUNDLE_NOT_FOUND]",
    ),
    "unknown model": Case(
        nothing,
        (PIPELINE, *DAYS, "--model", "2013-01-02-abcdefabcdef"),
        2,
        "✗ --model: no bundle '2013-01-02-abcdefabcdef'; expected one of {bundle} [BUNDLE_NOT_FOUND]",
    ),
    "no model at the path": Case(
        nothing,
        (PIPELINE, *DAYS, "--model", "/nowhere/2013-01-02-abcdefabcdef"),
        2,
        "✗ --model: no folder /nowhere/2013-01-02-abcdefabcdef; expected a bundle's folder [BUNDLE_NOT_FOUND]",
    ),
    "damaged model": Case(
        damaged_bundle,
        (PIPELINE, *DAYS),
        2,
        "✗ bundle {bundle}: model.txt: ... bytes; expected ...: truncated or changed [BUNDLE_CHECKSUM]",
    ),
    "declaration of another model": Case(
        other_outputs,
        (PIPELINE, *DAYS),
        2,
        "✗ flight_delay/pipeline.yaml: fallback.default: outputs delay; expected score [CFG_INVALID]",
    ),
    "no model as old as that": Case(
        nothing,
        (PIPELINE, *DAYS, "--model", "as-of"),
        2,
        "✗ 2013-01-04: --model as-of: no bundle in {root}/store/flight_delay/bundles whose days all lie before "
        "2013-01-04; the first is {bundle} (and on 1 more dates); expected an earlier model, or --model with one "
        "for all [BACKFILL_MODEL]",
    ),
    "before the data begins": Case(
        nothing,
        (PIPELINE, "--from", "2012-12-30", "--to", "2012-12-31"),
        2,
        "✗ 2012-12-30: source 'flights': no partition date=2012-12-30 (and on 1 more dates); expected it under "
        "{root}/data/flights; newest is date=2013-01-20 [IN_STALE]",
    ),
    "a source missing in the middle": Case(
        hole,
        (PIPELINE, *LATER),
        2,
        "✗ 2013-01-18: source 'flights': no partition date=2013-01-19 (and on 1 more dates); expected it under "
        "{root}/data/flights; newest is date=2013-01-20 [IN_STALE]",
    ),
    "a source half written": Case(
        half_written,
        (PIPELINE, "--from", "2013-01-05", "--to", "2013-01-05"),
        2,
        "✗ source 'flights' date=2013-01-05: {root}/data/flights/date=2013-01-05/_temporary: a write did "
        "not finish; expected a finished folder [IN_INCOMPLETE]",
    ),
    "no such source": Case(
        no_source,
        (PIPELINE, *DAYS),
        2,
        "✗ 2013-01-04: source 'planes': no such file or folder: {root}/data/planes (and on 1 more dates); expected "
        "the source's path [IN_NOT_FOUND]",
    ),
    "an empty partition": Case(
        empty_partition,
        (PIPELINE, "--from", "2013-01-18", "--to", "2013-01-18"),
        2,
        "✗ source 'flights' date=2013-01-18: no data file in {root}/data/flights/date=2013-01-18; expected "
        "at least one [IN_EMPTY]",
    ),
    "a file cut off": Case(
        cut_file,
        (PIPELINE, "--from", "2013-01-18", "--to", "2013-01-18"),
        2,
        "✗ source 'flights' {root}/data/flights/date=2013-01-18/part-0.parquet: Parquet file size is 4 "
        "bytes, smaller than the minimum file footer (8 bytes); expected a Parquet file [IN_BAD_FILE]",
    ),
    "store is a file": Case(
        store_is_a_file,
        (PIPELINE, *DAYS),
        2,
        "✗ {root}/store: is a file, not a folder; expected a folder to write in: correct ALMANAC_STORE, or the rights "
        "of this path [ENV_STORE]",
    ),
    "an entry of the log is missing": Case(
        gap_in_the_log,
        (PIPELINE, *DAYS),
        2,
        "✗ 2013-01-04: {root}/store/flight_delay/releases/00000002.json: ... (and on 1 more dates)... [LOG_FORMAT]",
    ),
    "Redis away, and the newest is to be published": Case(
        nothing,
        (PIPELINE, *DAYS, "--publish-latest"),
        1,
        "✗ ...127.0.0.1:1...: [Errno 111] Connection refused; expected a Redis that answers [STORE_DOWN]",
    ),
}


@pytest.mark.spark
@pytest.mark.parametrize("name", CASES)
def test_a_backfill_that_cannot_be_says_why_and_changes_nothing(place: Settings, backfill: Backfill, name: str) -> None:
    def fill(*arguments: str) -> tuple[int, list[str]]:
        shown = backfill(*arguments)
        assert "Traceback" not in shown.out + "\n".join(shown.err)
        return shown.code, shown.err

    assert_refused(CASES[name], place, fill)


def test_a_date_left_out_is_told_by_the_command_line(backfill: Backfill) -> None:
    shown = backfill(PIPELINE, "--from", "2013-01-04")
    assert shown.code == 2
    assert "Missing option '--to'" in " ".join(shown.err)


@pytest.mark.spark
def test_a_second_backfill_at_once_is_told_of_the_first(place: Settings, backfill: Backfill) -> None:
    folder = place.store / PIPELINE
    with only_backfill(folder, "ann@host, from 2013-01-01 to 2013-01-09"):
        shown = backfill(PIPELINE, *DAYS)
    assert shown.code == 1
    assert shown.err == [
        f"✗ {folder}: another backfill is under way: ann@host, from 2013-01-01 to 2013-01-09; expected its end; then "
        "start this one again [BACKFILL_BUSY]"
    ]


@pytest.mark.spark
def test_a_program_is_told_in_its_document(place: Settings, backfill: Backfill) -> None:
    shown = backfill(PIPELINE, "--from", "2012-12-31", "--to", "2013-01-01", "--dry-run", "--json")
    document = json.loads(shown.out)
    assert (shown.code, document["exit_code"], shown.err) == (2, 2, [])
    assert [(one["done"], [problem["code"] for problem in one["problems"]]) for one in document["dates"]] == [
        ("failed", ["IN_STALE", "IN_STALE"]),
        ("to be scored", []),
    ]


@pytest.mark.spark
def test_without_redis_dates_are_archived_and_an_erasure_that_has_not_ended_is_waited_for(
    place: Settings, backfill: Backfill, spark: object
) -> None:
    folder = place.store / PIPELINE
    wanted = [{"entity": "UA:1:EWR:2013-01-05", "by": "ops", "reason": ""}]
    (folder / PENDING_FILE).write_text(json.dumps(wanted))
    shown = backfill(PIPELINE, "--from", "2013-01-05", "--to", "2013-01-05")
    assert shown.code == 1
    assert shown.err == [
        f"✗ 2013-01-05: {folder}: an erasure was begun and has not ended; expected its end: erase again [ERASE_BUSY]"
    ]
    assert Store(place.store, PIPELINE).releases() == []

    (folder / PENDING_FILE).unlink()
    assert backfill(PIPELINE, "--from", "2013-01-05", "--to", "2013-01-05").code == 0
    assert [str(release.date) for release in Store(place.store, PIPELINE).releases()] == ["2013-01-05"]


@pytest.mark.spark
def test_a_read_only_store_stops_it_before_the_first_date(place: Settings, backfill: Backfill) -> None:
    with small_disk(place.store, 64 << 20) as remount:
        remount("ro")
        shown = backfill(PIPELINE, *DAYS)
    assert shown.code == 2
    assert shown.err == [
        f"✗ {place.store}/flight_delay/.backfill.lock: Read-only file system; expected a folder to write in: correct "
        "ALMANAC_STORE, or the rights of this path [ENV_STORE]"
    ]
    assert "not reached: 2 dates; the same command goes on with them" in shown.out


@pytest.mark.spark
def test_a_disk_without_room_stops_it_and_nothing_half_written_is_left(
    place: Settings, backfill: Backfill, spark: object
) -> None:
    used = sum(len(content) + 4096 for content in files_of(place.store).values())
    with small_disk(place.store, used + (96 << 10)):
        shown = backfill(PIPELINE, "--from", "2013-01-04", "--to", "2013-01-09")
        runs = [path.name for path in (place.store / PIPELINE / "runs").iterdir()]
        whole = {release.run_id for release in Store(place.store, PIPELINE).releases()}
    assert shown.code == 1
    assert len(shown.err) == 1
    assert "No space left on device; expected room on the disk [ENV_STORE]" in shown.err[0]
    assert "the same command goes on with them" in shown.out
    assert not [name for name in runs if name.startswith(".staging-")]
    assert whole <= set(runs)
