"""Erasing an entity: from every run in the store, from what was asked in vain, and from every version in Redis."""

import datetime as dt
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookup.connect import Client, redis_errors
from lookup.misses import forget
from lookup.redaction import ERASED, own_values, redact
from lookup.store import Store
from lookup.table import RedisTable
from lookup.writer import SteadyWriter
from schemas.content import canonical_json, sha256_text, write_atomically
from schemas.errors import Problem, UnavailableError
from schemas.run import ENTITY_ID, FEATURES, MANIFEST_FILE, PREDICTIONS, QUARANTINE, DataFile, RunManifest

AUDIT_FILE = "erasures.jsonl"
_LOCK_FILE = ".erasures.lock"
_REWRITE_SECONDS = 300.0
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
    record = _Record(store.folder / AUDIT_FILE, by=by, reason=reason.replace(entity, ERASED) if entity else reason)
    with _alone(store.folder):
        runs = rows = 0
        for manifest_file in sorted((store.folder / "runs").glob(f"[0-9]*/{MANIFEST_FILE}")):
            found = _erase_from_run(store, manifest_file.parent.name, entity, record)
            runs, rows = runs + (found > 0), rows + found
        misses = forget(store.folder.parent, store.pipeline, entity)
        versions = table.erase(entity, lambda head: store.manifest(head.run_id).counts.scored)
        erased = Erased(runs, rows, versions, misses)
        if any(erased):
            record.end(erased)
    _refuse_staging(store.folder / "runs", store.pipeline)
    return erased


def rewrite_log(client: Client, *, seconds: float = _REWRITE_SECONDS) -> None:
    """Make a Redis write its append-only file anew, from what it holds now, and see that it did.

    Raises:
        UnavailableError: it does not answer, or the file was not written in that time.
    """
    deadline = time.monotonic() + seconds
    with redis_errors("rewriting the append-only file"):
        _wait_for_rewrite(client, deadline)  # one that began before the erasure may have the row
        client.bgrewriteaof()
        state = _wait_for_rewrite(client, deadline)
    if state["aof_last_bgrewrite_status"] != "ok":
        raise _not_rewritten("it failed; see the server's log")


def _wait_for_rewrite(client: Client, deadline: float) -> dict[str, Any]:
    while True:
        state: dict[str, Any] = client.info("persistence")
        if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
            return state
        if time.monotonic() > deadline:
            raise _not_rewritten("it takes too long")
        time.sleep(0.02)


def _not_rewritten(found: str) -> UnavailableError:
    expected = "a file without the erased row; erase again"
    return UnavailableError(Problem("ERASE_LOG", "the store's own Redis: append-only file", found, expected))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One erasure at a time: of two that rewrite a run at once, the later would bring back what the earlier removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Record:
    """Lines of one erasure in the audit file: one before its first change, so that a kill hides none."""

    def __init__(self, path: Path, *, by: str, reason: str) -> None:
        self._path, self._by, self._reason = path, by, reason
        self._begun = False

    def begin(self) -> None:
        """Note who and why, once."""
        if not self._begun:
            self._begun = True
            self._append({"event": "begun"})

    def end(self, erased: Erased) -> None:
        """Note how much it was."""
        self._append({"event": "done", **erased._asdict()})

    def _append(self, what: dict[str, Any]) -> None:
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": at, "by": self._by, "reason": self._reason, **what}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _erase_from_run(store: Store, run_id: str, entity: str, record: _Record) -> int:
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
        record.begin()
        told = [*manifest.files_in(FEATURES), *manifest.files_in(QUARANTINE)]
        redact(folder, own_values(folder, told, entity), entity)  # the old files tell what: so while they count
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
