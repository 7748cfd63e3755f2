"""The rows of the lookup table: MessagePack arrays in the order of the head's columns (docs/lookup.md)."""

import struct
from collections.abc import Sequence
from typing import Any, cast

import msgpack

from schemas.errors import Problem, RowDecodeError
from schemas.head import ColumnSpec, Value

MAX_COLUMNS = 15  # a MessagePack fixarray: one header byte


def encode_column(spec: ColumnSpec, values: Sequence[Any]) -> list[bytes]:
    """MessagePack of each value of one column, in the fixed width of the column's type."""
    if spec.type == "enum":
        codes = {value: msgpack.packb(index) for index, value in enumerate(spec.values)}
        return [codes[value] for value in values]
    pack = {
        "float64": struct.Struct(">Bd").pack,
        "float32": struct.Struct(">Bf").pack,
        "int64": struct.Struct(">Bq").pack,
    }.get(spec.type)
    if pack is None:
        return [msgpack.packb(value) for value in values]
    tag = {"float64": 0xCB, "float32": 0xCA, "int64": 0xD3}[spec.type]
    return [b"\xc0" if value is None else pack(tag, value) for value in values]


def encode_rows(columns: Sequence[ColumnSpec], values: Sequence[Sequence[Any]]) -> list[bytes]:
    """The MessagePack array of each row.

    Args:
        columns: Shape (c,), 1 <= c <= 15.
        values: Column-wise, shape (c, rows).
    """
    if not 1 <= len(columns) <= MAX_COLUMNS:
        raise ValueError(f"{len(columns)} columns; a row has 1 to {MAX_COLUMNS}")
    header = bytes([0x90 | len(columns)])
    encoded = [encode_column(spec, column) for spec, column in zip(columns, values, strict=True)]
    return [header + b"".join(row) for row in zip(*encoded, strict=True)]


def decode_row(columns: Sequence[ColumnSpec], raw: bytes) -> dict[str, Value]:
    """The row's values by column name.

    Raises:
        RowDecodeError: the bytes are not a row of these columns. Never a guess.
    """
    try:
        values = msgpack.unpackb(raw)
    except (ValueError, msgpack.UnpackException) as err:
        raise _undecodable(raw, str(err) or type(err).__name__) from err
    if not isinstance(values, list) or len(values) != len(columns):
        raise _undecodable(raw, f"not an array of {len(columns)}")
    return {spec.name: _checked(spec, value, raw) for spec, value in zip(columns, values, strict=True)}


_TYPES: dict[str, type] = {"float64": float, "float32": float, "int64": int, "string": str}


def _checked(spec: ColumnSpec, value: Any, raw: bytes) -> Value:
    if spec.type == "enum":
        if type(value) is not int or not 0 <= value < len(spec.values):
            raise _undecodable(raw, f"{spec.name}: no value of index {value!r}")
        return spec.values[value]
    if value is not None and type(value) is not _TYPES[spec.type]:
        raise _undecodable(raw, f"{spec.name}: {type(value).__name__} where {spec.type} was declared")
    if isinstance(value, int) and value >= 2**63:  # MessagePack has unsigned ones too
        raise _undecodable(raw, f"{spec.name}: {value} is no int64")
    return cast("Value", value)  # narrowed by a table that mypy cannot follow


def _undecodable(raw: bytes, why: str) -> RowDecodeError:
    return RowDecodeError(Problem("ROW_DECODE", "a published row", f"{raw[:40].hex()}: {why}", "a row of this version"))
