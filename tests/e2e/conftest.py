"""A team's own folder, and the product run in it from outside."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lookup.embedded import stop

BIN = Path(sys.executable).parent
_TIMEOUT_SECONDS = 300
_OURS = ("ALMANAC_", "SPARK_", "PYSPARK_")


class Ended(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ended]


def run_program(program: str, *arguments: str, cwd: Path, environ: Mapping[str, str]) -> Ended:
    command = [str(BIN / program), *arguments]
    # Measuring coverage in them would double the time of programs that import Spark or Airflow.
    kept = {name: value for name, value in environ.items() if not name.startswith("COVERAGE_")}
    ended = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False, timeout=300)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Path]:
    """An empty folder of a team's own; the Redis that a command starts for its store is stopped."""
    folder = tmp_path / "team"
    folder.mkdir()
    yield folder
    stop(folder / ".almanac")


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment of a person who set nothing but PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | {"PATH": f"{BIN}:{os.environ['PATH']}"}


@pytest.fixture
def almanac(team: Path, environ: dict[str, str]) -> Command:
    """`almanac(...)` in the team's folder."""
    return lambda *arguments: run_program("almanac", *arguments, cwd=team, environ=environ)


@pytest.fixture
def trained_team(trained_workspace: Path, team: Path) -> Path:
    """The team's folder with the trained flights pipeline."""
    for name in ("dags", "data"):
        shutil.copytree(trained_workspace / name, team / name)
    shutil.copytree(trained_workspace / "store", team / ".almanac")
    return team
