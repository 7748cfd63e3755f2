"""The rows of a version, as many at once as a file holds: ids and MessagePack values as Arrow arrays."""

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookup.breath import breathe
from lookup.crc import Bytes, Positions, crc32
from lookup.store import Store
from schemas.errors import InputError, Problem, UnavailableError
from schemas.head import ColumnSpec, Head
from schemas.row import MAX_COLUMNS, encode_column, encode_rows
from schemas.run import ENTITY_ID, PREDICTIONS, PRIORS, RunManifest, columns_of

PRIOR_FIELD = "field"
_TAGS: dict[str, tuple[int, str]] = {"float64": (0xCB, ">f8"), "float32": (0xCA, ">f4"), "int64": (0xD3, ">i8")}


class Row(NamedTuple):
    entity: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of a version.

    Attributes:
        ids: Binary array of UTF-8 entity ids, shape (rows,).
        values: Binary array of the rows' MessagePack, shape (rows,).
    """

    ids: Any
    values: Any

    def buckets(self, modulus: int) -> Positions:
        """The bucket of each row, shape (rows,)."""
        data, offsets = flat(self.ids)
        return crc32(data, offsets).astype(np.int64) % modulus

    def __add__(self, other: "Chunk") -> "Chunk":
        return Chunk(pa.concat_arrays([self.ids, other.ids]), pa.concat_arrays([self.values, other.values]))

    def slice(self, start: int, rows: int | None = None) -> "Chunk":
        """Some of the rows; none is copied."""
        return Chunk(self.ids.slice(start, rows), self.values.slice(start, rows))

    def __iter__(self) -> Iterator[Row]:
        for entity, value in zip(self.ids.to_pylist(), self.values.to_pylist(), strict=True):
            yield Row(entity.decode(), value)


class Part(Protocol):
    """One piece of a version's rows; it travels to the process that reads it."""

    def read(self) -> Chunk: ...
    def pieces(self, rows: int) -> Iterator[Chunk]:
        """The same, so many rows at a time, and never all of them in memory."""

    def ends(self) -> tuple[str, str] | None:
        """The ids of the first row and of the last; None where there is none. Costs less than to read all."""


class Rows(Protocol):
    """What a version is loaded from.

    Attributes:
        parts: Whole ranges of buckets, in order; ids ascend within a bucket.
        priors: Prior field -> MessagePack of its outputs.
    """

    @property
    def parts(self) -> Sequence[Part]: ...
    @property
    def priors(self) -> dict[str, bytes]: ...


@dataclass(frozen=True, slots=True)
class FilePart:
    """A prediction file of a run."""

    path: Path
    columns: tuple[ColumnSpec, ...]

    def read(self) -> Chunk:
        with self._open() as file:
            return self._chunk(file.read(columns=self._names, use_threads=False).unify_dictionaries().combine_chunks())

    def pieces(self, rows: int) -> Iterator[Chunk]:
        with self._open() as file:
            # In this thread, which may be one of low priority: those of Arrow's pool are not.
            for batch in file.iter_batches(rows, columns=self._names, use_threads=False):
                breathe()
                yield self._chunk(pa.Table.from_batches([batch]))

    @property
    def _names(self) -> list[str]:
        return [ENTITY_ID, *(spec.name for spec in self.columns)]

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        enums = [spec.name for spec in self.columns if spec.type == "enum"]
        with (
            _told_where_missing(self.path),
            pq.ParquetFile(self.path, read_dictionary=enums, page_checksum_verification=True) as file,
        ):
            yield file

    def _chunk(self, table: pa.Table) -> Chunk:
        """The rows of a table whose columns have one chunk each."""
        ids, *values = (column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns)
        return Chunk(ids.cast(pa.binary()), encode_values(self.columns, values))

    def ends(self) -> tuple[str, str] | None:
        with _told_where_missing(self.path), pq.ParquetFile(self.path, page_checksum_verification=True) as file:
            groups = [group for group in range(file.num_row_groups) if file.metadata.row_group(group).num_rows]
            if not groups:
                return None
            last = file.read_row_group(groups[-1], [ENTITY_ID]).column(ENTITY_ID)
            first = last if len(groups) == 1 else file.read_row_group(groups[0], [ENTITY_ID]).column(ENTITY_ID)
        return first[0].as_py(), last[-1].as_py()


@contextmanager
def _told_where_missing(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        expected = "the run's file; an erasure may have replaced it: try again"
        raise UnavailableError(Problem("OUT_NOT_FOUND", str(path), "no such file", expected)) from None


@dataclass(frozen=True)
class StoredRows:
    """The published rows of a run, as its files have them."""

    store: Store
    manifest: RunManifest
    columns: tuple[ColumnSpec, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", columns_of(self.manifest))

    @cached_property
    def parts(self) -> list[FilePart]:
        folder = self.store.run_folder(self.manifest.run_id)
        return [FilePart(folder / file.path, self.columns) for file in self.manifest.files_in(PREDICTIONS)]

    @cached_property
    def priors(self) -> dict[str, bytes]:
        folder, outputs = self.store.run_folder(self.manifest.run_id), self.manifest.outputs
        found: dict[str, bytes] = {}
        for file in self.manifest.files_in(PRIORS):
            table = pq.read_table(folder / file.path, page_checksum_verification=True)
            values = encode_rows(outputs, [table.column(spec.name).to_pylist() for spec in outputs])
            found |= zip(table.column(PRIOR_FIELD).to_pylist(), values, strict=True)
        return found

    def __iter__(self) -> Iterator[Row]:
        """Row by row, in the order of the files."""
        for part in self.parts:
            yield from part.read()


def rows_in(store: Store) -> Callable[[Head], StoredRows]:
    """Finds the rows of a version in the store that published it."""
    return lambda head: StoredRows(store, store.manifest(head.run_id))


def checksum(rows: Iterable[tuple[bytes, bytes]], priors: Mapping[str, bytes] = MappingProxyType({})) -> str:
    """SHA-256 over ids and values in the order of bucket and id, then the priors: what a version holds, wherever."""
    digest = hashlib.sha256()
    for name, value in chain(rows, sorted((prior.encode(), value) for prior, value in priors.items())):
        digest.update(struct.pack("<HI", len(name), len(value)) + name + value)
    return digest.hexdigest()


def encode_values(columns: Sequence[ColumnSpec], arrays: Sequence[Any]) -> Any:
    """The MessagePack array of each row, the same bytes as `encode_rows`, as one binary array.

    Args:
        columns: Shape (c,), 1 <= c <= 15.
        arrays: One Arrow array a column, each of shape (rows,).
    """
    if not 1 <= len(columns) <= MAX_COLUMNS:
        raise ValueError(f"{len(columns)} columns; a row has 1 to {MAX_COLUMNS}")
    header = np.full((len(arrays[0]), 1), 0x90 | len(columns), np.uint8)
    encoded = [header, *(_encoded(spec, array) for spec, array in zip(columns, arrays, strict=True))]
    if all(isinstance(part, np.ndarray) for part in encoded):
        return fixed(np.hstack(encoded))
    parts = [fixed(part) if isinstance(part, np.ndarray) else part for part in encoded]
    return pc.binary_join_element_wise(*parts, b"")


def fixed(matrix: Bytes) -> Any:
    """A binary array of rows that all have as many bytes as the matrix has columns."""
    rows, width = matrix.shape
    offsets = np.arange(0, (rows + 1) * width, width, dtype=np.int32) if width else np.zeros(rows + 1, np.int32)
    return pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(matrix.tobytes())])


def flat(array: Any) -> tuple[Bytes, Positions]:
    """The bytes of a binary array without nulls, and where each of its strings begins and ends: shape (n + 1,)."""
    if len(array) == 0:
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = array.buffers()
    found = np.frombuffer(offsets, np.int32, len(array) + 1, array.offset * 4).astype(np.int64)
    return np.frombuffer(data, np.uint8), found


def _encoded(spec: ColumnSpec, array: Any) -> npt.NDArray[np.uint8] | Any:
    """One column's MessagePack: a matrix of shape (rows, width) where all values are of one width, else an array."""
    if spec.type == "enum" and len(spec.values) <= 0x80:  # an index below 128 is one byte
        coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        index = pc.index_in(coded.dictionary, value_set=pa.array(spec.values, pa.string()))
        if index.null_count or coded.null_count:
            known = ", ".join(spec.values)
            found = ", ".join(str(value) for value in {*coded.dictionary.to_pylist()} - {*spec.values}) or "null"
            raise InputError(Problem("ROW_VALUE", f"column {spec.name}", found, f"one of {known}"))
        return index.to_numpy().astype(np.uint8).take(coded.indices.to_numpy()).reshape(-1, 1)
    if spec.type not in _TAGS:
        return pa.array(encode_column(spec, array.to_pylist()), pa.binary())
    tag, number = _TAGS[spec.type]
    values = np.ascontiguousarray(pc.fill_null(array, 0).to_numpy(zero_copy_only=False).astype(number))
    matrix = np.hstack(
        [np.full((len(array), 1), tag, np.uint8), values.view(np.uint8).reshape(len(array), values.itemsize)]
    )
    return pc.if_else(array.is_valid(), fixed(matrix), pa.scalar(b"\xc0", pa.binary())) if array.null_count else matrix
