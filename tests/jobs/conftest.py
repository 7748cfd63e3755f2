"""A test's own copy of the trained pipeline, its own Spark session, and the command line in its own folder."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.refusals import NOBODY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parent.parent.parent
Almanac = Callable[..., Result]


def declare_flights(team: Path) -> Path:
    """Declare the demo's pipeline under the name `flights` in a team's folder, and return its pipeline.yaml."""
    folder = shutil.copytree(ROOT / "dags" / "flight_delay", team / "dags" / "flights")
    rewrite(folder / "pipeline.yaml", ("pipeline: flight_delay", "pipeline: flights"))
    return folder / "pipeline.yaml"


@pytest.fixture
def almanac(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Almanac:
    """The command line, in a folder and store of the test's own, on an empty Redis."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALMANAC_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ALMANAC_REDIS_URL", redis_url)
    return lambda *arguments: CliRunner().invoke(app, arguments)


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
