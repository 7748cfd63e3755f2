"""Who may read which table, how fast, and what a keys file may say."""

import datetime as dt
import json
import logging
import math
import os
import secrets
from pathlib import Path
from typing import Any

import pytest

from lookup.keyring import Granted, Keyring, Refusal, key_digest
from schemas.errors import DeclarationError

SHOP, OTHER = f"alm_{secrets.token_urlsafe(32)}", f"alm_{secrets.token_urlsafe(32)}"


class Clock:
    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def entry(key: str = SHOP, **values: Any) -> dict[str, Any]:
    return {"sha256": key_digest(key), "tables": ["flights"], "requests_per_second": 10, **values}


def write(path: Path, **entries: Any) -> Path:
    path.write_text(json.dumps({"keys": entries}))
    os.utime(path, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns + 1_000_000))  # a file of another time
    return path


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return write(tmp_path / "keys.json", shop=entry(), every=entry(OTHER, tables="*"))


def test_a_key_opens_its_tables(keys: Path) -> None:
    assert Keyring.load(keys).check(f"Bearer {SHOP}", "flights", 1) == Granted("shop")


def test_the_scheme_is_found_in_any_case(keys: Path) -> None:
    assert Keyring.load(keys).check(f"bearer  {SHOP} ", "flights", 1) == Granted("shop")


def test_a_key_for_every_table_opens_any(keys: Path) -> None:
    assert Keyring.load(keys).check(f"Bearer {OTHER}", "never_heard_of", 1) == Granted("every")


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {SHOP}",
        SHOP,
        f"Bearer {SHOP}x",
        f"Bearer {key_digest(SHOP)}",
        "Bearer \ud800",
    ],
    # The keys are drawn anew in each process, and a test has one name in all of them.
    ids=["none", "empty", "no key", "blank key", "other scheme", "no scheme", "longer", "digest", "no text"],
)
def test_no_key_or_a_wrong_one_is_a_401_that_says_how(keys: Path, authorization: str | None) -> None:
    refusal = Keyring.load(keys).check(authorization, "flights", 1)

    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (401, "API_KEY")
    assert refusal.headers == [("www-authenticate", "Bearer")]


def test_a_table_of_others_and_one_that_is_not_there_are_refused_alike(keys: Path) -> None:
    keyring = Keyring.load(keys)

    others, missing = (keyring.check(f"Bearer {SHOP}", table, 1) for table in ("payroll", "no_such_table"))

    assert others == missing
    assert isinstance(others, Refusal)
    assert (others.status, others.code, others.headers) == (403, "API_KEY_TABLE", [])


def test_what_a_refused_client_is_told_names_no_table_and_no_key(keys: Path) -> None:
    keyring = Keyring.load(keys)

    wrong, others = keyring.check("Bearer x", "payroll", 1), keyring.check(f"Bearer {SHOP}", "payroll", 1)

    assert isinstance(wrong, Refusal)
    assert isinstance(others, Refusal)
    assert wrong.message == others.message == "expected 'Authorization: Bearer KEY' with a key that may read this table"


def test_an_expired_key_is_a_wrong_key_from_midnight_utc(tmp_path: Path) -> None:
    wall = Clock(dt.datetime(2026, 12, 31, 23, 59, 59, tzinfo=dt.UTC).timestamp())
    keyring = Keyring.load(write(tmp_path / "keys.json", shop=entry(expires="2027-01-01")), wall_clock=wall)
    assert keyring.check(f"Bearer {SHOP}", "flights", 1) == Granted("shop")

    wall.now += 1
    refusal = keyring.check(f"Bearer {SHOP}", "flights", 1)

    assert isinstance(refusal, Refusal)
    assert refusal.code == "API_KEY"


def test_a_key_that_asks_too_fast_is_told_when_to_come_again(tmp_path: Path) -> None:
    clock = Clock()
    keyring = Keyring.load(write(tmp_path / "keys.json", shop=entry(burst=4)), clock=clock)
    granted = [keyring.check(f"Bearer {SHOP}", "flights", 1) for _ in range(4)]

    refusal = keyring.check(f"Bearer {SHOP}", "flights", 1)

    assert granted == [Granted("shop")] * 4
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code, refusal.retry_after_seconds) == (429, "API_KEY_RATE", 0.1)
    assert refusal.headers == [("retry-after", "1")]
    clock.now += 0.1
    assert keyring.check(f"Bearer {SHOP}", "flights", 1) == Granted("shop")


def test_a_refused_request_costs_nothing(tmp_path: Path) -> None:
    clock = Clock()
    keyring = Keyring.load(write(tmp_path / "keys.json", shop=entry(burst=1)), clock=clock)
    keyring.check(f"Bearer {SHOP}", "flights", 1)

    refusals = [keyring.check(f"Bearer {SHOP}", "flights", 1) for _ in range(100)]

    assert {refusal.retry_after_seconds for refusal in refusals if isinstance(refusal, Refusal)} == {0.1}


def test_what_was_paid_before_is_a_part_of_the_cost_and_given_back_where_the_rest_is_refused(tmp_path: Path) -> None:
    clock = Clock()
    keyring = Keyring.load(write(tmp_path / "keys.json", shop=entry(burst=3)), clock=clock)

    def ask(ids: int) -> list[bool]:
        before = keyring.check(f"Bearer {SHOP}", "flights", 1)
        return [isinstance(each, Granted) for each in (before, keyring.check(f"Bearer {SHOP}", "flights", ids, paid=1))]

    assert ask(2) == [True, True]
    assert [ask(2) for _ in range(3)] == [[True, False]] * 3
    clock.now += 0.2
    assert ask(1000) == [True, True]  # more than a full bucket has, from a full one


def test_a_batch_costs_as_many_as_it_has_ids(tmp_path: Path) -> None:
    keyring = Keyring.load(write(tmp_path / "keys.json", shop=entry(burst=10)), clock=Clock())
    assert keyring.check(f"Bearer {SHOP}", "flights", 7) == Granted("shop")

    refusal = keyring.check(f"Bearer {SHOP}", "flights", 5)

    assert isinstance(refusal, Refusal)
    assert refusal.retry_after_seconds == pytest.approx(0.2)
    assert keyring.check(f"Bearer {SHOP}", "flights", 3) == Granted("shop")


def test_a_batch_larger_than_the_bucket_is_granted_and_paid_for_afterwards(tmp_path: Path) -> None:
    clock = Clock()
    keyring = Keyring.load(write(tmp_path / "keys.json", shop=entry(burst=10)), clock=clock)

    assert keyring.check(f"Bearer {SHOP}", "flights", 1000) == Granted("shop")

    refusal = keyring.check(f"Bearer {SHOP}", "flights", 1)
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after_seconds == pytest.approx(99.1)


def test_each_worker_grants_its_share(tmp_path: Path) -> None:
    path = write(tmp_path / "keys.json", shop=entry(requests_per_second=40))
    keyring = Keyring.load(path, workers=4, clock=Clock())

    outcomes = [keyring.check(f"Bearer {SHOP}", "flights", 1) for _ in range(11)]

    assert [type(outcome) for outcome in outcomes] == [Granted] * 10 + [Refusal]


def test_one_key_does_not_spend_what_another_may(keys: Path) -> None:
    keyring = Keyring.load(keys, clock=Clock())
    keyring.check(f"Bearer {SHOP}", "flights", 10_000)

    assert keyring.check(f"Bearer {OTHER}", "flights", 1) == Granted("every")


def test_a_changed_file_is_read_again_within_a_second(keys: Path) -> None:
    clock = Clock()
    keyring = Keyring.load(keys, clock=clock)
    write(keys, every=entry(OTHER, tables="*"))
    assert keyring.check(f"Bearer {SHOP}", "flights", 1) == Granted("shop")  # not looked at for each request

    clock.now += 1

    assert isinstance(keyring.check(f"Bearer {SHOP}", "flights", 1), Refusal)
    assert keyring.check(f"Bearer {OTHER}", "flights", 1) == Granted("every")


def test_a_file_with_no_keys_closes_the_api(keys: Path) -> None:
    clock = Clock()
    keyring = Keyring.load(keys, clock=clock)
    write(keys)

    clock.now += 1

    assert isinstance(keyring.check(f"Bearer {SHOP}", "flights", 1), Refusal)


def test_a_changed_file_refills_no_bucket(keys: Path) -> None:
    clock = Clock()
    keyring = Keyring.load(keys, clock=clock)
    keyring.check(f"Bearer {SHOP}", "flights", 1000)
    write(keys, shop=entry(tables=["flights", "more"]))

    clock.now += 1

    refusal = keyring.check(f"Bearer {SHOP}", "more", 1)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "API_KEY_RATE"


@pytest.mark.parametrize("text", ["", "keys: [", "keys:\n  shop: {}", None])
def test_a_broken_file_changes_nothing_and_is_told_once(
    keys: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    keyring = Keyring.load(keys, clock=clock)
    if text is None:
        keys.unlink()
    else:
        keys.write_text(text)

    outcomes = []
    for _ in range(5):
        clock.now += 2
        outcomes.append(keyring.check(f"Bearer {SHOP}", "flights", 1))

    assert outcomes == [Granted("shop")] * 5
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    assert "the API keys stay as they were" in caplog.text


def test_a_file_that_everyone_may_write_is_warned_of(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys.chmod(0o666)

    Keyring.load(keys)

    assert "can be written by every user" in caplog.text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "CFG_NOT_FOUND"),
        ("", "CFG_EMPTY"),
        ("keys:\n  a: 1\n  a: 2\n", "CFG_DUPLICATE_KEY"),
        ("users: {}\n", r"keys.yaml:1: users: unknown key; did you mean 'keys'|CFG_UNKNOWN_KEY"),
        ("keys:\n  shop:\n    table: [a]\n", r"keys.yaml:3: keys.shop.table: unknown key; did you mean 'tables'\?"),
        ("keys:\n  shop: {tables: [a], requests_per_second: 1}\n", r"keys.shop.*is missing.*CFG_MISSING_KEY"),
        ("keys:\n  Shop!: {}\n", "CFG_RANGE"),
        (f"keys:\n  a: {json.dumps(entry(tables=[]))}\n", r"keys\.a\.tables.*CFG_RANGE"),
        (f"keys:\n  a: {json.dumps(entry(tables=['A:b']))}\n", r"keys\.a\.tables\.0.*CFG_RANGE"),
        (f"keys:\n  a: {json.dumps(entry(requests_per_second=0))}\n", r"keys\.a\.requests_per_second.*CFG_RANGE"),
        (f"keys:\n  a: {json.dumps(entry(requests_per_second='9'))}\n", r"keys\.a\.requests_per_second.*CFG_TYPE"),
        (f"keys:\n  a: {json.dumps(entry(burst=0.5))}\n", r"keys\.a\.burst.*CFG_RANGE"),
        (f"keys:\n  a: {json.dumps(entry(expires='soon'))}\n", r"keys\.a\.expires.*soon.*CFG_INVALID"),
        (f"keys:\n  a: {json.dumps(entry())}\n  b: {json.dumps(entry())}\n", r"keys\.b: the same key as 'a'"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_keys_file_is_told_with_its_line(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "keys.yaml"
    if text is not None:
        path.write_text(text)

    with pytest.raises(DeclarationError, match=told):
        Keyring.load(path)


def test_a_key_that_was_pasted_where_its_digest_belongs_is_not_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "keys.json", shop=entry() | {"sha256": SHOP})

    with pytest.raises(DeclarationError, match=r"keys\.shop\.sha256: not the SHA-256 of a key") as error:
        Keyring.load(path)

    assert SHOP[4:] not in f"{error.value!r}"


def test_yaml_says_the_same_as_json(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(
        f"keys:\n  shop:\n    sha256: {key_digest(SHOP)}\n    tables: ['*']\n"
        "    requests_per_second: 1e3\n    burst: 5\n    expires: 2999-01-01\n"
    )

    assert Keyring.load(path).check(f"Bearer {SHOP}", "flights", 1) == Granted("shop")


def test_a_rate_holds_over_time_whatever_the_batches(tmp_path: Path) -> None:
    clock = Clock()
    keyring = Keyring.load(write(tmp_path / "keys.json", shop=entry(burst=20)), clock=clock)
    granted = 0
    for step in range(10_000):
        clock.now += 0.01
        cost = 1 + step % 57
        granted += cost * isinstance(keyring.check(f"Bearer {SHOP}", "flights", cost), Granted)

    assert math.isclose(granted, 100 * 10, rel_tol=0.1)
