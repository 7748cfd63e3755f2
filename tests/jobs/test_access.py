"""Commands about access: new API keys and the file they go to, users of Redis, and misses as a source."""

import datetime as dt
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from jobs.apikeys import add_key, new_key
from jobs.cli import app
from jobs.missed import miss_table
from lookup.keyring import Granted, Keyring, Refusal, read_keys
from lookup.misses import Misses
from schemas.errors import DeclarationError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the flights declared, where commands find it."""
    shutil.copytree(ROOT / "dags" / "flight_delay", tmp_path / "dags" / "flight_delay")
    monkeypatch.setenv("ALMANAC_PIPELINES", str(tmp_path / "dags"))
    monkeypatch.setenv("ALMANAC_STORE", str(tmp_path / "store"))
    return tmp_path


def almanac(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_new_key_is_shown_once_with_the_entry_to_paste(tmp_path: Path) -> None:
    shown = almanac("key", "shop", "--tables", "a, b", "--rate", "1000", "--burst", "50", "--expires", "2999-01-31")

    key, entry = shown.stdout.split("\n\n")
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys:\n{entry}")
    (name,), (kept,) = zip(*read_keys(path).keys.items(), strict=True)
    assert (name, kept.tables, kept.burst, kept.expires) == ("shop", ["a", "b"], 50, dt.date(2999, 1, 31))
    assert Keyring.load(path).check(f"Bearer {key}", "b", 1) == Granted("shop")
    assert key not in entry


def test_json_has_the_key_and_its_entry() -> None:
    shown = json.loads(almanac("key", "shop", "--tables", "*", "--rate", "1", "--json").stdout)

    assert shown["name"] == "shop"
    assert shown["key"].startswith("alm_")
    assert 'tables: ["*"]' in shown["entry"]


def test_a_key_is_added_to_a_file_that_keeps_its_comments_and_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    first = almanac("key", "shop", "--tables", "a", "--rate", "1", "--add", str(path)).stdout.strip()
    path.write_text(f"# who may ask\n{path.read_text()}")
    path.chmod(0o640)

    second = almanac("key", "desk", "--tables", "*", "--rate", "1", "--add", str(path)).stdout.strip()

    keyring = Keyring.load(path)
    assert path.read_text().startswith("# who may ask\nkeys:\n  shop:\n")
    assert path.stat().st_mode & 0o777 == 0o640
    assert keyring.check(f"Bearer {first}", "a", 1) == Granted("shop")
    assert keyring.check(f"Bearer {second}", "b", 1) == Granted("desk")
    assert first not in path.read_text()


def test_a_key_is_added_through_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "mounted.yaml", tmp_path / "keys.yaml"
    path.write_text("keys: {}\n")
    link.symlink_to(path)

    add_key(link, new_key("shop", tables=["a"], rate=1))

    assert link.is_symlink()
    assert list(read_keys(path).keys) == ["shop"]


def test_a_key_is_added_to_a_json_file_as_json(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    shop = new_key("shop", tables=["a"], rate=1, expires=dt.date(2999, 1, 1))
    path.write_text(json.dumps({"keys": {shop.name: shop.values}}, default=str))

    add_key(path, new_key("desk", tables=["*"], rate=2.5))

    assert list(json.loads(path.read_text())["keys"]) == ["shop", "desk"]
    assert read_keys(path).keys["shop"].expires == dt.date(2999, 1, 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("keys:\n  shop: {sha256: x, tables: [a], requests_per_second: 1}\n", "CFG_INVALID"),
        ("keys: [", "CFG_SYNTAX"),
        ("", "CFG_EMPTY"),
        ("keys:\n      desk:\n        sha256: %s\n        tables: [a]\n        requests_per_second: 1\n", "CFG_SYNTAX"),
        ("keys: {shop: {sha256: %s, tables: [a], requests_per_second: 1}}\n", "CFG_DUPLICATE_KEY"),
        ("keys: {desk: {sha256: %s, tables: [a], requests_per_second: 1}}\n", "CFG_SYNTAX"),
    ],
)
def test_a_file_that_the_key_cannot_be_added_to_stays_as_it_is(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "keys.yaml"
    before = text.replace("%s", "0" * 64)
    path.write_text(before)

    with pytest.raises(DeclarationError, match=told):
        add_key(path, new_key("shop", tables=["a"], rate=1))

    assert path.read_text() == before
    assert [found.name for found in tmp_path.glob(".keys*.new")] == []


def test_keys_that_are_added_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    keys = [new_key(f"client_{number}", tables=["a"], rate=1) for number in range(20)]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: add_key(path, key), keys))

    assert set(read_keys(path).keys) == {key.name for key in keys}


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("Shop", {}, r"CFG_RANGE"),
        ("shop", {"tables": ["a:b"]}, r"keys\.shop\.tables\.0.*CFG_RANGE"),
        ("shop", {"rate": 0.0}, r"keys\.shop\.requests_per_second.*CFG_RANGE"),
        ("shop", {"burst": 0.1}, r"keys\.shop\.burst.*CFG_RANGE"),
    ],
)
def test_a_key_that_a_file_could_not_say_is_refused(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        new_key(name, **{"tables": ["a"], "rate": 1.0} | options)


def test_no_key_is_like_another() -> None:
    keys = {new_key("shop", tables=["a"], rate=1).key for _ in range(100)}

    assert len(keys) == 100
    assert {len(key) for key in keys} == {47}


def test_a_keys_digest_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    key = new_key("shop", tables=["a"], rate=1)
    add_key(path, key)

    assert isinstance(Keyring.load(path).check(f"Bearer {key.values['sha256']}", "a", 1), Refusal)


def test_the_users_of_redis_are_printed_without_a_secret() -> None:
    shown = almanac("acl")

    assert shown.exit_code == 0
    reads, writes = shown.stdout.splitlines()
    assert reads == (
        "ACL SETUSER almanac_reader reset on >PASSWORD resetchannels %R~almanac:* "
        "-@all +ping +select +cluster|slots +asking +command +get +hget +hgetall +hvals"
    )
    assert writes.startswith("ACL SETUSER almanac_publisher reset on >PASSWORD resetchannels ~almanac:* -@all +ping ")


def test_the_users_of_one_table_have_rights_on_its_keys_only() -> None:
    reads, writes = almanac("acl", "--table", "flight_delay", "--redis-6").stdout.splitlines()

    patterns = "resetchannels ~almanac:{flight_delay}:* ~almanac:flight_delay:* -@all"
    assert reads.startswith(f"ACL SETUSER almanac_flight_delay_reader reset on >PASSWORD {patterns} ")
    assert writes.startswith(f"ACL SETUSER almanac_flight_delay_publisher reset on >PASSWORD {patterns} ")


@pytest.mark.parametrize("command", [("acl", "--table", "flight_dely"), ("misses", "flight_dely")])
def test_a_table_that_is_not_declared_is_refused(command: tuple[str, ...]) -> None:
    shown = almanac(*command)

    assert isinstance(shown.exception, DeclarationError)
    assert "did you mean 'flight_delay'?" in str(shown.exception)


@pytest.fixture
def missed(team: Path) -> Path:
    """A store where five ids of the demo's key were asked for, one of them more often, and one that is none of it."""
    misses = Misses(team / "store")
    for entity in ("UA:1:EWR:2013-07-01", r"U\:A:2:JFK:2013-07-02", r"U\:A:2:JFK:2013-07-02", "UA:1", "UA:1"):
        misses.add("flight_delay", entity)
    misses.flush()
    return team / "store"


@pytest.mark.usefixtures("missed")
def test_misses_are_listed_the_most_asked_first() -> None:
    shown = json.loads(almanac("misses", "flight_delay", "--json").stdout)

    assert [row["asked"] for row in shown["rows"]] == [2, 1]
    assert list(shown["rows"][0].values()) == ["U:A", "2", "JFK", "2013-07-02", 2]
    assert (shown["left_out"], shown["not_kept"]) == (1, 0)


@pytest.mark.usefixtures("missed")
def test_a_person_is_told_what_is_not_listed() -> None:
    shown = almanac("misses", "flight_delay", "--limit", "1")

    assert shown.exit_code == 0
    assert "JFK" in shown.stdout
    assert "EWR" not in shown.stdout
    assert "left out: 1 ids" in shown.stdout


@pytest.mark.usefixtures("missed")
def test_misses_are_written_as_a_source_of_the_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "data" / "asked.parquet"

    shown = almanac("misses", "flight_delay", "--to", str(path))

    assert "wrote 2 ids" in shown.stdout
    found = pq.read_table(path)
    assert found.schema.names == ["carrier", "flight", "origin", "date", "asked"]
    assert found.schema.field("asked").type == pa.int64()
    assert found.column("carrier").to_pylist() == ["U:A", "UA"]
    assert [file.name for file in path.parent.iterdir()] == ["asked.parquet"]


def test_a_table_that_missed_nothing_is_an_empty_source(team: Path) -> None:
    found = miss_table(team / "store", "flight_delay", ["carrier", "flight"])

    assert found.rows.schema.names == ["carrier", "flight", "asked"]
    assert (found.rows.num_rows, found.unsplit, found.dropped) == (0, 0, 0)
