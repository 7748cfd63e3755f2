"""What the Python workers of Spark do with a partition: predict, and write files whose bytes follow from their rows."""

import json
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.contributions import EXPLANATION_SCHEMA
from jobs.dealing import OTHER, VARIANT
from jobs.explaining import EXPLAINED, Explainer
from jobs.logs import log_in_worker
from jobs.predicting import ERROR, NOTE, Contender, Predict, other_output, others_in
from jobs.reusing import FINGERPRINT, PRINTS_SCHEMA, REUSED, Reusing
from jobs.sparing import spare_modules
from lookup.writer import SteadyWriter, write_rows
from schemas.errors import AlmanacError
from schemas.run import (
    CHAMPION,
    ENTITY_ID,
    EXPLANATIONS,
    FEATURES,
    FINGERPRINTS,
    INPUT_ROW,
    PREDICTIONS,
    QUARANTINE,
    REASONS,
    ROUTE_COLUMNS,
    SCORED,
    SHADOW,
    STAGE,
)

logger = logging.getLogger(__name__)

ROWS_PER_FILE = 250_000
BUCKET = "__bucket"
FILE = "__file"
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


def shadow_schema(outputs: Sequence[str]) -> pa.Schema:
    """Columns of a file of what is predicted and not served."""
    return pa.schema([each for each in prediction_schema(outputs) if each.name != "status"])


def told(work: Callable[[], dict[str, Any] | None]) -> Iterator[pa.RecordBatch]:
    """The record of some work of a task, if it has one; or of what kept it from its end."""
    try:
        record = work()
    except AlmanacError as err:
        # It travels in the record, because Spark would turn the exception into text.
        record = {"problems": err.problems}
    except OSError as err:  # so does a full disk; the other files of the run would not find room either
        record = {"os_error": [err.errno, err.strerror or str(err), err.filename]}
    if record is not None:
        yield pa.RecordBatch.from_pylist([{"record": json.dumps(record)}])
    spare_modules()


class Task(ABC):
    """Writes the files of one partition, and answers with one record about them."""

    @abstractmethod
    def write(self, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
        """Write the rows to files of that name. Schema and batches are without the columns that placed the rows."""

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return told(lambda: self._written(batches))

    def _written(self, batches: Iterator[pa.RecordBatch]) -> dict[str, Any] | None:
        log_in_worker()
        started = time.monotonic()
        first = next((batch for batch in batches if batch.num_rows), None)
        if first is None:
            return None
        kept = [name for name in first.schema.names if name not in (BUCKET, FILE)]
        name = f"part-{first.column(FILE)[0].as_py():05}.parquet"
        rows = (batch.select(kept) for batch in chain([first], batches))
        record = self.write(name, first.select(kept).schema, rows)
        files = ", ".join(f"{file['path']} {file['rows']} rows" for file in record.get("files", ()))
        logger.info("%s, %.1f s", files or "no file", time.monotonic() - started)
        return record


@dataclass(frozen=True, slots=True)
class QuarantineTask(Task):
    """Writes the rows that were set aside."""

    folder: Path

    def write(self, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
        return {"files": [write_rows(self.folder / QUARANTINE, name, schema, batches).model_dump()]}


@dataclass(frozen=True, slots=True)
class Scoring(Task):
    """Writes predictions and features side by side, and apart what is set aside for its prediction, and what the models
    predict that do not serve.

    Attributes:
        folder: Of the run.
        contenders: Variant -> its bundle.
        outputs: Of all of them.
        predict: What adds them; None where the batches have them already.
        explain: What explains them, where that is asked for.
        has_prints: Whether the rows have fingerprints then, which are kept beside their features.
    """

    folder: Path
    contenders: Mapping[str, Contender]
    outputs: tuple[str, ...]
    predict: Predict | Reusing | None
    explain: Explainer | None = None
    has_prints: bool = False

    def write(self, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
        others = others_in(schema.names)
        own = {*self.outputs, ERROR, NOTE, REASONS, VARIANT, EXPLAINED, FINGERPRINT, REUSED, *others}
        own |= {other_output(column, output) for column in others for output in self.outputs}
        features = pa.schema([each for each in schema if each.name not in own])
        variants: Counter[str] = Counter()
        reused: Counter[int] = Counter()
        with ExitStack() as files:
            wanted = self._wanted(name, features, others)
            kept = [files.enter_context(SteadyWriter(self.folder / folder, *each)) for folder, *each in wanted]
            shadows = slice(2, 2 + len(others))
            aside = Aside(self.folder, name, features, self.outputs)
            for batch in self.predict(batches) if self.predict else batches:
                note = json.loads(batch.column(NOTE)[0].as_py())
                if "problems" in note:
                    return {"problems": note["problems"]}
                good = aside.split(batch)
                kept[0].write(self._predictions(good, variants))
                kept[1].write(good.select(features.names))
                for writer, column in zip(kept[shadows], others, strict=True):
                    writer.write(self._others(good, column))
                if self.explain:
                    kept[shadows.stop].write(self.explain(good))
                if self.has_prints:
                    kept[-1].write(pa.RecordBatch.from_arrays([good.column(FINGERPRINT)], schema=PRINTS_SCHEMA))
                    reused.update(tally(good.column(REUSED)))
            done = [writer.finish() for writer in kept]
            for file in done:
                if not file.rows:
                    (self.folder / file.path).unlink()
            return {
                "files": [file.model_dump() for file in (*done, *aside.finish()) if file.rows],
                "differences": note["differences"],
                "engines": note["engines"],
                "rows": done[0].rows,
                "variants": dict(variants),
                "dealt": {
                    column.removeprefix(OTHER): file.rows for column, file in zip(others, done[shadows], strict=True)
                },
                "aside": aside.rows,
                "reasons": dict(aside.reasons),
                "reused": reused[1] + reused[2],
                "audited": reused[2],
            }

    def _wanted(self, name: str, features: pa.Schema, others: Sequence[str]) -> list[tuple[str, str, pa.Schema]]:
        """Folder, name and columns of each file; the first two and the last two are one each, if at all."""
        shadow = shadow_schema(self.outputs)
        return [
            (PREDICTIONS, name, prediction_schema(self.outputs)),
            (FEATURES, name, features),
            *((SHADOW, f"{column.removeprefix(OTHER)}-{name}", shadow) for column in others),
            *([(EXPLANATIONS, name, EXPLANATION_SCHEMA)] if self.explain else []),
            *([(FINGERPRINTS, name, PRINTS_SCHEMA)] if self.has_prints else []),
        ]

    def _predictions(self, good: pa.RecordBatch, variants: Counter[str]) -> pa.RecordBatch:
        """The rows as they are served; how many each variant has is counted."""
        if VARIANT in good.schema.names:
            variant = good.column(VARIANT)
            variants.update(tally(variant))
        else:
            variant = pa.repeat(CHAMPION, good.num_rows)
        columns = [good.column(ENTITY_ID), *(good.column(output) for output in self.outputs), self._models(variant)]
        schema = prediction_schema(self.outputs)
        return pa.RecordBatch.from_arrays([*columns, variant, pa.repeat(SCORED, good.num_rows)], schema=schema)

    def _others(self, good: pa.RecordBatch, column: str) -> pa.RecordBatch:
        """What the other model predicts, of the rows that have one."""
        rows = good.filter(good.column(column).is_valid())
        outputs = (rows.column(other_output(column, output)) for output in self.outputs)
        variant = rows.column(column)
        columns = [rows.column(ENTITY_ID), *outputs, self._models(variant), variant]
        return pa.RecordBatch.from_arrays(columns, schema=shadow_schema(self.outputs))

    def _models(self, variant: pa.Array) -> pa.Array:
        """The bundle of each row."""
        named = pa.array([*self.contenders], pa.string())
        ids = pa.array([one.id for one in self.contenders.values()], pa.string())
        return ids.take(pc.index_in(variant, value_set=named))


@dataclass(slots=True)
class Aside:
    """The rows of a partition whose prediction is not finite or broke a rule, or whose model raised."""

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
            [*([f"error: {error}"] if error else [] if is_finite else [NOT_FINITE]), *rules]
            for error, is_finite, rules in zip(
                bad.column(ERROR).to_pylist(), sound.filter(failed).to_pylist(), broken, strict=True
            )
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


def tally(values: pa.Array | pa.ChunkedArray) -> dict[Any, int]:
    """How often each value is there."""
    return {each["values"]: each["counts"] for each in pc.value_counts(values).to_pylist()}


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
