"""The command line from outside: what it says, its exit codes, and that it starts without heavy libraries."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app

ROOT = Path(__file__).parent.parent.parent
COMMANDS = (
    "run",
    "backfill",
    "train",
    "lookup",
    "releases",
    "diff",
    "rollback",
    "serve",
    "validate",
    "new",
    "down",
    "demo-data",
    "demo",
    "schema",
    "key",
    "acl",
    "misses",
)
HEAVY = ("pyspark", "lightgbm", "great_expectations", "pandas", "sklearn", "airflow", "sqlglot")

Almanac = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """A team's own folder with the flights declared and empty sources."""
    shutil.copytree(ROOT / "dags" / "flight_delay", tmp_path / "dags" / "flight_delay")
    for source in ("flights", "weather", "planes", "airports"):
        (tmp_path / "data" / "nycflights13" / source).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def almanac(team: Path) -> Almanac:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ALMANAC_")}
    # A narrow screen: what goes to a pipe is not broken at its edge.
    environ |= {"PYTHONPATH": str(ROOT), "COLUMNS": "40", "NO_COLOR": "1", "TERM": "dumb"}

    def almanac(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "jobs", *arguments]
        return subprocess.run(command, cwd=team, env=environ, capture_output=True, text=True, timeout=60, check=False)

    return almanac


def test_help_lists_every_command(almanac: Almanac) -> None:
    shown = almanac("--help")
    assert shown.returncode == 0
    assert [name for name in COMMANDS if f" {name} " not in shown.stdout] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "-h"])
    assert shown.exit_code == 0
    assert f"almanac {command} " in shown.stdout
    assert shown.stderr == ""


def test_an_unknown_pipeline_is_answered_with_the_nearest(almanac: Almanac, team: Path) -> None:
    shown = almanac("run", "flight_dely", "--date", "2013-07-01")
    assert shown.returncode == 2
    assert shown.stderr == (
        "✗ pipeline 'flight_dely': not declared; did you mean 'flight_delay'?; expected one of flight_delay "
        "[CFG_NOT_FOUND]\n"
    )
    assert not (team / ".almanac").exists()


def test_json_errors_are_one_document(almanac: Almanac) -> None:
    shown = almanac("train", "flight_dely", "--json")
    assert (shown.returncode, shown.stderr) == (2, "")
    error = json.loads(shown.stdout)
    assert (error["error"], error["exit_code"]) == ("DeclarationError", 2)
    assert error["problems"] == [
        {
            "code": "CFG_NOT_FOUND",
            "where": "pipeline 'flight_dely'",
            "found": "not declared; did you mean 'flight_delay'?",
            "expected": "one of flight_delay",
        }
    ]


@pytest.mark.parametrize(
    ("date", "code"),
    [
        ("20130701", "CLI_DATE"),
        ("2013-W27-1", "CLI_DATE"),
        ("2013-02-30", "CLI_DATE"),
        (" 2013-07-01", "CLI_DATE"),
        ("9999-01-01", "CLI_DATE_FUTURE"),
    ],
)
def test_a_bad_date_ends_with_2(date: str, code: str, almanac: Almanac, team: Path) -> None:
    shown = almanac("run", "flight_delay", "--date", date, "--json")
    assert shown.returncode == 2
    assert [problem["code"] for problem in json.loads(shown.stdout)["problems"]] == [code]
    assert not (team / ".almanac").exists()


@pytest.mark.parametrize(
    "arguments",
    [["run", "flight_delay"], ["lookup", "flight_delay"], ["serve", "--port", "0"], ["serve", "--port", "x"], ["runn"]],
)
def test_what_is_not_a_command_ends_with_2(arguments: list[str], almanac: Almanac) -> None:
    shown = almanac(*arguments)
    assert shown.returncode == 2
    assert "Usage:" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_sound_pipeline_is_said_to_be(almanac: Almanac) -> None:
    shown = almanac("validate")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "✓ flight_delay: sound\n", "")


def test_a_broken_pipeline_is_told_by_file_and_line(almanac: Almanac, team: Path) -> None:
    path = team / "dags" / "flight_delay" / "pipeline.yaml"
    path.write_text(path.read_text().replace("bundle: latest", "bundel: latest"))
    shown = almanac("validate", "flight_delay")
    assert shown.returncode == 2
    assert "models.champion.bundel: unknown key; did you mean 'bundle'? [CFG_UNKNOWN_KEY]" in shown.stderr
    assert json.loads(almanac("validate", "--json").stdout)["problems"][0]["code"] == "CFG_UNKNOWN_KEY"


def test_no_pipeline_at_all_says_where_one_would_be(almanac: Almanac, team: Path) -> None:
    shutil.rmtree(team / "dags")
    shown = almanac("validate")
    assert shown.returncode == 2
    assert "no pipeline is declared; expected <name>/pipeline.yaml" in shown.stderr


def test_a_fresh_store_has_no_release_and_is_not_made(almanac: Almanac, team: Path) -> None:
    shown = almanac("releases", "flight_delay")
    assert (shown.returncode, shown.stdout) == (0, "no release yet: almanac run flight_delay --date YYYY-MM-DD\n")
    assert json.loads(almanac("releases", "flight_delay", "--json").stdout) == []
    assert not (team / ".almanac").exists()


def test_an_id_that_no_entity_can_have_is_refused(almanac: Almanac, team: Path) -> None:
    shown = almanac("lookup", "flight_delay", "a\nb", "x" * 2000)
    assert shown.returncode == 2
    assert len(shown.stderr.splitlines()) == 2
    assert not (team / ".almanac").exists()


def test_a_store_that_is_a_file_is_said_to_be(almanac: Almanac, team: Path) -> None:
    (team / ".almanac").write_text("a file")
    for command in (("releases", "flight_delay"), ("run", "flight_delay", "--date", "2013-07-01"), ("down",)):
        shown = almanac(*command)
        assert (shown.returncode, shown.stdout) == (2, "")
        assert f"{team}/.almanac: is a file, not a folder; expected a folder to write in" in shown.stderr


def test_serve_announces_itself_only_where_the_port_is_free(almanac: Almanac) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        shown = almanac("serve", "--port", str(taken.getsockname()[1]))
    almanac("down")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "CFG_PORT" in shown.stderr


def test_new_tells_what_it_decided_and_the_next_commands_one_a_line(almanac: Almanac, team: Path) -> None:
    rows = [f"c{n},{n % 7},{n * 7 % 40 < 20}" for n in range(40)]
    (team / "customers.csv").write_text("\n".join(["id,tenure,left", *rows]))
    command = ("new", "churn", "--from", "customers.csv", "--key", "id", "--target", "left")
    lines = [line.strip() for line in almanac(*command).stdout.splitlines()]
    assert "split      at random, 20% held out: no column of dates" in lines
    assert lines[-4:-1] == ["next:", "almanac validate churn", "almanac train churn"]
    decided = json.loads(almanac(*command, "--force", "--json").stdout)["decisions"]
    assert (decided["positive_class"], decided["numeric_features"]) == ("true", 1)


def test_a_schema_is_printed_and_an_unknown_one_refused(almanac: Almanac) -> None:
    assert json.loads(almanac("schema", "pipeline").stdout)["title"] == "Pipeline"
    shown = almanac("schema", "pipelines")
    assert shown.returncode == 2
    assert "'pipelines'; expected one of pipeline, expectations" in shown.stderr


def test_down_has_nothing_to_stop(almanac: Almanac) -> None:
    assert json.loads(almanac("down", "--json").stdout) == {"stopped": False}


@pytest.mark.parametrize("arguments", [["--help"], ["lookup", "flight_delay", "a\nb"], ["releases", "flight_delay"]])
def test_it_starts_without_heavy_libraries(arguments: list[str], team: Path) -> None:
    code = (
        "import sys, atexit; sys.argv = ['almanac', *sys.argv[1:]]\n"
        f"atexit.register(lambda: print('loaded:', [name for name in {HEAVY!r} if name in sys.modules]))\n"
        "from jobs.cli import main; main()"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "ALMANAC_STORE": str(team / "store")}
    environ.pop("ALMANAC_PIPELINES", None)
    command = [sys.executable, "-c", code, *arguments]
    shown = subprocess.run(command, cwd=team, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert shown.stdout.splitlines()[-1] == "loaded: []"
