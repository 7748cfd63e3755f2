"""`almanac maintain`, from outside: what it says, what it leaves alone, and where there is no Redis."""

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from jobs.upkeep import Upkeeper
from lookup.connect import connect
from lookup.publisher import Publisher
from lookup.store import Store
from lookup.table import RedisTable
from lookup.turns import only_backfill
from schemas.declared import load_pipeline
from schemas.keys import head_key
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.conftest import Almanac, declare_flights
from tests.lookup.conftest import Staging
from tests.lookup.test_removing import set_aside, tree

ROOT = Path(__file__).parent.parent.parent
RETENTION = "\nretention: {keep_releases: 2, keep_days: 0, staged_days: 1}\n"
OLD = dt.datetime.now(dt.UTC).timestamp() - 3 * 86_400


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    """A store whose pipeline keeps two releases and two versions."""
    declared = declare_flights(tmp_path)
    rewrite(declared, ("  keep: 3\n  grace_seconds: 300\n", "  keep: 2\n  grace_seconds: 0\n"))
    declared.write_text(declared.read_text() + RETENTION)
    return Staging(tmp_path / "store")


def published(staging: Staging, url: str, count: int) -> list[str]:
    """Releases of days in a row that nobody has touched for three days; only the last two are in Redis."""
    made = [staging.run(dt.date(2013, 7, 1 + number), {"UA:1": number / 100}) for number in range(count)]
    with connect(url) as client:
        table = RedisTable(client, "flights")
        for run_id in made:
            Publisher(staging.store, table, keep=2, grace_seconds=0).publish(run_id)
    for run_id in made:
        age(staging, run_id)
    return made


def age(staging: Staging, run_id: str) -> None:
    folder = staging.store.run_folder(run_id)
    for path in (folder, *folder.glob("*")):
        os.utime(path, (OLD, OLD))


def dump(client: redis.Redis) -> dict[bytes, bytes | None]:
    return {key: client.dump(key) for key in client.scan_iter()}


def test_what_is_too_old_goes_and_redis_is_mended_and_a_dry_run_says_the_same_and_changes_nothing(
    almanac: Almanac, staging: Staging, redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    made = published(staging, redis_url, 5)
    set_aside(staging, made[4])
    age(staging, waiting := staging.run(dt.date(2013, 7, 9), {"UA:1": 0.5}))
    redis_client.delete(head_key("flights"))
    (tmp_path / "store/flights/.erasures.lock").unlink()
    before, in_redis = tree(tmp_path / "store"), dump(redis_client)

    looked = almanac("maintain", "--dry-run")

    assert looked.exit_code == 0, looked.output
    assert (tree(tmp_path / "store"), dump(redis_client)) == (before, in_redis)
    assert "4 would be removed" in looked.output
    assert "no head: readers find nothing; the log's live release is 5" in looked.output
    for expected in ("beyond the last 2 releases and 0 days", "never committed, untouched for 3 days", waiting):
        assert expected in looked.output

    (done,) = json.loads(almanac("maintain", "--json").stdout)

    kinds = [(removal["kind"], removal["name"]) for removal in done["removals"]]
    assert kinds == [
        ("staged run", waiting), ("release", made[0]), ("release", made[1]), ("quarantine", made[4])
    ]  # fmt: skip
    assert [finding["repair"] for finding in done["findings"]] == ["restore"]
    assert sum(removal["size_bytes"] for removal in done["removals"]) == done["size_bytes"] > 0
    assert staging.store.live().run_id == made[4]
    head = RedisTable(redis_client, "flights").head()
    assert head is not None
    assert head.run_id == made[4]
    (again,) = json.loads(almanac("maintain", "flights", "--json").stdout)
    assert (again["removals"], again["findings"], again["notes"]) == ([], [], [])


def test_every_command_that_is_asked_for_a_removed_release_says_so(
    almanac: Almanac, staging: Staging, redis_url: str
) -> None:
    made = published(staging, redis_url, 5)
    assert almanac("maintain").exit_code == 0
    today = dt.datetime.now(dt.UTC).date()
    for command in (
        ("diff", "flights", "1", "5"),
        ("rollback", "flights", "--to", "1"),
        ("plan", "flights", "--run", made[0]),
        ("override", "flights", made[0], "--check", "coverage", "--reason", "x"),
    ):
        ended = almanac(*command, "--json")
        assert ended.exit_code != 0, command
        (problem,) = ended.exception.problems  # type: ignore[union-attr]  # an AlmanacError, told by `main`
        assert (problem.code, problem.where) == ("OUT_REMOVED", f"flights run {made[0]} (release 1)")
        assert problem.found.startswith(f"removed by retention on {today}: ")
    told = json.loads(almanac("releases", "flights", "--json").stdout)
    assert [release["removed"] for release in told] == [str(today), str(today), None, None, None]
    assert str(today) in almanac("releases", "flights").output


def test_without_the_stores_own_redis_the_rest_is_done_and_releases_stay(
    almanac: Almanac, staging: Staging, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    published(staging, redis_url, 5)
    age(staging, waiting := staging.run(dt.date(2013, 7, 9), {"UA:1": 0.5}))
    monkeypatch.delenv("ALMANAC_REDIS_URL")
    (tmp_path / "store/redis").mkdir()  # it was there, and was stopped
    (done,) = json.loads(almanac("maintain", "--json").stdout)
    assert [removal["name"] for removal in done["removals"]] == [waiting]
    assert done["notes"] == [
        "the store's own Redis is not running: not compared, and releases stay: a version of theirs may be there"
    ]
    assert not list((tmp_path / "store/redis").iterdir())


def test_a_redis_that_does_not_answer_is_told_at_the_end_and_the_rest_is_done(
    almanac: Almanac, staging: Staging, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = published(staging, redis_url, 5)
    age(staging, waiting := staging.run(dt.date(2013, 7, 9), {"UA:1": 0.5}))
    monkeypatch.setenv("ALMANAC_REDIS_URL", "redis://127.0.0.1:1/0")
    ended = almanac("maintain")
    assert [problem.code for problem in ended.exception.problems] == ["STORE_DOWN"]  # type: ignore[union-attr]
    assert not staging.store.run_folder(waiting).exists()
    assert staging.store.run_folder(made[0]).exists()
    assert "Redis could not be compared: releases stay" in ended.output


def test_a_pipeline_that_cannot_be_read_does_not_keep_the_others_from_it(
    almanac: Almanac, staging: Staging, redis_url: str, tmp_path: Path
) -> None:
    made = published(staging, redis_url, 5)
    shutil.copytree(tmp_path / "dags/flights", tmp_path / "dags/broken")
    ended = almanac("maintain")
    assert [problem.code for problem in ended.exception.problems] == ["CFG_NAME"]  # type: ignore[union-attr]
    assert not staging.store.run_folder(made[0]).exists()
    missing = almanac("maintain", "flight")
    assert "did you mean 'flights'?" in str(missing.exception)


def test_a_pipeline_of_which_nothing_is_kept_gets_no_folder(almanac: Almanac, staging: Staging) -> None:
    (done,) = json.loads(almanac("maintain", "--json").stdout)
    assert done["notes"] == ["nothing is kept of it yet"]
    assert not staging.store.folder.exists()


def test_beside_a_backfill_releases_and_staged_runs_stay(almanac: Almanac, staging: Staging, redis_url: str) -> None:
    published(staging, redis_url, 5)
    with only_backfill(staging.store.folder, "somebody"):
        (done,) = json.loads(almanac("maintain", "--json").stdout)
    assert done["removals"] == []
    assert done["notes"] == ["a backfill is under way: releases and staged runs stay until it has ended"]


def test_a_disk_that_refuses_is_told_in_words(
    staging: Staging, almanac: Almanac, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    published(staging, redis_url, 5)

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "runs")

    monkeypatch.setattr("lookup.removing.remove_outdated", refuse)
    monkeypatch.setattr("jobs.upkeep.remove_outdated", refuse)
    settings = Settings(pipelines=tmp_path / "dags", store=tmp_path / "store", redis_url=redis_url)
    done = Upkeeper(settings, "flights", dry_run=False, now=dt.datetime.now(dt.UTC)).run()
    assert [str(error) for error in done.errors] == [
        "runs: Permission denied; expected a folder to write in: correct ALMANAC_STORE, or the rights of this path "
        "[ENV_STORE]"
    ]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("{keep_releases: 1}", "greater than or equal to 2"),
        ("{keep_day: 9}", "did you mean 'keep_days'?"),
        ("{staged_days: 0}", "greater than or equal to 1"),
        ("{quarantine_days: 7}", "quarantine_days 7 is less than staged_days 14"),
    ],
)
def test_a_retention_that_makes_no_sense_is_refused_before_anything_goes(
    almanac: Almanac, staging: Staging, redis_url: str, tmp_path: Path, declared: str, said: str
) -> None:
    made = published(staging, redis_url, 5)
    rewrite(tmp_path / "dags/flights/pipeline.yaml", (RETENTION.strip(), f"retention: {declared}"))
    assert said in str(almanac("maintain").exception)
    assert staging.store.run_folder(made[0]).exists()


def test_how_long_things_are_kept_makes_no_other_run(staging: Staging, tmp_path: Path) -> None:
    settings = Settings(pipelines=tmp_path / "dags", store=tmp_path / "store")
    before = load_pipeline(settings, "flights").digest
    rewrite(tmp_path / "dags/flights/pipeline.yaml", ("keep_releases: 2", "keep_releases: 99"))
    assert load_pipeline(settings, "flights").digest == before


def test_the_job_that_airflow_calls_prints_what_it_did_as_its_last_line(
    almanac: Almanac, staging: Staging, redis_url: str, tmp_path: Path
) -> None:
    made = published(staging, redis_url, 5)
    command = [sys.executable, str(ROOT / "jobs/maintain.py"), "--pipeline"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "ALMANAC_PIPELINES": str(tmp_path / "dags")}
    looked, done, failed = (
        subprocess.run([*command, *more], env=environ, capture_output=True, text=True, check=False)
        for more in (("flights", "--dry-run"), ("flights",), ("other",))
    )
    assert (looked.returncode, done.returncode) == (0, 0), looked.stderr + done.stderr
    names = [removal["name"] for removal in json.loads(done.stdout)["removals"]]
    assert names == [removal["name"] for removal in json.loads(looked.stdout)["removals"]] == made[:2]
    assert Store(tmp_path / "store", "flights").removed(made[0]) is not None
    assert failed.returncode == 2
    assert "CFG_NOT_FOUND" in failed.stderr
