"""The lookup table's bytes: entity ids, buckets, Redis keys and row values (docs/lookup.md)."""

import binascii
import struct
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, cast

import msgpack
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import InputError, Problem, RowDecodeError

FORMAT = 1
MAX_ID_BYTES = 512
ENTITIES_PER_BUCKET = 64
MAX_COLUMNS = 15  # a MessagePack fixarray: one header byte
PREFIX = "almanac"

Value = float | int | str | None


def entity_id(values: Iterable[object]) -> str:
    r"""The key values joined with `:`; a `:` or `\` inside a value is escaped with `\`.

    >>> entity_id(["UA", 1545, "EWR", "2013-07-01"])
    'UA:1545:EWR:2013-07-01'
    >>> print(entity_id(["a:b", "c"]))
    a\:b:c
    """
    return ":".join(str(value).replace("\\", "\\\\").replace(":", "\\:") for value in values)


def id_problem(entity: str) -> str | None:
    """Why `entity` cannot be an entity id, or None where it can."""
    if not entity.strip():
        return "is blank"
    try:
        size_bytes = len(entity.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode (a lone surrogate)"
    if size_bytes > MAX_ID_BYTES:
        return f"is {size_bytes} bytes long, the limit is {MAX_ID_BYTES}"
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in entity):
        return "has a control character"
    return None


def bucket_count(entities: int) -> int:
    """How many buckets a version of that many entities has: 64 to a bucket on average."""
    return max(1, -(-entities // ENTITIES_PER_BUCKET))


def bucket_of(entity: str, buckets: int) -> int:
    """CRC-32 (IEEE) of the UTF-8 entity id, modulo the bucket count.

    >>> bucket_of("UA:1545:EWR:2013-07-01", 102)
    11
    """
    return binascii.crc32(entity.encode()) % buckets


def head_key(table: str) -> str:
    """The one pointer readers follow. The braces keep a table's control keys in one cluster slot."""
    return f"{PREFIX}:{{{table}}}:head"


def versions_key(table: str) -> str:
    """The hash of every version that has keys in Redis: version -> its head, as JSON."""
    return f"{PREFIX}:{{{table}}}:versions"


def bucket_key(table: str, version: int, bucket: int) -> str:
    """The hash that holds the rows of one bucket, entity id -> value."""
    return f"{PREFIX}:{table}:{version}:{bucket}"


class ColumnSpec(BaseModel):
    """One element of a row's MessagePack array.

    An `enum` column holds an index into `values`, so that a long model id costs one byte a row.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    type: Literal["float64", "float32", "int64", "string", "enum"]
    values: tuple[str, ...] = ()


class Head(BaseModel):
    """All that a reader must know of the version it reads: the value of the head key, as JSON.

    Attributes:
        format: Of these bytes; a reader refuses a newer one.
        release: The release that is served.
        date: Its logical date, YYYY-MM-DD.
        version: Part of the bucket keys. One release may have several in turn: keys that were dropped are not reused.
        token: Fencing token of the publisher that set this head; a smaller one cannot replace it.
        buckets: Modulus of the entity id's CRC-32.
        entities: Rows in the version.
        columns: The order of a row's array; the first ones are outputs.
        scored_at: When the run's predictions were computed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = FORMAT
    table: str
    release: Annotated[int, Field(ge=1)]
    date: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    version: Annotated[int, Field(ge=1)]
    token: Annotated[int, Field(ge=1)]
    layout: Literal["bucket"] = "bucket"
    buckets: Annotated[int, Field(ge=1)]
    entities: Annotated[int, Field(ge=1)]
    columns: tuple[ColumnSpec, ...]
    run_id: str
    scored_at: str


def read_head(raw: bytes, table: str) -> Head:
    """The head in these bytes.

    Raises:
        InputError: they are not a head, or one of a newer format.
    """
    try:
        head = Head.model_validate_json(raw)
    except ValueError as err:
        raise InputError(
            Problem(
                "STORE_POINTER_FORMAT", head_key(table), f"not a head: {raw[:60]!r}", "the JSON that publish writes"
            )
        ) from err
    if head.format > FORMAT:
        raise InputError(
            Problem(
                "FORMAT_TOO_NEW", head_key(table), f"format {head.format}", f"at most {FORMAT}; upgrade this reader"
            )
        )
    return head


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
