"""`almanac plan`: what publishing a run would take, told before anything is loaded."""

import datetime as dt
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from jobs.cli import app
from lookup.connect import connect
from lookup.publisher import Publisher
from lookup.table import RedisTable
from tests.lookup.conftest import Staging

ROOT = Path(__file__).parent.parent.parent
ENTITIES = 5_000


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    folder = tmp_path / "dags" / "flights"
    shutil.copytree(ROOT / "dags" / "flight_delay", folder)
    declared = folder / "pipeline.yaml"
    declared.write_text(declared.read_text().replace("pipeline: flight_delay", "pipeline: flights"))
    return Staging(tmp_path / "store")


@pytest.fixture
def almanac(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALMANAC_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ALMANAC_REDIS_URL", redis_url)
    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.fixture
def limited(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    yield redis_client
    redis_client.config_set("maxmemory", 0)


def stage(staging: Any, day: int) -> str:
    run: str = staging.run(dt.date(2013, 7, day), {f"UA:{number}": day / 4 for number in range(ENTITIES)})
    return run


def test_the_memory_of_the_run_scored_last_is_told(
    almanac: Callable[..., Result], staging: Staging, redis_url: str, redis_client: redis.Redis
) -> None:
    with connect(redis_url) as client:
        Publisher(staging.store, RedisTable(client, "flights")).publish(stage(staging, 1))
    before = redis_client.dbsize()

    ended = almanac("plan", "flights", "--run", stage(staging, 2), "--json")

    assert ended.exit_code == 0
    told = json.loads(ended.stdout)
    (server,) = told["servers"]
    assert (told["entities"], told["versions"], server["limit_bytes"], server["fits"]) == (ENTITIES, 1, None, True)
    assert server["peak_bytes"] == server["used_bytes"] + server["version_bytes"]
    assert 20 * ENTITIES < server["version_bytes"] < 40 * ENTITIES
    assert redis_client.dbsize() == before


def test_a_server_that_may_evict_is_told_and_ends_with_the_exit_code_of_publishing(
    almanac: Callable[..., Result], staging: Staging, limited: redis.Redis
) -> None:
    stage(staging, 1)
    limited.config_set("maxmemory-policy", "allkeys-lru")
    try:
        ended, told = almanac("plan", "flights"), almanac("plan", "flights", "--json")
    finally:
        limited.config_set("maxmemory-policy", "noeviction")

    refusal = "Redis maxmemory-policy: allkeys-lru would drop predictions; expected noeviction [STORE_POLICY]"
    assert (ended.exit_code, told.exit_code) == (2, 2)
    assert refusal in ended.output
    assert json.loads(told.stdout)["refused"] == [refusal]


def test_what_is_there_of_the_run_already_is_not_planned_once_more(
    almanac: Callable[..., Result], staging: Staging, redis_url: str
) -> None:
    run_id = stage(staging, 1)
    with connect(redis_url) as client:
        Publisher(staging.store, RedisTable(client, "flights")).publish(run_id)

    (server,) = json.loads(almanac("plan", "flights", "--run", run_id, "--json").stdout)["servers"]

    assert server["version_bytes"] == 0


def test_a_run_that_does_not_fit_ends_with_exit_code_1(
    almanac: Callable[..., Result], staging: Staging, limited: redis.Redis
) -> None:
    stage(staging, 1)
    limited.config_set("maxmemory", int(limited.info("memory")["used_memory"]) + 10_000)

    ended = almanac("plan", "flights")

    assert ended.exit_code == 1
    assert "5,000 entities, layout bucket; 0 versions there" in ended.output
    assert "STORE_FULL" in ended.output
    assert limited.dbsize() == 0
