"""Every reader answers the conformance vectors alike: those in Python, and those of docs/readers, compiled and run."""

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from lookup.client import AsyncClient, Client
from lookup.coalesce import AsyncReader, Lookups
from lookup.connect import address_of, connect
from lookup.reader import Reader
from lookup.resp import Connection
from schemas.answer import Answer
from schemas.errors import AlmanacError

ROOT = Path(__file__).parents[2]
_TABLE = "flights"
_VECTORS = json.loads((ROOT / "tests" / "golden" / "lookup-vectors.json").read_text())["tables"]
_MAX_LINE = 110

Ask = Callable[[Sequence[str]], list[Answer]]
AskRows = Callable[[Sequence[str]], Mapping[str, Any]]

every_table = pytest.mark.parametrize("table", _VECTORS, ids=[table["name"] for table in _VECTORS])


@contextmanager
def _reader(url: str) -> Iterator[Ask]:
    with connect(url) as client:
        reader = Reader(client, _TABLE)
        yield lambda ids: reader.lookup(ids)[1]


@contextmanager
def _async_reader(url: str) -> Iterator[Ask]:
    with asyncio.Runner() as runner:

        async def make() -> tuple[Lookups, AsyncReader]:
            lookups = Lookups(Connection(address_of(url)))
            return lookups, AsyncReader(lookups, _TABLE)

        lookups, reader = runner.run(make())
        yield lambda ids: runner.run(reader.lookup(ids))[1]
        runner.get_loop().call_soon(lookups.close)
        runner.run(asyncio.sleep(0))


@contextmanager
def _client(url: str) -> Iterator[Ask]:
    with Client([url]) as client:
        yield lambda ids: client.lookup_many(_TABLE, ids)


@contextmanager
def _async_client(url: str) -> Iterator[Ask]:
    with asyncio.Runner() as runner:
        client = AsyncClient([url])
        yield lambda ids: runner.run(client.lookup_many(_TABLE, ids))
        runner.run(client.close())


@every_table
@pytest.mark.parametrize("reading", [_reader, _async_reader, _client, _async_client])
def test_a_reader_in_python_answers_as_the_vectors_say(
    reading: Callable[[str], AbstractContextManager[Ask]],
    table: Any,
    redis_url: str,
    redis_client: redis.Redis,
) -> None:
    with reading(redis_url) as ask:
        for step in table["steps"]:
            _apply(redis_client, step["commands"])
            if "refused" in step:
                with pytest.raises(AlmanacError) as refused:
                    ask(step["ids"])
                assert refused.value.problems[0].code == step["refused"]
            else:
                fields = ("id", "release", "segment", "status", "outputs")
                found = [{name: getattr(answer, name) for name in fields} for answer in ask(step["ids"])]
                assert found == [{name: answer[name] for name in fields} for answer in step["answers"]]


@every_table
def test_the_reader_in_the_contract_gives_the_rows_that_the_vectors_say(
    table: Any, redis_url: str, redis_client: redis.Redis
) -> None:
    text = (ROOT / "docs" / "lookup.md").read_text()
    script = next(block for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if "msgpack" in block)
    names: dict[str, Any] = {}
    exec(compile(script.replace("redis://127.0.0.1:6379/0", redis_url), "docs/lookup.md", "exec"), names)  # noqa: S102
    with closing(names["client"]):
        for step in table["steps"]:
            _apply(redis_client, step["commands"])
            if "refused" in step:
                with pytest.raises((ValueError, LookupError)):
                    names["look_up_many"](_TABLE, step["ids"])
            else:
                found = names["look_up_many"](_TABLE, step["ids"])
                assert [found[answer["id"]] for answer in step["answers"]] == [a["row"] for a in step["answers"]]


@every_table
@pytest.mark.parametrize("language", ["typescript", "java"])
def test_a_reader_of_docs_gives_the_rows_that_the_vectors_say(
    language: str, table: Any, redis_url: str, redis_client: redis.Redis, request: pytest.FixtureRequest
) -> None:
    command, separator = request.getfixturevalue(language)
    with _running([*command, str(urlsplit(redis_url).port), _TABLE], separator) as ask:
        for step in table["steps"]:
            _apply(redis_client, step["commands"])
            found = ask(step["ids"])
            if "refused" in step:
                assert _WORDS[step["refused"]] in found["refused"]
                if step["refused"] == "ROW_DECODE":  # the row was refused: the connection is as good as before
                    assert ask(["UA:EWR"])["rows"] == [table["steps"][0]["answers"][0]["row"]]
            else:
                assert found.get("rows") == [answer["row"] for answer in step["answers"]], found


# What a refusal says, in both languages; where a decoder's own error says it, that there is one is enough.
_WORDS = {"FORMAT_TOO_NEW": "newer format", "NO_VERSION": "nothing is published"}
_WORDS |= dict.fromkeys(("STORE_POINTER_FORMAT", "ROW_DECODE"), "")


@pytest.mark.parametrize("file", ["almanac.ts", "Almanac.java"])
def test_a_reader_of_docs_has_at_most_60_ordinary_lines(file: str) -> None:
    lines = (ROOT / "docs" / "readers" / file).read_text().splitlines()

    assert len(lines) <= 60
    assert max(map(len, lines)) <= _MAX_LINE


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str | None]:
    """The command that runs the TypeScript reader, and what separates ids in its lines: None for JSON."""
    _need("tsc", "node")
    folder = tmp_path_factory.mktemp("typescript")
    for file in (*(ROOT / "tests" / "readers").glob("*.ts"), *(ROOT / "docs" / "readers").glob("*.ts")):
        shutil.copy(file, folder)
    files = ["plain.ts", "almanac.ts", "driver.ts", "node.d.ts"]
    options = ["--strict", "--target", "es2021", "--lib", "es2021", "--module", "commonjs"]
    _compile(["tsc", *options, *files], folder)
    return ["node", str(folder / "driver.js")], None


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str | None]:
    """The command that runs the Java reader, and what separates ids in its lines."""
    _need("javac", "java")
    folder = tmp_path_factory.mktemp("java")
    files = [*(ROOT / "docs" / "readers").glob("*.java"), ROOT / "tests" / "readers" / "Driver.java"]
    _compile(["javac", "-Xlint:all", "-Werror", "-encoding", "UTF-8", "-d", str(folder), *map(str, files)], folder)
    return ["java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", str(folder), "Driver"], "\t"


def _need(*programs: str) -> None:
    if lacking := [program for program in programs if shutil.which(program) is None]:
        why = f"{' and '.join(lacking)} not installed: the reader cannot be compiled and run here"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)


def _compile(command: list[str], folder: Path) -> None:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@contextmanager
def _running(command: list[str], separator: str | None) -> Iterator[AskRows]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    assert process.stdin is not None
    assert process.stdout is not None
    sent, said = process.stdin, process.stdout

    def ask(ids: Sequence[str]) -> Any:
        sent.write((json.dumps(ids) if separator is None else separator.join(ids)) + "\n")
        sent.flush()
        line = said.readline()
        assert line, "the reader ended"
        return json.loads(line)

    try:
        with closing(said), closing(sent):
            yield ask
    finally:
        process.kill()
        process.wait()


def _apply(client: redis.Redis, commands: Sequence[Sequence[Any]]) -> None:
    for command in commands:
        client.execute_command(*(part if isinstance(part, str) else bytes.fromhex(part["hex"]) for part in command))
