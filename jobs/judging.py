"""The key rules of `validation.quarantine.judge_rows` on Arrow rows: which of a file's rows pass, in which order."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.reading import CRC
from lookup.rows import flat
from schemas.keys import MAX_ID_BYTES
from schemas.run import ENTITY_ID, REASONS
from validation.quarantine import BAD_KEY, BLANK_KEY, DUPLICATE_KEY, NULL_KEY

KEY_REASONS = (NULL_KEY, BLANK_KEY, BAD_KEY, DUPLICATE_KEY)  # in the order in which a row lists them
_CONTROL = r"[\x00-\x1f\x7f]"
_AT = "__at"

Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Judge:
    """Finds the rows of a file to come that pass, and their order; sets the others aside.

    Attributes:
        folder: Where both are written.
        paths: The files of rows.
        schema: Of the features.
        key: The columns that name an entity.
        files, buckets: How the predictions will be cut.
    """

    folder: Path
    paths: tuple[Path, ...]
    schema: pa.Schema
    key: tuple[str, ...]
    files: int
    buckets: int

    def __call__(self, number: int) -> dict[str, Any]:
        table = file_rows(self.paths, number, self.files)
        ids, keys = table.column(ENTITY_ID), [table.column(name) for name in self.key]
        bucket = pa.array(np.asarray(table.column(CRC)) % np.uint32(self.buckets))
        order = np.asarray(
            pc.sort_indices(pa.table({"bucket": bucket, "id": ids}), [("bucket", "ascending"), ("id", "ascending")])
        ).astype(np.int64)
        suspect = _keyed_wrong(ids, keys) | _repeated(ids, order)
        aside, failed, collapsed = "", 0, 0
        if suspect.any():
            rows = self._distinct(table, np.flatnonzero(suspect))
            reasons = self._reasons(rows)
            kept = pa.array([not each for each in reasons])
            suspect[np.asarray(rows.column(_AT).filter(kept))] = False
            order = order[~suspect[order]]
            failed, collapsed = kept.false_count, table.num_rows - len(order) - kept.false_count
            aside = str(self._set_aside(rows, reasons, number)) if failed else ""
        np.save(_order_path(self.folder, number), order)
        return {"passed": len(order), "failed": failed, "collapsed": collapsed, "aside": aside}

    def _distinct(self, table: pa.Table, places: Places) -> pa.Table:
        """The different rows among these, each with the place of one of its copies."""
        names = [*self.schema.names, ENTITY_ID]
        rows = table.select(names).take(pa.array(places)).append_column(_AT, pa.array(places))
        grouped = rows.group_by(names, use_threads=False).aggregate([(_AT, "min")])
        return grouped.rename_columns({f"{_AT}_min": _AT}).select([*names, _AT])

    def _reasons(self, rows: pa.Table) -> list[list[str]]:
        ids = rows.column(ENTITY_ID).to_pylist()
        copies = Counter(ids)
        texts = [pc.cast(rows.column(name), pa.string()) for name in self.key]
        null = _any([pc.is_null(text) for text in texts])
        blank = _any([_is_blank(text) for text in texts])
        bad = np.asarray(_is_bad(rows.column(ENTITY_ID)))
        flags = zip(null, blank, bad, ids, strict=True)
        return [
            [
                name
                for name, applies in zip(KEY_REASONS, (*own, id_ is not None and copies[id_] > 1), strict=True)
                if applies
            ]
            for *own, id_ in flags
        ]

    def _set_aside(self, rows: pa.Table, reasons: list[list[str]], number: int) -> Path:
        listed = pa.array(reasons, pa.list_(pa.string()))
        failed = rows.drop_columns(_AT).append_column(REASONS, listed)
        path = self.folder / f"aside-{number:05}.parquet"
        pq.write_table(failed.filter(pa.array([bool(each) for each in reasons])), path)
        return path


def file_rows(paths: Sequence[Path], number: int, files: int) -> pa.Table:
    """The rows of a file to come, in the order of the source; strings and numbers stay where the files are mapped."""
    batches = [batch for path in paths for batch in _parts(path, number, files)]
    return pa.Table.from_batches(batches).combine_chunks()


def ordered_rows(folder: Path, paths: Sequence[Path], number: int, files: int) -> pa.Table:
    """The rows of a file to come that passed, in their order."""
    order = pa.array(np.load(_order_path(folder, number)))
    return file_rows(paths, number, files).drop_columns(CRC).take(order).combine_chunks()


def _parts(path: Path, number: int, files: int) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for index in range(number, reader.num_record_batches, files):
            yield reader.get_batch(index)


def _order_path(folder: Path, number: int) -> Path:
    return folder / f"order-{number:05}.npy"


def _repeated(ids: pa.ChunkedArray, order: Places) -> Flags:
    """Whether another row has the same id, of rows that are in this order."""
    in_order = ids.combine_chunks().take(pa.array(order))
    equal = np.asarray(pc.fill_null(pc.equal(in_order[1:], in_order[:-1]), False))
    found = np.zeros(len(order), np.bool_)
    found[order[1:][equal]] = True
    found[order[:-1][equal]] = True
    return found


def _keyed_wrong(ids: pa.ChunkedArray, keys: Sequence[pa.ChunkedArray]) -> Flags:
    """Whether a key is missing, blank or cannot be one; nearly always none is, which is seen of all ids at once."""
    texts = [key for key in keys if pa.types.is_string(key.type)]
    known = pc.fill_null(ids, "").combine_chunks()
    data, offsets = flat(known.cast(pa.binary()))
    inside = data[offsets[0] : offsets[-1]]
    wrong = np.asarray(pc.is_null(ids))
    if ((inside < 0x20) | (inside == 0x7F)).any() or np.diff(offsets).max(initial=0) > MAX_ID_BYTES:
        wrong = wrong | np.asarray(_is_bad(ids))
    for text in texts:
        wrong = wrong | np.asarray(_is_blank(text))
    return wrong.copy()


def _is_bad(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    is_long = pc.greater(pc.binary_length(ids), MAX_ID_BYTES)
    return pc.fill_null(pc.or_(is_long, pc.match_substring_regex(ids, _CONTROL)), False)


def _is_blank(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(pc.ascii_trim(text, " "), ""), False)


def _any(flags: Sequence[pa.ChunkedArray]) -> Flags:
    return np.logical_or.reduce([np.asarray(each) for each in flags])
