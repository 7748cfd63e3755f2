"""What all tests share: a real Redis, and the repository's own folders."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from lookup.connect import connect
from lookup.embedded import start, stop
from schemas.declared import load_pipeline
from tests.flights import make_workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real server, stopped when the session ends."""
    store = tmp_path_factory.mktemp("redis-store")
    yield start(store)
    stop(store)


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """A real server with nothing in it."""
    client = connect(redis_server)
    client.flushall()
    yield redis_server
    client.close()


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def spark() -> Iterator["SparkSession"]:
    # On loopback only, and with workers of this environment, not the first python3 on PATH.
    os.environ.update(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable)
    from jobs.session import spark_session

    # Spark's Python workers have the environment of its JVM: coverage is not measured in them, which would slow them.
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
            patch.delenv(name)
        session = spark_session("almanac tests")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def trained_workspace(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dags/, data/ and a store that holds one bundle. Copy it before changing anything."""
    from jobs.training import train

    root = tmp_path_factory.mktemp("trained")
    settings = make_workspace(root)
    train(spark.newSession(), settings, load_pipeline(settings, "flight_delay"))
    return root
