"""The snapshot: which source files a run reads, proven present, whole and of the declared columns."""

import csv
import datetime as dt
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.content import canonical_json, sha256_file, sha256_text
from schemas.errors import InputError, Problem
from schemas.pipeline import ColumnType, Pipeline, Source
from schemas.run import SourceFile
from schemas.settings import Settings, expand

logger = logging.getLogger(__name__)

_TYPES: dict[str, ColumnType] = {
    "string": "string",
    "large_string": "string",
    "string_view": "string",
    "int32": "int32",
    "int64": "int64",
    "float": "float32",
    "double": "float64",
    "bool": "bool",
    "date32[day]": "date",
}
_HIDDEN = ("_", ".")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSnapshot:
    """The files of one source that are read, and the Arrow schema that all of them share.

    The partition column is not in the files, so it is not in `schema`.
    """

    name: str
    root: Path
    files: tuple[Path, ...]
    schema: pa.Schema
    fingerprints: tuple[SourceFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a run reads."""

    sources: Mapping[str, SourceSnapshot]

    @property
    def fingerprints(self) -> tuple[SourceFile, ...]:
        return tuple(file for source in self.sources.values() for file in source.fingerprints)

    @property
    def digest(self) -> str:
        """SHA-256 over every file's path and content."""
        return sha256_text(canonical_json([file.model_dump() for file in self.fingerprints]))


def take_snapshot(settings: Settings, pipeline: Pipeline, start: dt.date, end: dt.date | None = None) -> Snapshot:
    """Find and fingerprint the source files of a run.

    Args:
        settings: Where sources are.
        pipeline: Whose sources.
        start: The logical date, or the first day of a training window.
        end: The last day of a training window, every partition of which must be there.

    Raises:
        InputError: with every file that is missing, empty, damaged, half-written or of another schema.
    """
    sources: dict[str, SourceSnapshot] = {}
    problems: list[Problem] = []
    for name, source in pipeline.sources.items():
        where = f"source '{name}'"
        root = settings.root / expand(source.path, where=where)
        try:
            files = _files(source, root, where, start, end)
            schema = _common_schema(source, root, files, where)
            sources[name] = SourceSnapshot(
                name=name, root=root, files=files, schema=schema, fingerprints=tuple(_fingerprints(name, root, files))
            )
        except InputError as err:
            problems.extend(err.problems)
    if problems:
        raise InputError(*problems)
    return Snapshot(sources=sources)


def window(source: Source, start: dt.date, end: dt.date | None = None) -> list[dt.date]:
    """The partition days that are read: `days` from the logical date on, or all from start to end."""
    count = source.days if end is None else (end - start).days + 1
    return [start + dt.timedelta(days=offset) for offset in range(count)]


def _files(source: Source, root: Path, where: str, start: dt.date, end: dt.date | None) -> tuple[Path, ...]:
    if not root.exists():
        raise InputError(Problem("IN_NOT_FOUND", where, f"no such file or folder: {root}", "the source's path"))
    if not source.partition_by:
        return (root,) if root.is_file() else _files_of(root, where)
    days = window(source, start, end)
    folders = {day: root / f"{source.partition_by}={day.isoformat()}" for day in days}
    required = days[: source.days_required] if end is None else days
    present = [day for day in days if folders[day].is_dir()]
    # Days may be missing only at the end of the window: a hole is a partition that was lost.
    expected = [day for day in days if day in required or (present and day <= present[-1])]
    if missing := [day for day in expected if day not in present]:
        newest = max((p.name for p in root.glob(f"{source.partition_by}=*")), default="none")
        raise InputError(
            *(
                Problem("IN_STALE", where, f"no partition {folders[day].name}", f"it under {root}; newest is {newest}")
                for day in missing
            )
        )
    return tuple(file for day in present for file in _files_of(folders[day], f"{where} {folders[day].name}"))


def _files_of(folder: Path, where: str) -> tuple[Path, ...]:
    entries = sorted(folder.iterdir())
    if any(entry.name == "_temporary" for entry in entries):
        raise InputError(
            Problem("IN_INCOMPLETE", where, f"{folder}/_temporary: a write did not finish", "a finished folder")
        )
    files = tuple(entry for entry in entries if entry.is_file() and not entry.name.startswith(_HIDDEN))
    if not files:
        raise InputError(Problem("IN_EMPTY", where, f"no data file in {folder}", "at least one"))
    return files


def _common_schema(source: Source, root: Path, files: tuple[Path, ...], where: str) -> pa.Schema:
    schemas = {file: _schema(source, file, where) for file in files}
    problems = [
        problem for file, schema in schemas.items() for problem in _contract_problems(source, schema, where, file)
    ]
    first = next(iter(schemas.values()))
    for file, schema in schemas.items():
        if not schema.equals(first):
            different = sorted({str(field) for field in schema} ^ {str(field) for field in first})
            problems.append(
                Problem(
                    "IN_SCHEMA_MIXED",
                    f"{where} {file.relative_to(root.parent)}",
                    f"differs in {', '.join(different[:4])}",
                    f"the columns of {files[0].name}",
                )
            )
    if problems:
        raise InputError(*problems)
    return first


def _schema(source: Source, file: Path, where: str) -> pa.Schema:
    if file.stat().st_size == 0:
        raise InputError(Problem("IN_BAD_FILE", f"{where} {file}", "0 bytes", f"a {source.format} file"))
    if source.format == "csv":
        return pa.schema([(name, pa.string()) for name in csv_header(file, source.delimiter, where)])
    try:
        with pq.ParquetFile(file) as parquet:
            if parquet.metadata.num_rows == 0 and file.is_file():
                logger.warning("%s %s has no rows", where, file.name)
            return parquet.schema_arrow.remove_metadata()
    except (pa.ArrowException, OSError) as err:
        raise InputError(Problem("IN_BAD_FILE", f"{where} {file}", str(err).splitlines()[0], "a Parquet file")) from err


def csv_header(file: Path, delimiter: str, where: str) -> list[str]:
    """The column names in the first line of a CSV file.

    Raises:
        InputError: it is not UTF-8, has a nameless column, or one name twice.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            header = next(csv.reader(lines, delimiter=delimiter), [])
    except (UnicodeDecodeError, csv.Error) as err:
        raise InputError(Problem("IN_BAD_FILE", f"{where} {file}", str(err), "a UTF-8 CSV file")) from err
    if not header or any(not name.strip() for name in header):
        raise InputError(Problem("IN_BAD_FILE", f"{where} {file}:1", f"header {header}", "a name for every column"))
    return header


def _contract_problems(source: Source, schema: pa.Schema, where: str, file: Path) -> Iterator[Problem]:
    folded = [name.lower() for name in schema.names]
    for name in schema.names:
        if folded.count(name.lower()) > 1:
            yield Problem(
                "IN_COLUMN_DUPLICATE",
                f"{where} {file.name}",
                f"'{name}' more than once",
                "names that differ in more than case",
            )
    for name, expected in source.columns.items():
        if name == source.partition_by:
            continue
        if name not in schema.names:
            yield Problem("IN_COLUMN_MISSING", f"{where} {file.name}", f"no column '{name}'", f"{name}: {expected}")
            continue
        found = str(schema.field(name).type)
        kind = "timestamp" if found.startswith("timestamp[") else _TYPES.get(found)
        if kind != expected:
            yield Problem("IN_COLUMN_TYPE", f"{where} {file.name}: {name}", found, expected)


def _fingerprints(name: str, root: Path, files: tuple[Path, ...]) -> Iterator[SourceFile]:
    for file in files:
        path = os.path.relpath(file, root.parent)
        yield SourceFile(source=name, path=path, size_bytes=file.stat().st_size, sha256=sha256_file(file))
