"""The rows of the lookup table: MessagePack arrays in the order of the head's columns (docs/lookup.md)."""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from schemas.errors import Problem, RowDecodeError
from schemas.head import ColumnSpec, Value

_FLOATS = {"float64": (0xCB, 8, "d"), "float32": (0xCA, 4, "f")}  # tag, bytes, letter in `struct`
_ONE_BYTE = 0x80  # a MessagePack integer below it is one byte
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


class RowDecoder:
    """Decodes the rows of one version; made once for its columns, as it is used for every row."""

    def __init__(self, columns: Sequence[ColumnSpec]) -> None:
        self.names = tuple(spec.name for spec in columns)
        self._kinds = tuple((_TYPES.get(spec.type), spec) for spec in columns)

    def __call__(self, raw: bytes) -> list[Value]:
        """The row's values, in the order of the columns.

        Raises:
            RowDecodeError: the bytes are not a row of these columns. Never a guess.
        """
        try:
            values = msgpack.unpackb(raw)
        except (ValueError, msgpack.UnpackException) as err:
            raise _undecodable(raw, str(err) or type(err).__name__) from err
        if type(values) is not list or len(values) != len(self._kinds):
            raise _undecodable(raw, f"not an array of {len(self._kinds)}")
        for index, (kind, spec) in enumerate(self._kinds):
            value: Any = values[index]
            if kind is None:
                if type(value) is not int or not 0 <= value < len(spec.values):
                    raise _undecodable(raw, f"{spec.name}: no value of index {value!r}")
                values[index] = spec.values[value]
            elif value is not None and type(value) is not kind:
                raise _undecodable(raw, f"{spec.name}: {type(value).__name__} where {spec.type} was declared")
            elif spec.values and value is not None:  # a class, by its place
                if not isinstance(value, float) or value not in range(len(spec.values)):
                    raise _undecodable(raw, f"{spec.name}: no value of index {value!r}")
                values[index] = spec.values[int(value)]
            elif type(value) is int and value >= 2**63:  # MessagePack has unsigned ones too
                raise _undecodable(raw, f"{spec.name}: {value} is no int64")
        return values


class Plain(NamedTuple):
    """A row of nothing but floats of one width and enums of one byte each, as nearly all are.

    Attributes:
        numbers: The floats, in their order.
        choices: The values of the enums, in theirs.
    """

    numbers: tuple[float, ...]
    choices: tuple[str, ...]


class PlainDecoder:
    """Decodes plain rows several times as fast as `RowDecoder`; it leaves every other row to that one.

    Attributes:
        is_of_use: Whether rows of these columns can be plain: floats of one width, then enums.
        size: Of a plain row, in bytes.
        layout: Of its floats, as `struct` names it.
        enums: How many bytes follow them.
    """

    def __init__(self, columns: Sequence[ColumnSpec]) -> None:
        kind = columns[0].type
        count = sum(spec.type == kind for spec in columns)
        tag, width, letter = _FLOATS.get(kind, (0, 0, ""))
        self._enums = [spec for spec in columns[count:] if spec.type == "enum" and len(spec.values) <= _ONE_BYTE]
        is_named = any(spec.values for spec in columns if spec.type == kind)
        self.is_of_use = bool(letter) and count + len(self._enums) == len(columns) and not is_named
        self.enums = len(self._enums)
        self.layout = ">x" + f"x{letter}" * count
        self._step = 1 + width
        self._end = 1 + count * self._step  # a header, then a tag and a float each
        self.size = self._end + self.enums
        self._header, self._tag = bytes([0x90 | len(columns)]), bytes([tag])
        self._tags = self._tag * count
        self._read = struct.Struct(self.layout).unpack_from
        self._choices: dict[bytes, tuple[str, ...]] = {}

    def __call__(self, raw: bytes) -> Plain | None:
        """The row, or None where it is not a plain one of these columns."""
        end = self._end
        if len(raw) != self.size or raw[:1] != self._header or raw[1 : end : self._step] != self._tags:
            return None
        choices = self.choices(raw[end:])
        return None if choices is None else Plain(self._read(raw), choices)

    def choices(self, indexes: bytes) -> tuple[str, ...] | None:
        """The values of the enums, of whose indexes a row's last bytes are; None where there are none of these."""
        if (known := self._choices.get(indexes)) is None:
            if any(index >= len(spec.values) for index, spec in zip(indexes, self._enums, strict=True)):
                return None
            known = tuple(spec.values[index] for index, spec in zip(indexes, self._enums, strict=True))
            self._choices[indexes] = known  # at most as many as there are values of all enums together, multiplied
        return known

    def are_tagged(self, rows: bytes, count: int) -> bool:
        """Whether so many rows, each of `size` bytes, have the header and the tags of these columns."""
        if rows[:: self.size] != self._header * count:
            return False
        return all(rows[at :: self.size] == self._tag * count for at in range(1, self._end, self._step))


def decode_row(columns: Sequence[ColumnSpec], raw: bytes) -> dict[str, Value]:
    """The row's values by column name.

    Raises:
        RowDecodeError: the bytes are not a row of these columns.
    """
    decoder = RowDecoder(columns)
    return dict(zip(decoder.names, decoder(raw), strict=True))


_TYPES: dict[str, type] = {"float64": float, "float32": float, "int64": int, "string": str}


def _undecodable(raw: bytes, why: str) -> RowDecodeError:
    return RowDecodeError(Problem("ROW_DECODE", "a published row", f"{raw[:40].hex()}: {why}", "a row of this version"))
