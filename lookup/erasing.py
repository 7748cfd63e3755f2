"""Erasing an entity: from every run in the store, from what was asked in vain, and from every version in Redis."""

import datetime as dt
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookup.misses import forget
from lookup.store import Store
from lookup.table import RedisTable
from lookup.writer import SteadyWriter
from schemas.content import canonical_json, sha256_text, write_atomically
from schemas.errors import Problem, UnavailableError
from schemas.run import ENTITY_ID, FEATURES, MANIFEST_FILE, PREDICTIONS, QUARANTINE, DataFile, RunManifest

AUDIT_FILE = "erasures.jsonl"
_FOLDERS = (PREDICTIONS, FEATURES, QUARANTINE)


class Erased(NamedTuple):
    """Where an entity was, and is no more.

    Attributes:
        runs: Of the store.
        rows: Of their files.
        versions: In Redis.
        misses: How often it had been asked for in vain.
    """

    runs: int
    rows: int
    versions: int
    misses: int


def erase(store: Store, table: RedisTable, entity: str, *, by: str, reason: str = "") -> Erased:
    """Remove all that is kept of an entity. Where it is killed, the next call goes on.

    The store comes first: what Redis loses could come back from it, but not the other way round. Sources and bundles
    are not touched: what the sources still list is scored by the next run.

    Args:
        store: Of the pipeline.
        table: Of the same name.
        entity: Its id.
        by: Who asks for it.
        reason: Kept in the audit file, which never has the id.

    Raises:
        UnavailableError: Redis does not answer, or a run is being staged: call again when it is.
    """
    runs = rows = 0
    for manifest_file in sorted((store.folder / "runs").glob(f"[0-9]*/{MANIFEST_FILE}")):
        found = _erase_from_run(store, manifest_file.parent.name, entity)
        runs, rows = runs + (found > 0), rows + found
    misses = forget(store.folder.parent, store.pipeline, entity)
    versions = table.erase(entity, lambda head: store.manifest(head.run_id).counts.scored)
    erased = Erased(runs, rows, versions, misses)
    if any(erased):
        _audit(store.folder / AUDIT_FILE, by=by, reason=reason, erased=erased)
    _refuse_staging(store.folder / "runs", store.pipeline)
    return erased


def _erase_from_run(store: Store, run_id: str, entity: str) -> int:
    """Rows that were removed. The manifest is the one commit: the files that it does not list go."""
    folder, manifest = store.run_folder(run_id), store.manifest(run_id)
    gone: dict[str, int] = dict.fromkeys(_FOLDERS, 0)
    files = list(manifest.files)
    for index, file in enumerate(files):
        name = file.path.partition("/")[0]
        if name in _FOLDERS and (replaced := _without(folder, file, entity)):
            files[index] = replaced
            gone[name] += file.rows - replaced.rows
    if any(gone.values()):
        changed = _amended(manifest, files, was_scored=gone[PREDICTIONS] > 0, was_aside=gone[QUARANTINE] > 0)
        write_atomically(folder / MANIFEST_FILE, changed.model_dump_json(indent=2) + "\n")
    _sweep(folder, {file.path for file in files})
    return sum(gone.values())


def _amended(manifest: RunManifest, files: list[DataFile], *, was_scored: bool, was_aside: bool) -> RunManifest:
    counts = manifest.counts
    content = [file.sha256 for file in files if file.path.startswith(f"{PREDICTIONS}/")]
    return manifest.model_copy(
        update={
            "files": tuple(files),
            "content": sha256_text(canonical_json(content)),
            "verified_content": manifest.verified_content or manifest.content,
            "counts": counts.model_copy(
                update={
                    "scored": counts.scored - was_scored,
                    "quarantined": counts.quarantined - was_aside,
                    "erased": counts.erased + 1,
                }
            ),
        }
    )


def _without(folder: Path, file: DataFile, entity: str) -> DataFile | None:
    """The file written anew without the entity; None where it is not in it."""
    path = folder / file.path
    ids = pq.read_table(path, columns=[ENTITY_ID]).column(ENTITY_ID)
    if not pc.any(pc.equal(ids, entity)).as_py():
        return None
    with (
        pq.ParquetFile(path, page_checksum_verification=True) as parquet,
        SteadyWriter(path.parent, _next_name(path.name), parquet.schema_arrow) as writer,
    ):
        for batch in parquet.iter_batches():
            writer.write(_others(batch, entity))
        return writer.finish()


def _others(batch: pa.RecordBatch, entity: str) -> pa.RecordBatch:
    return batch.filter(pc.fill_null(pc.not_equal(batch.column(ENTITY_ID), entity), True))


def _next_name(name: str) -> str:
    """A name that the run's files do not have yet: `part-00000.parquet`, `part-00000.e1.parquet`, and so on."""
    stem, *generation, suffix = name.split(".")
    number = int(generation[0].removeprefix("e")) + 1 if generation else 1
    return f"{stem}.e{number}.{suffix}"


def _sweep(folder: Path, kept: set[str]) -> None:
    """Remove what an erasure replaced, and what a killed one left half made."""
    for name in _FOLDERS:
        for path in (folder / name).glob("*"):
            if f"{name}/{path.name}" not in kept:
                path.unlink()


def _audit(path: Path, *, by: str, reason: str, erased: Erased) -> None:
    line = {"at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), "by": by, "reason": reason, **erased._asdict()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _refuse_staging(runs: Path, pipeline: str, *, clock: Callable[[], float] = time.time) -> None:
    """Say so where a run is being staged: its sources may have been read before the entity left them.

    Raises:
        UnavailableError: one is.
    """
    if staging := [path for path in runs.glob(".*-*") if path.is_dir()]:
        minutes = min(clock() - path.stat().st_mtime for path in staging) / 60
        where, found = f"{pipeline}: {staging[0].name}", f"a run was being staged {minutes:.0f} minutes ago"
        expected = "none: erase again when it has ended, or remove that folder where it was killed"
        raise UnavailableError(Problem("ERASE_STAGING", where, found, expected))
