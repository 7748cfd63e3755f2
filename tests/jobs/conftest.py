"""A test's own copy of the trained pipeline, and its own Spark session."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from schemas.settings import Settings
from tests.jobs.refusals import NOBODY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def settings(trained_workspace: Path, tmp_path: Path, redis_url: str) -> Settings:
    """The trained pipeline in a folder of the test's own, on an empty Redis."""
    root = tmp_path / "team"
    shutil.copytree(trained_workspace, root)
    return Settings(pipelines=root / "dags", store=root / "store", redis_url=redis_url)


@pytest.fixture
def session(spark: "SparkSession") -> Iterator["SparkSession"]:
    """A Spark session whose views and settings are the test's own."""
    own = spark.newSession()
    yield own
    own.catalog.clearCache()


@pytest.fixture
def place(trained_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The trained pipeline in a folder of the test's own, where every command finds it; no Redis."""
    root = tmp_path / "team"
    shutil.copytree(trained_workspace, root)
    settings = Settings(pipelines=root / "dags", store=root / "store", redis_url=NOBODY)
    monkeypatch.setenv("ALMANAC_PIPELINES", str(settings.pipelines))
    monkeypatch.setenv("ALMANAC_STORE", str(settings.store))
    monkeypatch.setenv("ALMANAC_REDIS_URL", NOBODY)
    return settings
