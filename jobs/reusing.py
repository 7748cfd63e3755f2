"""Scoring only what changed: a row that an earlier run scored as it is now is given that run's outputs."""

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.fingerprints import Prints, drawn, fingerprints
from jobs.predicting import NOTE, Predict
from lookup.crc import crc32
from lookup.rows import flat
from schemas.content import sha256_file
from schemas.errors import Problem
from schemas.run import ENTITY_ID, SCORED, DataFile

logger = logging.getLogger(__name__)

FINGERPRINT = "__fingerprint"
REUSED = "__reused"  # 0 scored, 1 reused, 2 reused and audited
PRINTS_SCHEMA = pa.schema([pa.field("fingerprint", pa.int64(), nullable=False)])
Places = npt.NDArray[np.int64]
_ADDED = [(FINGERPRINT, pa.int64()), (REUSED, pa.int8())]


@dataclass(frozen=True, slots=True)
class BasePart:
    """Files of the base run with the same rows in the same order; the predictions have others too."""

    predictions: DataFile
    prints: DataFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The earlier run whose outputs are reused.

    Attributes:
        run_id: Its id.
        folder: Its folder.
        parts: Its files, by number.
        engines: What scored, by bundle.
        buckets, files: How its rows are cut, and those of the new run.
    """

    run_id: str
    folder: Path
    parts: Mapping[int, BasePart]
    engines: Mapping[str, tuple[str, ...]]
    buckets: int
    files: int

    def known(self, rows: pa.RecordBatch, outputs: Sequence[str]) -> "Known | None":
        """What it has of the part that these rows are in; None where that is not as its manifest says."""
        ids = pc.cast(rows.column(ENTITY_ID).slice(0, 1), pa.binary())
        part = self.parts.get(int(crc32(*flat(ids))[0]) % self.buckets * self.files // self.buckets)
        if part is None:
            return None
        try:
            return _read(self.folder, part, outputs)
        except (OSError, pa.ArrowException) as err:  # removed meanwhile, too
            logger.warning("run %s: %s: its rows are scored anew", self.run_id, err)
            return None

    def is_same_engine(self, note: Mapping[str, Any]) -> bool:
        """Whether what scores now, as its note says, is what scored then."""
        return all(self.engines.get(model) == (name,) for model, name in note["engines"].items())


@dataclass(frozen=True)
class Known:
    """Rows that were scored.

    Attributes:
        prints: Their fingerprints.
        outputs: Of the rows, in the same order.
    """

    prints: Prints
    outputs: pa.RecordBatch

    def find(self, prints: Prints, before: int) -> Places:
        """Where among them each row is; -1 where it is not.

        Args:
            prints: Of rows in the order of these.
            before: How many rows came before them: where none was added or left, each is where it was.
        """
        found = np.full(len(prints), -1)
        there = self.prints[before : before + len(prints)]
        same = np.flatnonzero(there == prints[: len(there)])
        found[same] = same + before
        rest = np.flatnonzero(found < 0)
        if len(rest) and len(self.prints):
            found[rest] = self._searched(prints[rest])
        return found

    def _searched(self, prints: Prints) -> Places:
        order = np.argsort(prints)  # looked up in their order, they find what they need in the caches
        at = np.empty(len(prints), np.int64)
        at[order] = np.minimum(np.searchsorted(self._ordered, prints[order]), len(self.prints) - 1)
        return np.where(self._ordered[at] == prints, self._order[at], -1)

    @cached_property
    def _order(self) -> Places:
        return np.argsort(self.prints)

    @cached_property
    def _ordered(self) -> Prints:
        return self.prints[self._order]


def _read(folder: Path, part: BasePart, outputs: Sequence[str]) -> Known:
    """What is known of a part.

    Raises:
        OSError: a file is not there, or not what the manifest says.
    """
    for file in (part.predictions, part.prints):
        if sha256_file(folder / file.path) != file.sha256:
            raise OSError(f"{file.path} is not what it was")
    prints = np.asarray(pq.read_table(folder / part.prints.path, use_threads=False).column(0))
    rows = pq.read_table(folder / part.predictions.path, columns=[*outputs, "status"], use_threads=False)
    rows = rows.filter(pc.equal(rows.column("status"), SCORED)).select(outputs).combine_chunks()
    if rows.num_rows != len(prints):
        raise OSError(f"{part.predictions.path} has {rows.num_rows} scored rows, and {len(prints)} fingerprints")
    columns = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in rows.columns]
    return Known(prints, pa.RecordBatch.from_arrays(columns, schema=rows.schema))


@dataclass(frozen=True, slots=True)
class Reusing:
    """Adds what `predict` adds, and FINGERPRINT and REUSED, to the batches of one file.

    Attributes:
        predict: Asked for the rows that changed, for those that are audited, and for the first of each batch.
        base: The earlier run; None where there is none.
        columns: That a row is known by.
        share: Of the reused rows that are audited.
        seed: Draws them.
    """

    predict: Predict
    base: Base | None
    columns: tuple[str, ...]
    share: float
    seed: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        first = next((batch for batch in batches if batch.num_rows), None)
        if first is None:
            return
        known = self.base.known(first, self.predict.outputs) if self.base else None
        part = _Part(self, known)
        for found in self.predict(part.asked(batch for batch in chain([first], batches) if batch.num_rows)):
            yield part.answered(found)

    def added(self, columns: list[str]) -> list[str]:
        """As `Predict.added`."""
        return self.predict.added(columns)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A batch of which some rows were given to the model.

    Attributes:
        places: Of each row among the known ones; -1 where it is scored.
        rows: Those that were given.
    """

    batch: pa.RecordBatch
    prints: Prints
    places: Places
    rows: Places


class _Part:
    """One file's worth of batches on their way through the model."""

    def __init__(self, reusing: Reusing, known: Known | None) -> None:
        self._reusing, self._known = reusing, known
        self._pending: deque[_Asked] = deque()
        self._before = 0  # rows

    def asked(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Of each batch the rows that the model is asked for: at least one, so that it tells of itself."""
        for batch in batches:
            prints = fingerprints(batch.select(self._reusing.columns))
            places = self._known.find(prints, self._before) if self._known else np.full(len(prints), -1)
            self._before += len(prints)
            wanted = (places < 0) | drawn(prints, self._reusing.share, self._reusing.seed)
            wanted[0] = True
            self._pending.append(_Asked(batch, prints, places, np.flatnonzero(wanted)))
            yield batch if wanted.all() else batch.take(pa.array(self._pending[-1].rows))

    def answered(self, found: pa.RecordBatch) -> pa.RecordBatch:
        """The whole batch with what was found of some of its rows, and what is known of the others."""
        asked, note = self._pending.popleft(), json.loads(found.column(NOTE)[0].as_py())
        if "problems" in note or self._known is None:
            return _with(found, asked.prints[: found.num_rows], np.zeros(found.num_rows, np.int8))
        base = self._reusing.base
        if base and not base.is_same_engine(note):
            self._known = None  # equal bits were proven of either engine, but on the holdout alone
            (whole,) = self._reusing.predict(iter([asked.batch]))
            return _with(whole, asked.prints, np.zeros(len(asked.prints), np.int8))
        if wrong := self._differing(asked, found):
            problem = json.dumps({"problems": [wrong]})
            one = found.slice(0, 1).set_column(found.schema.get_field_index(NOTE), NOTE, pa.array([problem]))
            return _with(one, asked.prints[:1], np.zeros(1, np.int8))
        return self._merged(asked, found)

    def _differing(self, asked: _Asked, found: pa.RecordBatch) -> Problem | None:
        """What is wrong, where an audited row is scored otherwise than it was; bits are compared."""
        assert self._known is not None and self._reusing.base is not None  # noqa: S101, PT018  # seen by `answered`
        places = asked.places[asked.rows]
        audited = found.take(pa.array(np.flatnonzero(places >= 0)))
        before = self._known.outputs.take(pa.array(places[places >= 0]))
        now = audited.select(before.schema.names)
        wrong = np.flatnonzero(fingerprints(before) != fingerprints(now))
        if not len(wrong):
            return None
        row = pa.array(wrong[:1])
        return Problem(
            "REUSE_AUDIT",
            f"run {self._reusing.base.run_id}: {audited.column(ENTITY_ID)[int(wrong[0])]}",
            f"{before.take(row).to_pylist()[0]}; {len(wrong)} of {audited.num_rows} audited rows score otherwise",
            f"{now.take(row).to_pylist()[0]}, as now; score all rows with --full",
        )

    def _merged(self, asked: _Asked, found: pa.RecordBatch) -> pa.RecordBatch:
        """The whole batch: what was found of the rows that were given, and what is known of the others."""
        assert self._known is not None  # noqa: S101  # seen by `answered`
        rows, known = asked.batch.num_rows, self._known.outputs
        at = np.full(rows, -1)
        at[asked.rows] = np.arange(len(asked.rows))
        columns = list(asked.batch.columns)
        for name, column in zip(found.schema.names[len(columns) :], found.columns[len(columns) :], strict=True):
            if name in known.schema.names:
                index = np.where(at < 0, asked.places, at + known.num_rows)
                columns.append(pa.concat_arrays([known.column(name), column]).take(pa.array(index)))
            elif name == NOTE:
                columns.append(pa.repeat(column[0], rows))
            else:
                columns.append(column.take(pa.array(at, mask=at < 0)))
        reused = (asked.places >= 0).astype(np.int8)
        reused[asked.rows] *= 2
        return _with(pa.RecordBatch.from_arrays(columns, schema=found.schema), asked.prints, reused)


def _with(batch: pa.RecordBatch, prints: Prints, reused: npt.NDArray[np.int8]) -> pa.RecordBatch:
    for (name, kind), values in zip(_ADDED, (prints, reused), strict=True):
        batch = batch.append_column(name, pa.array(values, kind))
    return batch


def seed_of(run_id: str) -> int:
    """What the audit of a run is drawn by: another run draws other rows."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8])
