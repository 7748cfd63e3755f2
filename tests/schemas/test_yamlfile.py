"""YAML 1.2's core schema, with the line of every key."""

import datetime as dt
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DeclarationError
from schemas.yamlfile import MAX_BYTES, MAX_DEPTH, Document, read_document


def read(folder: Path, text: str) -> Document:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return read_document(path, name="p/x.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("no", "no"),
        ("on", "on"),
        ("null", None),
        ("~", None),
        ("", None),
        ("7", 7),
        ("-7", -7),
        ("007", "007"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        (".5", ".5"),
        (".nan", ".nan"),
        ("2013-07-01", dt.date(2013, 7, 1)),
        ("2013-7-1", "2013-7-1"),
        ("2013-07-01 10:00:00", "2013-07-01 10:00:00"),
        ('"7"', "7"),
    ],
)
def test_a_scalar_is_what_it_looks_like(text: str, value: Any, tmp_path: Path) -> None:
    found = read(tmp_path, f"a: {text}\n").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_each_key_knows_its_line_and_a_missing_one_its_parents(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 1\nb:\n  - c: 2\n  - d: 3\n    e: 4\n")
    assert document.where(()) == "p/x.yaml:1"
    assert document.where(("b", 1, "e")) == "p/x.yaml:5: b.1.e"
    assert document.where(("b", 1, "missing", "deeper")) == "p/x.yaml:4: b.1.missing.deeper"


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffa: 1").data == {"a": 1}


def test_the_last_allowed_level_is_read(tmp_path: Path) -> None:
    levels = MAX_DEPTH - 1
    assert read(tmp_path, f"a: {'[' * levels}{']' * levels}").data["a"]


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, "a: 1\n#" + "x" * (MAX_BYTES - 6)).data == {"a": 1}


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`#, \n\t0123456789.~?<", max_size=60))
def test_any_text_is_a_mapping_or_a_declaration_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    with suppress(DeclarationError):
        assert isinstance(read(tmp_path_factory.getbasetemp(), text).data, dict)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_mapping_or_a_declaration_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "raw.yaml"
    path.write_bytes(raw)
    with suppress(DeclarationError):
        assert isinstance(read_document(path, name="x").data, dict)
