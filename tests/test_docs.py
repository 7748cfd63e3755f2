"""The documents say what the code does: keys, error codes, files, commands and examples."""

import ast
import datetime as dt
import os
import re
import shlex
import types
import typing
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.testing import CliRunner

from jobs.cli import app
from lookup.connect import connect
from lookup.reader import Reader
from lookup.rows import Row
from lookup.table import RedisTable
from lookup.versions import Flip
from schemas.errors import DeclarationError
from schemas.expectations import Suites
from schemas.head import ColumnSpec, Head
from schemas.keys import head_key
from schemas.pipeline import Pipeline
from schemas.row import encode_rows
from tests.jobs.test_backfill_refusals import CASES
from tests.jobs.test_stage_refusals import CHECKED
from tests.lookup.given import GivenRows

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = [path for folder in ("schemas", "lookup", "validation", "jobs") for path in (ROOT / folder).rglob("*.py")]
# Names with a code's form that are none.
_NO_CODE = re.compile(
    r"(ALMANAC|AIRFLOW|PYSPARK|OMP|OPENLINEAGE|MLFLOW)_.*|UNEXPECTED_EOF|SPARK_(LOCAL_IP|CONF_DIR)|(MALFORMED|FAILED_READ|CANNOT_READ)_.*"
    r"|JAVA_HOME|GX_ANALYTICS_ENABLED|PROMETHEUS_MULTIPROC_DIR"
)
_RAISERS = {"Problem", "_error", "error", "_refused", "RequestError", "Refusal"}
# What a run or a person makes; a page may name it, the repository does not hold it.
_MADE = re.compile(r"\.almanac|data/|dags/(churn|<|NAME)|runs/|bundles/|releases/|redis/|quarantine/|predictions/|/")


def rows_of(page: str) -> list[list[str]]:
    """The cells of every table row of a page whose first cell is code."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")]


def declared_keys(model: type[BaseModel], prefix: str = "", instance: BaseModel | None = None) -> dict[str, str]:
    """Dotted key -> its default as the page writes it."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        inner, step = _inner(field.annotation)
        default = _default(field, name, instance)
        if inner is None:
            found[f"{prefix}{name}"] = _written(default)
        else:
            given = default if isinstance(default, BaseModel) else None
            found |= declared_keys(inner, f"{prefix}{name}{step}.", given)
    return found


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return next((found for found in map(_inner, arguments) if found[0]), (None, ""))
    if origin in (list, dict) and isinstance(arguments[-1], type) and issubclass(arguments[-1], BaseModel):
        return arguments[-1], "[]" if origin is list else ".<name>"
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return (annotation, "") if is_model else (None, "")


def _default(field: FieldInfo, name: str, instance: BaseModel | None) -> Any:
    return getattr(instance, name) if instance else ... if field.is_required() else field.default


def _written(default: Any) -> str:
    if default is ...:
        return "required"
    return "none" if default in (None, [], {}) else f"`{default}`" if isinstance(default, str) else str(default)


@pytest.mark.parametrize(("model", "others"), [(Pipeline, ("inputs", "predictions")), (Suites, ())])
def test_every_key_of_a_declaration_is_documented_with_its_default(
    model: type[BaseModel], others: tuple[str, ...]
) -> None:
    keys = [row for row in rows_of("pipeline.md") if len(row) == 3]
    ours = declared_keys(model)
    roots = {key.partition("[")[0].partition(".")[0] for key in ours} - set(others)
    told = {row[0].strip("`"): row[1] for row in keys if re.split(r"[.\[]", row[0].strip("`"))[0] in roots}
    assert told == ours


def codes_in_code() -> set[str]:
    found: set[str] = set()
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            texts: list[ast.Constant] = [node] if _is_code(node, r"[A-Z]+(_[A-Z]+)+") else []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _RAISERS:
                texts += [arg for arg in node.args if _is_code(arg, r"[A-Z][A-Z_]+")][:1]
            found |= {str(text.value) for text in texts}
    return {code for code in found if not _NO_CODE.fullmatch(code)}


def _is_code(node: ast.AST, pattern: str) -> typing.TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(re.fullmatch(pattern, node.value))


def test_every_error_code_is_documented_and_no_other() -> None:
    told = [row[0].strip("`") for row in rows_of("errors.md")]
    assert sorted(told) == sorted(codes_in_code())


def test_what_a_dag_and_a_backfill_refuse_is_listed_with_the_code_of_its_error() -> None:
    table = (ROOT / "docs" / "airflow.md").read_text().partition("| what is wrong |")[2].splitlines()
    cells = ([cell.strip(" |") for cell in row.split(" | ")] for row in table)
    told = {name: codes for name, *codes in cells}
    for column, cases in enumerate((CHECKED, CASES)):
        for name, case in cases.items():
            assert told[name][column].startswith(f"`{case.error}`"), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_and_file_named_exists(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)#]+)", text) + re.findall(r'src="([^"]+)"', text)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|json|yaml|sql|properties|j2))`", text)
    missing += [name for name in named if not _MADE.match(name) and not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_named_exists_with_its_options(page: Path) -> None:
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]  # a click group
    wrong = []
    for line in re.findall(r"\balmanac ([a-z-]+[^`\n|;&]*)", "\n".join(_code(page.read_text()))):
        name, *words = line.split()
        if name not in commands:
            wrong.append(line)
            continue
        known = {option for parameter in commands[name].params for option in parameter.opts} | {"--help"}
        wrong += [f"{name} {word}" for word in words if word.startswith("--") and word.split("=")[0] not in known]
    assert wrong == []


def _code(text: str) -> Iterator[str]:
    """The commands of a page: behind a prompt, or between backticks."""
    yield from re.findall(r"^\$ (.*)$", text, re.M)
    yield from re.findall(r"`(almanac [^`]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_make_target_and_job_named_exists(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`make ([a-z]+)", text)) | set(re.findall(r"^\$? ?make ([a-z]+)", text, re.M))
    assert named <= targets
    assert [job for job in re.findall(r"\bjobs/\w+\.py", text) if not (ROOT / job).is_file()] == []


def test_the_readmes_own_table_is_made_and_declared_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ALMANAC_")]:
        monkeypatch.delenv(name)
    text = (ROOT / "README.md").read_text()
    script = next(
        block for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if "customers.csv" in block
    )
    exec(compile(script, "README.md", "exec"), {})  # noqa: S102  # our own page
    commands = re.findall(r"^\$ almanac ((?:new|validate) .*)$", text, re.M)
    assert len(commands) == 2
    for command in commands:
        ended = CliRunner().invoke(app, shlex.split(command))
        assert ended.exit_code == 0, ended.output
    assert {path.name for path in (tmp_path / "dags/churn").iterdir()} == {
        "pipeline.yaml", "features.sql", "expectations.yaml"
    }  # fmt: skip


_COLUMNS = (
    ColumnSpec(name="score", type="float64"),
    ColumnSpec(name="model", type="enum", values=("bundle-1",)),
    ColumnSpec(name="variant", type="enum", values=("champion",)),
    ColumnSpec(name="status", type="enum", values=("scored",)),
)


def published(client: redis.Redis, table: str) -> Head:
    head = Head(
        table=table,
        release=1,
        date="2013-07-01",
        version=1,
        token=1,
        buckets=1,
        entities=1,
        columns=_COLUMNS,
        run_id="run",
        scored_at="2013-07-01T00:00:00Z",
    )
    (value,) = encode_rows(_COLUMNS, [[0.25], ["bundle-1"], ["champion"], ["scored"]])
    RedisTable(client, table).load(head, GivenRows([Row("UA:1545:EWR:2013-07-01", value)]))
    RedisTable(client, table).flip(head)
    return head


@pytest.mark.parametrize("page", ["README.md", "docs/lookup.md"])
def test_the_reader_in_ten_lines_reads_what_is_published(page: str, redis_url: str, redis_client: redis.Redis) -> None:
    published(redis_client, "flight_delay")
    text = (ROOT / page).read_text()
    script = next(block for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if "msgpack" in block)
    names: dict[str, Any] = {}
    exec(compile(script.replace("redis://127.0.0.1:6379/0", redis_url), page, "exec"), names)  # noqa: S102
    assert names["look_up"]("flight_delay", "UA:1545:EWR:2013-07-01") == {
        "score": 0.25, "model": "bundle-1", "variant": "champion", "status": "scored"
    }  # fmt: skip
    assert names["look_up"]("flight_delay", "UA:1:EWR:1999-12-31") is None


def rights_of(user: str, *, read_only_keys: bool) -> list[str]:
    lines = re.findall(rf"^ACL SETUSER {user} (.*)$", (ROOT / "docs/lookup.md").read_text(), re.M)
    assert len(lines) == 1
    words = [word for word in lines[0].split() if not word.startswith(">")]
    return words if read_only_keys else [word.replace("%R~", "~") for word in words]


def test_the_documented_rights_are_enough_to_publish_and_to_read_and_for_no_more(
    redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    setuser = partial(redis_client.execute_command, "ACL", "SETUSER")
    is_7 = int(str(redis_client.info("server")["redis_version"]).partition(".")[0]) >= 7
    urls = {}
    for user in ("almanac_reader", "almanac_publisher"):
        rights = rights_of(user.replace("almanac", "almanac_flight_delay"), read_only_keys=is_7)
        setuser(user, *rights, ">secret")
        urls[user] = redis_url.replace("//", f"//{user}:secret@")
    try:
        with connect(urls["almanac_publisher"]) as client, connect(urls["almanac_reader"]) as reading:
            table = RedisTable(client, "flight_delay")
            table.preflight()
            head = published(client, "flight_delay")
            later = head.model_copy(update={"version": 2, "token": 2})
            table.load(later, GivenRows([Row("UA:1545:EWR:2013-07-01", b"\x90")]))
            assert (table.count(head), table.flip(later)) == (1, Flip.FLIPPED)
            assert table.retire(keep=1, grace_seconds=0) == [1]
            assert Reader(reading, "flight_delay").lookup(["x"])[1][0].status == "unknown"
            with pytest.raises(DeclarationError, match="STORE_ACL"):
                RedisTable(reading, "flight_delay").flip(head)
            with pytest.raises(redis.exceptions.NoPermissionError):
                reading.set(head_key("flight_delay"), "x")
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.get("another programs key")
    finally:
        redis_client.acl_deluser("almanac_reader", "almanac_publisher")


def test_the_changelog_has_a_part_for_what_is_not_released() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_decision_has_its_day_and_three_lines() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## Decisions")[2]
    for title, body in re.findall(r"^### ([^\n]*)\n(.*?)(?=^###|\Z)", text, re.M | re.S):
        day = re.match(r"(\d{4}-\d{2}-\d{2}): ", title)
        assert day, title
        assert dt.date.fromisoformat(day[1])
        assert [line.split(":")[0] for line in re.findall(r"^- (.*)", body, re.M)] == ["Context", "Choice", "Price"]
