"""What the Python workers of Spark do with a partition: predict, and write files whose bytes follow from their rows."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.bundles import proven_bundle
from lookup.writer import SteadyWriter, write_rows
from schemas.errors import AlmanacError
from schemas.run import (
    CHAMPION,
    ENTITY_ID,
    FEATURES,
    INPUT_ROW,
    PREDICTIONS,
    QUARANTINE,
    REASONS,
    ROUTE_COLUMNS,
    SCORED,
    STAGE,
)

ROWS_PER_FILE = 250_000
BUCKET = "__bucket"
FILE = "__file"
NOTE = "__note"
NOT_FINITE = "not_finite"
_LISTED = pa.list_(pa.string())


def file_count(rows: int) -> int:
    """How many prediction files so many rows are cut into."""
    return max(1, -(-rows // ROWS_PER_FILE))


def prediction_schema(outputs: Sequence[str]) -> pa.Schema:
    """Columns of a prediction file: the entity id, the outputs, and how the entity was routed."""
    return pa.schema(
        [
            pa.field(ENTITY_ID, pa.string(), nullable=False),
            *(pa.field(name, pa.float64()) for name in outputs),
            *(pa.field(name, pa.string(), nullable=False) for name in ROUTE_COLUMNS),
        ]
    )


class Task(ABC):
    """Writes the files of one partition, and answers with one record about them."""

    @abstractmethod
    def write(self, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
        """Write the rows to files of that name. Schema and batches are without the columns that placed the rows."""

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            record = self._written(batches)
        except AlmanacError as err:
            # It travels in the record, because Spark would turn the exception into text.
            record = {"problems": err.problems}
        if record is not None:
            yield pa.RecordBatch.from_pylist([{"record": json.dumps(record)}])

    def _written(self, batches: Iterator[pa.RecordBatch]) -> dict[str, Any] | None:
        first = next((batch for batch in batches if batch.num_rows), None)
        if first is None:
            return None
        kept = [name for name in first.schema.names if name not in (BUCKET, FILE)]
        name = f"part-{first.column(FILE)[0].as_py():05}.parquet"
        rows = (batch.select(kept) for batch in chain([first], batches))
        return self.write(name, first.select(kept).schema, rows)


@dataclass(frozen=True, slots=True)
class QuarantineTask(Task):
    """Writes the rows that were set aside."""

    folder: Path

    def write(self, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
        return {"files": [write_rows(self.folder / QUARANTINE, name, schema, batches).model_dump()]}


@dataclass(frozen=True, slots=True)
class Predict:
    """Adds a bundle's outputs to batches of features, and a note: how the bundle proved itself, or why it could not."""

    bundle: Path
    digest: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        first = next((batch for batch in batches if batch.num_rows), None)
        if first is None:
            return
        try:
            bundle, difference = proven_bundle(self.bundle, self.digest)
            note = json.dumps({"difference": difference})
            for batch in chain([first], batches):
                yield _with(batch, bundle.predict(batch), note, [output.name for output in bundle.manifest.outputs])
        except AlmanacError as err:
            yield _with(first.slice(0, 1), np.array([np.nan]), json.dumps({"problems": err.problems}), ["score"])


def _with(batch: pa.RecordBatch, scores: Any, note: str, outputs: list[str]) -> pa.RecordBatch:
    added = [*(pa.field(name, pa.float64()) for name in outputs), pa.field(NOTE, pa.string())]
    columns = [*batch.columns, pa.array(scores), pa.repeat(note, batch.num_rows)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema([*batch.schema, *added]))


@dataclass(frozen=True, slots=True)
class Scoring(Task):
    """Writes predictions and features side by side, and what is set aside for its prediction apart.

    Attributes:
        folder: Of the run.
        model: Id of the bundle.
        outputs: Its outputs.
        predict: What adds them; None where the batches have them already.
    """

    folder: Path
    model: str
    outputs: tuple[str, ...]
    predict: Predict | None

    def write(self, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
        features = pa.schema([each for each in schema if each.name not in (*self.outputs, NOTE, REASONS)])
        with ExitStack() as files:
            kept = [
                files.enter_context(SteadyWriter(self.folder / folder, name, columns))
                for folder, columns in ((PREDICTIONS, prediction_schema(self.outputs)), (FEATURES, features))
            ]
            aside = _Aside(self.folder, name, features, self.outputs)
            for batch in self.predict(batches) if self.predict else batches:
                note = json.loads(batch.column(NOTE)[0].as_py())
                if "problems" in note:
                    return {"problems": note["problems"]}
                good = aside.split(batch)
                routed = [pa.repeat(value, good.num_rows) for value in (self.model, CHAMPION, SCORED)]
                columns = [good.column(ENTITY_ID), *(good.column(output) for output in self.outputs), *routed]
                kept[0].write(pa.RecordBatch.from_arrays(columns, schema=prediction_schema(self.outputs)))
                kept[1].write(good.select(features.names))
            done = [writer.finish() for writer in kept]
            if not done[0].rows:
                for file in done:
                    (self.folder / file.path).unlink()
            return {
                "files": [file.model_dump() for file in (*done, *aside.finish()) if file.rows],
                "difference": note["difference"],
                "rows": done[0].rows,
                "aside": aside.rows,
                "reasons": dict(aside.reasons),
            }


@dataclass(slots=True)
class _Aside:
    """The rows of a partition whose prediction is not finite or broke a rule."""

    folder: Path
    name: str
    features: pa.Schema
    outputs: tuple[str, ...]
    batches: list[pa.RecordBatch] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    rows: int = 0

    def split(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that go on; the others are kept here, with all their reasons."""
        finite = [pc.fill_null(pc.is_finite(batch.column(output)), False) for output in self.outputs]
        sound = finite[0]
        for each in finite[1:]:
            sound = pc.and_(sound, each)
        judged = batch.column(REASONS) if REASONS in batch.schema.names else None
        passed = sound if judged is None else pc.and_(sound, pc.equal(pc.list_value_length(judged), 0))
        if passed.true_count == batch.num_rows:
            return batch
        failed = pc.invert(passed)
        bad = batch.filter(failed)
        broken: list[list[str]] = judged.filter(failed).to_pylist() if judged is not None else [[]] * bad.num_rows
        listed = [
            [*([] if is_finite else [NOT_FINITE]), *rules]
            for is_finite, rules in zip(sound.filter(failed).to_pylist(), broken, strict=True)
        ]
        schema = quarantine_schema(self.features, self.outputs)
        told = {STAGE: pa.repeat(PREDICTIONS, len(listed)), REASONS: pa.array(listed, _LISTED)}
        columns = [
            told[name]
            if name in told
            else bad.column(name)
            if name in bad.schema.names
            else pa.nulls(len(listed), kind)
            for name, kind in zip(schema.names, schema.types, strict=True)
        ]
        self.batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
        self.reasons.update(reason for reasons in listed for reason in reasons)
        self.rows += len(listed)
        return batch.filter(passed)

    def finish(self) -> list[Any]:
        if not self.batches:
            return []
        name = f"{PREDICTIONS}-{self.name.removeprefix('part-')}"
        return [write_rows(self.folder / QUARANTINE, name, self.batches[0].schema, self.batches)]


def quarantine_schema(features: pa.Schema, outputs: Sequence[str]) -> pa.Schema:
    """Columns of every quarantine file: id, stage and reasons, then what is known of the row at that stage."""
    others = [pa.field(each.name, each.type) for each in features if each.name != ENTITY_ID]
    return pa.schema(
        [
            pa.field(ENTITY_ID, pa.string()),
            pa.field(STAGE, pa.string()),
            pa.field(REASONS, _LISTED),
            *others,
            *(pa.field(name, pa.float64()) for name in outputs),
            pa.field(INPUT_ROW, pa.string()),
        ]
    )
