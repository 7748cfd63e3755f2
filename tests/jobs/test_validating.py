"""Validation finds what shows without Spark: sources, variables, SQL and the names of expectations."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.validating import validate_pipeline
from schemas.errors import Problem
from schemas.settings import Settings

FLIGHTS = Path(__file__).parent.parent.parent / "dags" / "flight_delay"
SOURCES = ("flights", "weather", "planes", "airports")

Swap = Callable[[str, str, str], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    shutil.copytree(FLIGHTS, tmp_path / "dags" / "flight_delay")
    for source in SOURCES:
        (tmp_path / "data" / "nycflights13" / source).mkdir(parents=True)
    monkeypatch.delenv("ALMANAC_DEMO_DATA", raising=False)
    return Settings(pipelines=tmp_path / "dags", store=tmp_path / "store")


@pytest.fixture
def swap(place: Settings) -> Swap:
    def swap(file: str, old: str, new: str) -> None:
        path = place.pipelines / "flight_delay" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return swap


def validate(place: Settings) -> list[Problem]:
    return validate_pipeline(place, "flight_delay")


def test_a_sound_pipeline_has_no_problems(place: Settings) -> None:
    assert validate(place) == []
    assert not place.store.exists()


def test_a_missing_source_is_named_with_its_path(place: Settings) -> None:
    (place.root / "data" / "nycflights13" / "planes").rmdir()
    (problem,) = validate(place)
    assert (problem.code, problem.where) == ("IN_NOT_FOUND", "flight_delay/pipeline.yaml: sources.planes.path")
    assert problem.found.endswith("data/nycflights13/planes")


def test_a_variable_that_is_not_set_is_named(place: Settings, swap: Swap) -> None:
    swap("pipeline.yaml", "${ALMANAC_DEMO_DATA:-data/nycflights13}/planes", "${ALMANAC_NOT_SET}/planes")
    (problem,) = validate(place)
    assert (problem.code, problem.found) == ("CFG_ENV_UNSET", "${ALMANAC_NOT_SET} is not set")


def test_a_path_that_cannot_be_is_a_problem(place: Settings, swap: Swap) -> None:
    swap("pipeline.yaml", "${ALMANAC_DEMO_DATA:-data/nycflights13}/planes", "x/" * 3000)
    (problem,) = validate(place)
    assert problem.where == "flight_delay/pipeline.yaml: sources.planes.path"


def test_an_unknown_expectation_is_named(place: Settings, swap: Swap) -> None:
    swap("expectations.yaml", "expect_column_values_to_be_unique", "expect_column_values_to_be_uniqe")
    (problem,) = validate(place)
    assert "expect_column_values_to_be_uniqe" in str(problem)
    assert problem.where.startswith("flight_delay/expectations.yaml: predictions.3")


def test_an_unknown_pipeline_is_a_problem(place: Settings) -> None:
    (problem,) = validate_pipeline(place, "flight_dely")
    assert "did you mean 'flight_delay'?" in problem.found


def test_the_sql_the_sources_and_the_suites_are_told_together(place: Settings, swap: Swap) -> None:
    swap("features.sql", "FROM flights", "FROM flihgts")
    swap("expectations.yaml", "expect_column_values_to_be_unique", "expect_nothing")
    (place.root / "data" / "nycflights13" / "planes").rmdir()
    assert len({problem.code for problem in validate(place)}) == 3
