"""Where things are, from the environment."""

from pathlib import Path

import pytest

from schemas.errors import DeclarationError, Problem
from schemas.settings import Settings, expand


def test_defaults_are_folders_of_the_current_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment({})
    assert settings == Settings(pipelines=tmp_path / "dags", store=tmp_path / ".almanac", redis_url=None)
    assert settings.root == tmp_path


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    empty = dict.fromkeys(("ALMANAC_PIPELINES", "ALMANAC_STORE", "ALMANAC_REDIS_URL"), "")
    assert Settings.from_environment(empty) == Settings.from_environment({})


def test_variables_say_where_things_are() -> None:
    settings = Settings.from_environment(
        {"ALMANAC_PIPELINES": "/team/dags", "ALMANAC_STORE": "/store", "ALMANAC_REDIS_URL": "redis://table"}
    )
    assert settings == Settings(pipelines=Path("/team/dags"), store=Path("/store"), redis_url="redis://table")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}/x", "one/x"),
        ("${A}${A}", "oneone"),
        ("${B:-two}/x", "two/x"),
        ("${A:-two}", "one"),
        ("${EMPTY:-two}", "two"),
        ("${B:-}", ""),
        ("$A and ${", "$A and ${"),
    ],
)
def test_variables_are_filled_in(text: str, expected: str) -> None:
    assert expand(text, where="w", environ={"A": "one", "EMPTY": ""}) == expected


@pytest.mark.parametrize("environ", [{}, {"A": ""}])
def test_a_variable_that_is_not_set_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(DeclarationError) as caught:
        expand("data/${A}", where="p: sources.s.path", environ=environ)
    assert caught.value.problems == (
        Problem("CFG_ENV_UNSET", "p: sources.s.path", "${A} is not set", "the variable, or ${NAME:-default}"),
    )
