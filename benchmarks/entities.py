"""A table's worth of made-up entities: two staged, verified runs, their files as scoring leaves them."""

import datetime as dt
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lookup.crc import crc32
from lookup.heads import head_to_be
from lookup.rows import StoredRows, flat
from lookup.store import Store
from lookup.writer import write_rows
from schemas.content import canonical_json, sha256_text
from schemas.head import ColumnSpec, Head
from schemas.keys import bucket_count
from schemas.report import CheckResult, Report, Verdict
from schemas.run import (
    CHAMPION,
    ENTITY_ID,
    MANIFEST_FILE,
    PREDICTIONS,
    REPORT_FILE,
    SCORED,
    Counts,
    DataFile,
    RunManifest,
)

TABLE = "bench"

_SEED = 20130701
_DATES = (dt.date(2013, 7, 1), dt.date(2013, 7, 2))
_SCORED_AT = dt.datetime(2013, 7, 1, 4, tzinfo=dt.UTC)
_MODEL = "delay-1"
_ROWS_PER_FILE = 250_000  # jobs/scoring.py's, which is not imported: it needs Spark
_SHORTEST, _LONGEST, _SERIAL = 12, 20, 8  # characters; with its first eight, an id is distinct
_SCHEMA = pa.schema(
    [
        pa.field(ENTITY_ID, pa.string(), nullable=False),
        pa.field("score", pa.float32()),
        *(pa.field(name, pa.string(), nullable=False) for name in ("model", "variant", "status")),
    ]
)


class Entities:
    """Two runs over the same entities, the later with the files of the earlier.

    An id is a letter and digits, 12 to 20 characters; of each entity there are a float32 score and its route.
    """

    def __init__(self, root: Path, count: int) -> None:
        self.count = count
        self.store = Store(root, TABLE)
        buckets = bucket_count(count)
        rng = np.random.default_rng(_SEED)
        rows = _in_order(_ids(count, rng), buckets).append_column(
            _SCHEMA.field("score"), pa.array(rng.random(count, np.float32))
        )
        self._ids = rows[ENTITY_ID]
        folders = [self.store.run_folder(f"{date}-{_SEED:012x}") for date in _DATES]
        files = _write(rows, folders[0] / PREDICTIONS, buckets)
        shutil.copytree(folders[0], folders[1], copy_function=os.link)
        self.runs = [_stage(folder, date, files, buckets) for folder, date in zip(folders, _DATES, strict=True)]

    def rows(self) -> StoredRows:
        """What a version is loaded from."""
        return StoredRows(self.store, self.runs[0])

    def head(self, version: int) -> Head:
        """A head that makes that version live; its release has the same number."""
        return head_to_be(self.runs[0]).model_copy(update={"version": version, "token": version, "release": version})

    def some_ids(self, count: int) -> list[str]:
        """Ids drawn at random, the same ones each time."""
        drawn = np.random.default_rng(_SEED).integers(0, self.count, count)
        return [str(entity) for entity in self._ids.take(pa.array(drawn)).to_pylist()]


def _ids(count: int, rng: np.random.Generator) -> Any:
    """Distinct ids as an Arrow array; the first characters are a letter and a serial number."""
    characters = rng.integers(ord("0"), ord("9") + 1, (count, _LONGEST), np.uint8)
    serial = rng.permutation(count)
    for place in range(1, _SERIAL):
        characters[:, place] = serial // 10 ** (place - 1) % 10 + ord("0")
    characters[:, 0] = ord("c")
    lengths = rng.integers(_SHORTEST, _LONGEST + 1, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    data = characters[np.arange(_LONGEST) < lengths[:, None]]
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data))


def _in_order(ids: Any, buckets: int) -> Any:
    bucket = crc32(*flat(ids)).astype(np.int64) % buckets
    return pa.table({"bucket": bucket, ENTITY_ID: ids}).sort_by([("bucket", "ascending"), (ENTITY_ID, "ascending")])


def _write(rows: Any, folder: Path, buckets: int) -> tuple[DataFile, ...]:
    """Files of whole buckets."""
    count = max(1, -(-rows.num_rows // _ROWS_PER_FILE))
    bounds = np.searchsorted(rows["bucket"].to_numpy() * count // buckets, np.arange(count + 1))
    written = []
    for number, (start, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        part = rows.slice(start, end - start).combine_chunks()
        routed = [pa.repeat(value, part.num_rows) for value in (_MODEL, CHAMPION, SCORED)]
        columns = [part[name].combine_chunks() for name in (ENTITY_ID, "score")]
        batch = pa.RecordBatch.from_arrays([*columns, *routed], schema=_SCHEMA)
        written.append(write_rows(folder, f"part-{number:05}.parquet", _SCHEMA, [batch]))
    return tuple(written)


def _stage(folder: Path, date: dt.date, files: tuple[DataFile, ...], buckets: int) -> RunManifest:
    """Manifest and report of a run that passed."""
    rows = sum(file.rows for file in files)
    manifest = RunManifest(
        pipeline=TABLE,
        run_id=folder.name,
        date=date,
        scored_at=_SCORED_AT,
        declaration="0" * 64,
        models={CHAMPION: _MODEL},
        outputs=(ColumnSpec(name="score", type="float32"),),
        buckets=buckets,
        counts=Counts(entities=rows, scored=rows, quarantined=0, collapsed=0),
        content=sha256_text(canonical_json([file.sha256 for file in files])),
        files=files,
        sources=(),
        parity=(),
    )
    check = CheckResult(
        name="coverage", family="coverage", verdict=Verdict.PASS, observed=f"{rows}", expected=f"{rows}"
    )
    report = Report(
        pipeline=TABLE,
        run_id=manifest.run_id,
        content=manifest.content,
        verified_at=_SCORED_AT,
        compared_with=None,
        verdict=Verdict.PASS,
        checks=(check,),
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json())
    (folder / REPORT_FILE).write_text(report.model_dump_json())
    return manifest
