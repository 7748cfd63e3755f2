"""Erasing an entity: from every run in the store, from what was asked in vain, and from every version in Redis."""

import datetime as dt
import json
import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookup.misses import forget
from lookup.redaction import ERASED, own_values, redact
from lookup.rows import PRIOR_FIELD, StoredRows
from lookup.store import Store
from lookup.table import RedisTable, Remains
from lookup.turns import Wanted, alone, note_pending, pending
from lookup.writer import SteadyWriter
from schemas.content import canonical_json, sha256_text, write_atomically
from schemas.errors import InputError, Problem, UnavailableError
from schemas.head import Head
from schemas.keys import entity_id, key_values
from schemas.run import (
    CARRIED,
    ENTITY_ID,
    EXPLANATIONS,
    FEATURES,
    FINGERPRINTS,
    MANIFEST_FILE,
    PREDICTIONS,
    PRIORS,
    QUARANTINE,
    SCORED,
    SHADOW,
    WITHHELD,
    Counts,
    DataFile,
    RunManifest,
)

AUDIT_FILE = "erasures.jsonl"
_FOLDERS = (PREDICTIONS, FEATURES, QUARANTINE, SHADOW, EXPLANATIONS)
_ANY_VALUE = r"(?:[^:\\]|\\.)*"  # of a key column, as an id joins it


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
    """Remove all that is kept of an entity. Where it is killed, the next erasure or publication ends it.

    The store comes first: what Redis loses could come back from it, but not the other way round. Sources and bundles
    are not touched: what the sources still list is scored by the next run. A prior is removed where nobody else of the
    run is in its group; others stay as they were computed.

    Args:
        store: Of the pipeline.
        table: Of the same name.
        entity: Its id.
        by: Who asks for it.
        reason: Kept in the audit file, which never has the id.

    Raises:
        UnavailableError: Redis does not answer, a publication does not end, or a run is being staged: call again.
    """
    wanted = Wanted(entity, by, reason.replace(entity, ERASED) if entity else reason)
    with alone(store.folder):
        # Its id is kept until the end: in the layout `string`, its keys are named by nothing else.
        note_pending(store.folder, [*(each for each in pending(store.folder) if each.entity != entity), wanted])
        erased = _end_pending(store, table)[entity]
    _refuse_staging(store.folder / "runs", store.pipeline)
    return erased


def end_pending(store: Store, table: RedisTable) -> None:
    """End the erasures that were begun and did not come to their end.

    Raises:
        UnavailableError: Redis does not answer, or a publication does not end.
    """
    with alone(store.folder):
        _end_pending(store, table)


def _end_pending(store: Store, table: RedisTable) -> dict[str, Erased]:
    ended, left = {}, pending(store.folder)
    while left:
        ended[left[0].entity] = _erase(store, table, left[0])
        left = left[1:]
        note_pending(store.folder, left)
    return ended


def _erase(store: Store, table: RedisTable, wanted: Wanted) -> Erased:
    entity = wanted.entity
    record = _Record(store.folder / AUDIT_FILE, by=wanted.by, reason=wanted.reason)
    runs = rows = 0
    for manifest_file in sorted((store.folder / "runs").glob(f"[0-9]*/{MANIFEST_FILE}")):
        found = _erase_from_run(store, manifest_file.parent.name, entity, record)
        runs, rows = runs + (found > 0), rows + found
    misses = forget(store.folder.parent, store.pipeline, entity)
    versions = table.erase(entity, lambda head: _remains(store, head))
    erased = Erased(runs, rows, versions, misses)
    if any(erased):
        record.end(erased)
    return erased


def _remains(store: Store, head: Head) -> Remains:
    """What the store still has of a version's run."""
    manifest = store.manifest(head.run_id)
    return Remains(manifest.counts.rows, frozenset(StoredRows(store, manifest).priors))


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
    files, gone = _replaced(folder, manifest.files, _FOLDERS, ENTITY_ID, {entity})
    lost = {file.path.replace(FEATURES, FINGERPRINTS, 1) for file in manifest.files_in(FEATURES) if file not in files}
    files = [file for file in files if file.path not in lost]  # the next run scores the rest of these parts anew
    lonely = _lonely_priors(folder, manifest, [file for file in files if _is_in(file, PREDICTIONS)], entity)
    files, gone_priors = _replaced(folder, files, (PRIORS,), PRIOR_FIELD, lonely)
    if any(gone.values()) or any(gone_priors.values()):
        record.begin()
        told = [*manifest.files_in(FEATURES), *manifest.files_in(QUARANTINE)]
        redact(folder, own_values(folder, told, entity), entity)  # the old files tell what: so while they count
        counts = _counts_without(manifest.counts, _served(folder, manifest, entity), gone, _dealt_to(manifest, files))
        verified = _verified(store, manifest)
        changed = _amended(manifest, files).model_copy(update={"counts": counts, "verified_content": verified})
        write_atomically(folder / MANIFEST_FILE, changed.model_dump_json(indent=2) + "\n")
    _sweep(folder, {file.path for file in files})
    return sum(gone.values())


def _replaced(
    folder: Path, files: Sequence[DataFile], parts: Sequence[str], column: str, values: Collection[str]
) -> tuple[list[DataFile], dict[str, int]]:
    """The files, those of these parts of a run written anew without the values; and the rows that each part lost."""
    kept, gone = list(files), dict.fromkeys(parts, 0)
    for index, file in enumerate(files):
        part = file.path.partition("/")[0]
        if part in parts and (replaced := _without(folder, file, column, values)):
            kept[index] = replaced
            gone[part] += file.rows - replaced.rows
    return kept, gone


def _is_in(file: DataFile, part: str) -> bool:
    return file.path.startswith(f"{part}/")


def _lonely_priors(folder: Path, manifest: RunManifest, files: Sequence[DataFile], entity: str) -> set[str]:
    """The priors that could answer for the entity, and that no row of these prediction files is in the group of."""
    if not manifest.files_in(PRIORS):
        return set()
    of = dict(zip(manifest.serving.key, key_values(entity), strict=False))
    lonely = {}
    for (field, _), segment in zip(manifest.serving.prior_fields(entity), manifest.serving.segments, strict=False):
        values = (re.escape(entity_id([of[name]])) if name in segment else _ANY_VALUE for name in manifest.serving.key)
        lonely[field] = f"^(?:{':'.join(values)})$"
    for file in files:
        ids = pq.read_table(folder / file.path, columns=[ENTITY_ID]).column(ENTITY_ID) if lonely else ()
        lonely = {
            field: group for field, group in lonely.items() if not pc.any(pc.match_substring_regex(ids, group)).as_py()
        }
    return set(lonely)


def _verified(store: Store, manifest: RunManifest) -> str | None:
    """The content that the run's report is of, while it is of these files or of what they were before an erasure."""
    try:
        content = store.report(manifest.run_id).content
    except InputError:
        return None  # not verified yet: it will be as it is then
    return content if content in (manifest.content, manifest.verified_content) else None


def _served(folder: Path, manifest: RunManifest, entity: str) -> tuple[str, str] | None:
    """Status and variant of the entity's prediction; None where it has none."""
    for file in manifest.files_in(PREDICTIONS):
        columns, wanted = ["status", "variant"], [(ENTITY_ID, "==", entity)]
        if rows := pq.read_table(folder / file.path, columns=columns, filters=wanted).to_pylist():
            return str(rows[0]["status"]), str(rows[0]["variant"])
    return None


def _dealt_to(manifest: RunManifest, files: Sequence[DataFile]) -> set[str]:
    """The challengers whose files lost the entity."""
    before = {file.path for file in manifest.files}
    return {
        file.path.removeprefix(f"{SHADOW}/").partition("-")[0]
        for file in files
        if _is_in(file, SHADOW) and file.path not in before
    }


def _counts_without(
    counts: Counts, served: tuple[str, str] | None, gone: Mapping[str, int], dealt_to: Collection[str]
) -> Counts:
    status, variant = served or (None, None)
    changed = {
        "scored": counts.scored - (status == SCORED),
        "carried": counts.carried - (status == CARRIED),
        "withheld": counts.withheld - (status == WITHHELD),
        "quarantined": counts.quarantined - (gone[QUARANTINE] > 0 and status in (None, WITHHELD)),
        "erased": counts.erased + any(gone.values()),
        "variants": {name: rows - (status == SCORED and name == variant) for name, rows in counts.variants.items()},
        "dealt": {name: rows - (name in dealt_to) for name, rows in counts.dealt.items()},
    }
    return counts.model_copy(update=changed)


def _amended(manifest: RunManifest, files: Sequence[DataFile]) -> RunManifest:
    content = [file.sha256 for file in files if _is_in(file, PREDICTIONS)]
    return manifest.model_copy(update={"files": tuple(files), "content": sha256_text(canonical_json(content))})


def _without(folder: Path, file: DataFile, column: str, values: Collection[str]) -> DataFile | None:
    """The file written anew without the rows that have one of the values; None where none has."""
    path, wanted = folder / file.path, pa.array(sorted(values), pa.string())
    found = pq.read_table(path, columns=[column]).column(column)
    if not pc.any(pc.is_in(found, value_set=wanted)).as_py():
        return None
    with (
        pq.ParquetFile(path, page_checksum_verification=True) as parquet,
        SteadyWriter(path.parent, _next_name(path.name), parquet.schema_arrow) as writer,
    ):
        for batch in parquet.iter_batches():
            writer.write(batch.filter(pc.invert(pc.is_in(batch.column(column), value_set=wanted))))
        return writer.finish()


def _next_name(name: str) -> str:
    """A name that the run's files do not have yet: `part-00000.parquet`, `part-00000.e1.parquet`, and so on."""
    stem, *generation, suffix = name.split(".")
    number = int(generation[0].removeprefix("e")) + 1 if generation else 1
    return f"{stem}.e{number}.{suffix}"


def _sweep(folder: Path, kept: set[str]) -> None:
    """Remove what an erasure replaced, and what a killed one left half made."""
    for name in (*_FOLDERS, PRIORS, FINGERPRINTS):
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
