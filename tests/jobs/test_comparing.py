"""`almanac diff`, from outside: which two releases, what it tells, and when it stops a script."""

import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.comparing import compare
from lookup.connect import connect
from lookup.publisher import Publisher
from lookup.table import RedisTable
from schemas.errors import BlockedError, InputError, RefusedError
from schemas.head import ColumnSpec
from schemas.report import Verdict
from schemas.run import FEATURES, MANIFEST_FILE, DataFile
from schemas.settings import Settings
from tests.lookup.conftest import Staging

ROOT = Path(__file__).parent.parent.parent
MONDAY = {f"UA:{number}": number / 100 for number in range(100)}
# Two left, one came, three moved.
TUESDAY = {entity: score for entity, score in MONDAY.items() if entity not in ("UA:7", "UA:8")} | {
    "UA:0": 0.75,
    "UA:1": 0.26,
    "UA:99": 0.5,
    "B6:1": 0.25,
}

Almanac = Callable[..., Result]


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    folder = tmp_path / "dags" / "flights"
    shutil.copytree(ROOT / "dags" / "flight_delay", folder)
    declared = folder / "pipeline.yaml"
    text = declared.read_text().replace("pipeline: flight_delay", "pipeline: flights")
    declared.write_text(text.replace("columns: [origin, carrier]", "columns: [carrier]"))
    return Staging(tmp_path / "store")


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(pipelines=tmp_path / "dags", store=tmp_path / "store", redis_url=redis_url)


@pytest.fixture
def almanac(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Almanac:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALMANAC_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ALMANAC_REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *arguments: CliRunner().invoke(app, arguments)


def publish(staging: Staging, url: str, day: int, scores: dict[str, float]) -> str:
    run_id = staged(staging, day, scores)
    with connect(url) as client:
        Publisher(staging.store, RedisTable(client, "flights")).publish(run_id)
    return run_id


def staged(staging: Staging, day: int, scores: dict[str, float], *, verdict: Verdict = Verdict.PASS) -> str:
    """A run with its features: the carrier is the id's first part."""
    run_id = staging.run(dt.date(2013, 7, day), scores, verdict=verdict)
    folder = staging.store.run_folder(run_id)
    ids = pq.read_table(folder / "predictions").column("entity_id")
    carriers = pa.array([entity.split(":")[0] for entity in ids.to_pylist()])
    path = folder / FEATURES / "part-00000.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"entity_id": ids, "carrier": carriers}), path)
    file = DataFile(path=f"{FEATURES}/{path.name}", rows=len(ids), sha256="0" * 64, size_bytes=path.stat().st_size)
    manifest = staging.store.manifest(run_id)
    rewritten = manifest.model_copy(update={"files": (*manifest.files, file)})
    (folder / MANIFEST_FILE).write_text(rewritten.model_dump_json())
    return run_id


@pytest.fixture
def two_releases(staging: Staging, redis_url: str) -> tuple[str, str]:
    return publish(staging, redis_url, 1, MONDAY), publish(staging, redis_url, 2, TUESDAY)


def test_the_live_release_is_compared_with_the_one_before_and_what_was_planted_is_told(
    almanac: Almanac, two_releases: tuple[str, str]
) -> None:
    told = json.loads(almanac("diff", "flights", "--json").stdout)

    assert (told["before"]["release"], told["after"]["release"]) == (1, 2)
    assert (told["before"]["run_id"], told["after"]["run_id"]) == two_releases
    diff = told["diff"]
    assert (diff["before"], diff["after"], diff["kept"]) == (100, 99, 98)
    assert (diff["added"], diff["removed"], diff["changed"], diff["unchanged"]) == (1, 2, 3, 95)
    assert diff["churn"] == 0.06
    assert [mover["entity_id"] for mover in diff["movers"]] == ["UA:0", "UA:99", "UA:1"]
    assert [(one["values"], one["rows_before"], one["rows_after"], one["added"]) for one in diff["slices"]] == [
        (["B6"], 0, 1, 1),
        (["UA"], 100, 98, 0),
    ]
    assert (diff["unsliced"], told["over"]) == ({}, [])


def test_a_person_reads_it_within_a_hundred_columns(almanac: Almanac, two_releases: tuple[str, str]) -> None:
    shown = almanac("diff", "flights", "--top", "2")

    lines = shown.stdout.splitlines()
    assert lines[0] == "flights: release 1 (2013-07-01) to release 2 (2013-07-02)"
    assert [line.split() for line in lines if line.startswith(("removed", "added", "changed"))] == [
        ["removed", "2", "2.0%", "no", "longer", "there"],
        ["added", "1", "1.0%", "not", "there", "before"],
        ["changed", "3", "3.0%", "score", "moved"],
    ]
    assert [line.split() for line in lines if line.startswith("UA:")] == [
        ["UA:0", "0.0000", "0.7500", "+0.7500"],
        ["UA:99", "0.9900", "0.5000", "-0.4900"],
    ]
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert shown.exit_code == 0


def test_the_same_release_twice_is_all_unchanged(settings: Settings, two_releases: tuple[str, str]) -> None:
    found = compare(settings, "flights", "2", "2")

    assert (found.diff.unchanged, found.diff.churn, found.diff.rank_correlation) == (99, 0.0, 1.0)
    assert found.diff.movers == ()


def test_a_blocked_run_is_compared_with_the_live_release(
    settings: Settings, staging: Staging, two_releases: tuple[str, str]
) -> None:
    blocked = staged(staging, 3, TUESDAY | {"UA:2": 0.5}, verdict=Verdict.FAIL)

    found = compare(settings, "flights", run_id=blocked)

    assert str(found.before) == "release 2 (2013-07-02)"
    assert str(found.after) == f"run {blocked} (2013-07-03)"
    assert found.diff.changed == 1
    assert compare(settings, "flights", "1", blocked).diff.changed == 4
    assert compare(settings, "flights", two_releases[0], run_id=blocked).before.release == 1


def test_after_a_rollback_the_release_before_is_not_the_one_that_was_left(
    settings: Settings, staging: Staging, redis_url: str, two_releases: tuple[str, str]
) -> None:
    publish(staging, redis_url, 3, MONDAY)
    with connect(redis_url) as client:
        Publisher(staging.store, RedisTable(client, "flights")).roll_back(reason="wrong")

    found = compare(settings, "flights")

    assert (found.before.release, found.after.release) == (1, 2)


@pytest.mark.parametrize(
    ("limits", "over"),
    [
        (["--max-added", "0.01", "--max-removed", "0.02", "--max-changed", "0.03"], []),
        (["--max-added", "0.01", "--max-removed", "0.01", "--max-changed", "0.02"], ["removed", "changed"]),
        (["--max-changed", "0.02", "--tolerance", "0.3"], []),
        (["--max-added", "0"], ["added"]),
    ],
)
def test_as_a_gate_it_names_each_limit_that_is_over(
    almanac: Almanac, two_releases: tuple[str, str], limits: list[str], over: list[str]
) -> None:
    shown, document = almanac("diff", "flights", *limits), almanac("diff", "flights", *limits, "--json")

    error = shown.exception if over else None
    assert [problem.where.split()[-1] for problem in getattr(error, "problems", ())] == over
    assert isinstance(error, BlockedError) == bool(over)
    assert (document.exit_code, document.stderr) == (3 if over else 0, "")
    told = [(problem["code"], problem["where"].split()[-1]) for problem in json.loads(document.stdout)["over"]]
    assert told == [("DIFF_CHURN", name) for name in over]


def test_a_gate_without_anything_to_compare_is_closed(
    almanac: Almanac, staging: Staging, two_releases: tuple[str, str]
) -> None:
    run_id = staged(staging, 3, TUESDAY | {"UA:2": float("nan")})

    shown = almanac("diff", "flights", "--run", run_id, "--max-changed", "1")

    assert "1 rows have no finite score" in str(shown.exception)
    assert isinstance(shown.exception, BlockedError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["9"], "release 9: no such release; expected one of 1 "),
        (["monday"], "'monday': neither a release number nor a run id"),
        (["../1"], "neither a release number nor a run id"),
        ([], "the release before the live one: there is none; expected two releases, or one named: A B"),
        (["1", "1", "--run", "2013-07-01-000000000000"], r"one of the two \[DIFF_SIDES\]"),
        (["--run", "2013-07-01-000000000000"], "OUT_NOT_FOUND"),
    ],
)
def test_what_cannot_be_compared_is_said(
    almanac: Almanac, staging: Staging, redis_url: str, arguments: list[str], message: str
) -> None:
    assert "nothing was ever live" in str(almanac("diff", "flights").exception)
    publish(staging, redis_url, 1, MONDAY)

    ended = almanac("diff", "flights", *arguments)

    with pytest.raises((InputError, RefusedError, Exception), match=message):
        raise ended.exception or AssertionError(ended.stdout)


def test_files_that_are_gone_or_changed_are_named(
    settings: Settings, staging: Staging, two_releases: tuple[str, str]
) -> None:
    path = staging.predictions(two_releases[0])
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError, match="OUT_CHECKSUM"):
        compare(settings, "flights")
    path.unlink()
    with pytest.raises(InputError, match=r"part-00000\.parquet: no such file; expected the run's file: restore it"):
        compare(settings, "flights")


def test_releases_of_other_outputs_are_not_compared(
    settings: Settings, staging: Staging, two_releases: tuple[str, str]
) -> None:
    manifest = staging.store.manifest(two_releases[0])
    other = manifest.model_copy(update={"outputs": (ColumnSpec(name="delay", type="float64"),)})
    (staging.store.run_folder(two_releases[0]) / MANIFEST_FILE).write_text(other.model_dump_json())

    with pytest.raises(InputError, match=r"outputs: score; expected delay, as run 2013-07-01-.* \[DIFF_OUTPUTS\]"):
        compare(settings, "flights")


def test_a_slice_that_one_of_the_runs_does_not_have_is_named(
    settings: Settings, staging: Staging, two_releases: tuple[str, str]
) -> None:
    path = settings.pipelines / "flights" / "pipeline.yaml"
    path.write_text(path.read_text().replace("columns: [carrier]", "columns: [carrier, dest]"))

    diff = compare(settings, "flights").diff

    assert diff.unsliced == {"dest": "not in both runs"}
    assert {shift.columns for shift in diff.slices} == {("carrier",)}
