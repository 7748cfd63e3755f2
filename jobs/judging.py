"""The key rules of `validation.quarantine.judge_rows` on Arrow rows: which of a file's rows pass, in which order."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.gathering import Places, gathered
from jobs.projection import Projection
from jobs.reading import CRC, made_whole
from lookup.rows import flat
from lookup.writer import without_dictionaries
from schemas.keys import MAX_ID_BYTES
from schemas.run import ENTITY_ID, REASONS
from validation.quarantine import BAD_KEY, BLANK_KEY, DUPLICATE_KEY, NULL_KEY

KEY_REASONS = (NULL_KEY, BLANK_KEY, BAD_KEY, DUPLICATE_KEY)  # in the order in which a row lists them, rules behind
_CONTROL = r"[\x00-\x1f\x7f]"
_AT = "__at"

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Judge:
    """Finds the rows of a file to come that pass, and their order; sets the others aside.

    Attributes:
        folder: Where both are written.
        paths: The files of rows.
        projection: The features.
        key: The columns that name an entity.
        buckets: Of the lookup table.
    """

    folder: Path
    paths: tuple[Path, ...]
    projection: Projection
    key: tuple[str, ...]
    buckets: int

    def __call__(self, number: int) -> dict[str, Any]:
        needed = None if self.projection.rules else [*self.key, ENTITY_ID, CRC]
        table = file_rows(self.paths, number, needed)
        ids, keys = table.column(ENTITY_ID), [table.column(name) for name in self.key]
        bucket = pa.array(np.asarray(table.column(CRC)) % np.uint32(self.buckets))
        order = np.asarray(
            pc.sort_indices(pa.table({"bucket": bucket, "id": ids}), [("bucket", "ascending"), ("id", "ascending")])
        ).astype(np.int64)
        suspect = _keyed_wrong(ids, keys) | _repeated(ids, order)
        for _, rule in self.projection.rules:
            suspect |= ~_holds(rule(table))
        aside, failed, collapsed = "", 0, 0
        if suspect.any():
            rows = self._distinct(file_rows(self.paths, number), np.flatnonzero(suspect))
            reasons = self._reasons(rows)
            kept = pa.array([not each for each in reasons])
            suspect[np.asarray(rows.column(_AT).filter(kept))] = False
            order = order[~suspect[order]]
            failed, collapsed = kept.false_count, table.num_rows - len(order) - kept.false_count
            aside = str(self._set_aside(rows, reasons, number)) if failed else ""
        with made_whole(_order_path(self.folder, number)) as half:
            order.tofile(half)
        return {"passed": len(order), "failed": failed, "collapsed": collapsed, "aside": aside}

    def _distinct(self, table: pa.RecordBatch, places: Places) -> pa.Table:
        """The different rows among these, each with the place of one of its copies."""
        names = [*self.projection.schema.names, ENTITY_ID]
        rows = pa.table(table.select(names)).take(pa.array(places))
        rows = rows.cast(without_dictionaries(rows.schema)).append_column(_AT, pa.array(places))
        grouped = rows.group_by(names, use_threads=False).aggregate([(_AT, "min")])
        return grouped.rename_columns({f"{_AT}_min": _AT}).select([*names, _AT])

    def _reasons(self, rows: pa.Table) -> list[list[str]]:
        ids = rows.column(ENTITY_ID).to_pylist()
        copies = Counter(ids)
        texts = [pc.cast(rows.column(name), pa.string()) for name in self.key]
        applies = {
            NULL_KEY: _any([pc.is_null(text) for text in texts]),
            BLANK_KEY: _any([_is_blank(text) for text in texts]),
            BAD_KEY: np.asarray(_is_bad(rows.column(ENTITY_ID))),
            DUPLICATE_KEY: np.array([id_ is not None and copies[id_] > 1 for id_ in ids], np.bool_),
        }
        listed = [*applies.items(), *((name, ~_holds(rule(rows))) for name, rule in self.projection.rules)]
        return [[name for name, flags in listed if flags[at]] for at in range(len(ids))]

    def _set_aside(self, rows: pa.Table, reasons: list[list[str]], number: int) -> Path:
        listed = pa.array(reasons, pa.list_(pa.string()))
        failed = rows.drop_columns(_AT).append_column(REASONS, listed)
        path = self.folder / f"aside-{number:05}.parquet"
        with made_whole(path) as half:
            pq.write_table(failed.filter(pa.array([bool(each) for each in reasons])), half)
        return path


def file_rows(paths: Sequence[Path], number: int, names: Sequence[str] | None = None) -> pa.RecordBatch:
    """The rows of a file to come, in the order of the source; of these columns, or of all."""
    table = pa.Table.from_batches([_part(path, number) for path in paths])
    table = table.select(names) if names else table
    columns = [pa.concat_arrays(column.chunks) for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def ordered_rows(folder: Path, paths: Sequence[Path], number: int) -> pa.RecordBatch:
    """The rows of a file to come that passed, in their order."""
    rows = file_rows(paths, number)
    return gathered(rows.drop_columns([CRC]), np.fromfile(_order_path(folder, number), np.int64))


def _part(path: Path, number: int) -> pa.RecordBatch:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(number)


def _order_path(folder: Path, number: int) -> Path:
    return folder / f"order-{number:05}.bin"


def _repeated(ids: pa.Array, order: Places) -> Flags:
    """Whether another row has the same id, of rows that are in this order."""
    in_order = ids.take(pa.array(order))
    equal = np.asarray(pc.fill_null(pc.equal(in_order[1:], in_order[:-1]), False))
    found = np.zeros(len(order), np.bool_)
    found[order[1:][equal]] = True
    found[order[:-1][equal]] = True
    return found


def _keyed_wrong(ids: pa.Array, keys: Sequence[pa.Array]) -> Flags:
    """Whether a key is missing, blank or cannot be one; nearly always none is, which is seen of all ids at once."""
    texts = [key for key in keys if pa.types.is_string(key.type)]
    known = pc.fill_null(ids, "")
    data, offsets = flat(known.cast(pa.binary()))
    inside = data[offsets[0] : offsets[-1]]
    wrong = np.asarray(pc.is_null(ids))
    if ((inside < 0x20) | (inside == 0x7F)).any() or np.diff(offsets).max(initial=0) > MAX_ID_BYTES:
        wrong = wrong | np.asarray(_is_bad(ids))
    for text in texts:
        wrong = wrong | np.asarray(_is_blank(text))
    return wrong.copy()


def _is_bad(ids: pa.Array) -> pa.Array:
    is_long = pc.greater(pc.binary_length(ids), MAX_ID_BYTES)
    return pc.fill_null(pc.or_(is_long, pc.match_substring_regex(ids, _CONTROL)), False)


def _is_blank(text: pa.Array) -> pa.Array:
    return pc.fill_null(pc.equal(pc.ascii_trim(text, " "), ""), False)


def _holds(found: Any) -> Flags:
    """What is not known does not hold."""
    return np.asarray(pc.fill_null(found, False), np.bool_)


def _any(flags: Sequence[pa.Array]) -> Flags:
    return np.asarray(np.logical_or.reduce([np.asarray(each) for each in flags]), np.bool_)
