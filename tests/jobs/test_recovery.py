"""`almanac erase` and `almanac restore`, from outside: what they do, what they say, and on which Redis."""

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lookup.connect import connect
from lookup.embedded import start, stop
from lookup.publisher import Publisher
from lookup.table import RedisTable
from schemas.errors import InputError
from tests.jobs.conftest import Almanac, declare_flights
from tests.lookup.conftest import Staging

ROOT = Path(__file__).parent.parent.parent
GONE = "somebody-who-is-nobody-else"
SCORES = {GONE: 0.5, **{f"UA:{number}": 0.25 for number in range(99)}}


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    declare_flights(tmp_path)
    return Staging(tmp_path / "store")


@pytest.fixture
def own_server(staging: Staging, almanac: Almanac, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The store's own Redis, as it runs where none is configured."""
    monkeypatch.delenv("ALMANAC_REDIS_URL")
    yield start(staging.store.folder.parent)
    stop(staging.store.folder.parent)


def publish(staging: Staging, url: str) -> None:
    with connect(url) as client:
        Publisher(staging.store, RedisTable(client, "flights")).publish(staging.run(dt.date(2013, 7, 1), SCORES))


def answers(almanac: Almanac) -> list[tuple[str, float | None]]:
    told = json.loads(almanac("lookup", "flights", *SCORES, "--json").stdout)
    return [(answer["status"], answer["outputs"].get("score")) for answer in told]


def test_a_redis_that_lost_all_answers_as_before_once_it_is_restored(
    almanac: Almanac, staging: Staging, redis_url: str, redis_client: redis.Redis
) -> None:
    publish(staging, redis_url)
    before = answers(almanac)
    redis_client.flushall()

    (restored,) = json.loads(almanac("restore", "flights", "--json").stdout)
    (again,) = json.loads(almanac("restore", "--json").stdout)

    assert (restored["entities"], restored["was_whole"], again["was_whole"]) == (100, False, True)
    assert restored["checksum"] == again["checksum"]
    assert answers(almanac) == before == [("exact", score) for score in SCORES.values()]


def test_all_others_are_restored_where_some_cannot_be_and_the_worst_exit_code_is_told(
    almanac: Almanac, staging: Staging, redis_url: str, redis_client: redis.Redis
) -> None:
    publish(staging, redis_url)
    root = staging.store.folder.parent
    for other, missing in (("early", "predictions"), ("last", "manifest.json")):
        shutil.copytree(ROOT / "dags" / "flight_delay", root.parent / "dags" / other)
        declared = root.parent / "dags" / other / "pipeline.yaml"
        declared.write_text(declared.read_text().replace("pipeline: flight_delay", f"pipeline: {other}"))
        shutil.copytree(staging.store.folder, root / other)
        (run,) = (root / other / "runs").iterdir()
        damaged = run / missing
        shutil.rmtree(damaged) if damaged.is_dir() else damaged.unlink()
    redis_client.flushall()

    ended = almanac("restore")

    assert isinstance(ended.exception, InputError)
    assert [problem.code for problem in ended.exception.problems] == ["OUT_NOT_FOUND", "OUT_NOT_FOUND"]
    assert ended.exception.exit_code == 2
    assert answers(almanac) == [("exact", score) for score in SCORES.values()]


def test_a_pipeline_that_never_was_live_is_refused_by_name_and_passed_over_among_all(
    almanac: Almanac, staging: Staging
) -> None:
    assert almanac("restore", "--json").stdout.split() == ["[]"]

    ended = almanac("restore", "flights")

    assert "nothing is live" in str(ended.exception)


def test_an_erased_entity_is_unknown_and_an_unknown_one_is_said_to_be(
    almanac: Almanac, staging: Staging, redis_url: str
) -> None:
    publish(staging, redis_url)

    erased = json.loads(almanac("erase", "flights", GONE, "--reason", "request 4711", "--json").stdout)
    again = almanac("erase", "flights", GONE)

    assert erased == {"runs": 1, "rows": 1, "versions": 1, "misses": 0}
    assert answers(almanac) == [("unknown", None), *[("exact", 0.25)] * 99]
    assert (again.exit_code, "nothing was kept of it" in again.output) == (0, True)


def test_the_file_of_the_own_redis_has_an_erased_entity_no_more(
    almanac: Almanac, staging: Staging, own_server: str
) -> None:
    publish(staging, own_server)
    folder = staging.store.folder.parent / "redis"
    with connect(own_server) as client:
        name = client.config_get("appenddirname").get("appenddirname", ".")
    logs = list((folder / name).rglob("*.aof"))
    assert any(GONE.encode() in path.read_bytes() for path in logs)

    assert almanac("erase", "flights", GONE).exit_code == 0

    manifest = next((folder / name).rglob("*.manifest"), None)
    kept = [path for path in (folder / name).rglob("*.aof") if manifest is None or path.name in manifest.read_text()]
    assert kept
    assert not [path for path in kept if GONE.encode() in path.read_bytes()]
