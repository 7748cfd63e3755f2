"""Equal content has equal text and digests, and files appear whole or not at all."""

import datetime as dt
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.content import canonical_json, create_exclusively, sha256_file, sha256_text, write_atomically

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_canonical_json_is_sorted_bare_and_not_escaped() -> None:
    assert canonical_json({"b": [1, "é"], "a": dt.date(2013, 7, 1)}) == '{"a":"2013-07-01","b":[1,"é"]}'


@given(st.dictionaries(st.text(), VALUES))
def test_the_order_of_keys_leaves_no_trace(value: dict[str, Any]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_does_not_have_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json([number])


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"abc" * 1_000_000)
    assert sha256_text("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(path) == sha256_text("abc" * 1_000_000)


def test_writing_replaces_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, "old")
    write_atomically(path, "é")
    assert path.read_text(encoding="utf-8") == "é"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failed_write_leaves_the_old_text_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_at_once_one_creates(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: (create_exclusively(path, str(n)), n), range(32)))
    winners = [n for won, n in made if won]
    assert [str(n) for n in winners] == [path.read_text()]
    assert os.listdir(tmp_path) == ["token"]  # noqa: PTH208  # hidden files count too


def test_what_exists_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    assert create_exclusively(path, "second") is False
    assert path.read_text() == "first"
