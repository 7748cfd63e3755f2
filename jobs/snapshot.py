"""The snapshot: which source files a run reads, proven present, whole and of the declared columns."""

import codecs
import csv
import datetime as dt
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.errors import PySparkTypeError
from pyspark.sql.pandas.types import from_arrow_type

from schemas.content import canonical_json, sha256_file, sha256_text
from schemas.errors import InputError, Problem
from schemas.pipeline import ColumnType, Pipeline, Source
from schemas.run import SourceFile
from schemas.settings import Settings, expand

logger = logging.getLogger(__name__)

_TYPES: dict[str, ColumnType] = {
    "string": "string",
    "int32": "int32",
    "int64": "int64",
    "float": "float32",
    "double": "float64",
    "bool": "bool",
    "date32[day]": "date",
    "timestamp[ms]": "timestamp",
    "timestamp[us]": "timestamp",
}
_HIDDEN = ("_", ".")
_PATTERN = frozenset("{}[]*?\\")  # SparkHadoopUtil.isGlobPath: a path with any of these is not read as it stands
_MAX_PRECISION = 38  # of Spark's decimals
_BLOCK_BYTES = 1 << 20


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
        except OSError as err:  # no permission, a name too long, a file that went away meanwhile
            problems.append(
                Problem("IN_UNREADABLE", where, f"{err.strerror}: {err.filename}", "files that can be read")
            )
    if problems:
        raise InputError(*problems)
    return Snapshot(sources=sources)


def window(source: Source, start: dt.date, end: dt.date | None = None) -> list[dt.date]:
    """The partition days that are read: `days` from the logical date on, or all from start to end."""
    count = source.days if end is None else (end - start).days + 1
    return [start + dt.timedelta(days=offset) for offset in range(count)]


def _files(source: Source, root: Path, where: str, start: dt.date, end: dt.date | None) -> tuple[Path, ...]:
    _refuse_patterns(root, where)
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
    visible = [entry for entry in entries if not entry.name.startswith(_HIDDEN)]
    if folders := [entry.name for entry in visible if entry.is_dir()]:
        found = f"folder '{folders[0]}' in {folder}"
        raise InputError(Problem("IN_LAYOUT", where, found, "data files only, or partition_by for `<column>=<date>/`"))
    if not visible:
        raise InputError(Problem("IN_EMPTY", where, f"no data file in {folder}", "at least one"))
    for file in visible:
        _refuse_patterns(file, where)
    return tuple(visible)


def _refuse_patterns(path: Path, where: str) -> None:
    if found := sorted(_PATTERN & set(str(path))):
        expected = "a path without { } [ ] * ? and \\, which Spark reads as a pattern"
        raise InputError(Problem("IN_PATH", where, f"{' '.join(found)} in {path}", expected))


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
                    f"differs in {', '.join(different[:4]) or 'the order of its columns'}",
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
            fields = [field.with_type(_stored(field.type)) for field in parquet.schema_arrow]
            return pa.schema(fields).remove_metadata()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as err:  # the last: a damaged column name
        raise InputError(Problem("IN_BAD_FILE", f"{where} {file}", str(err).splitlines()[0], "a Parquet file")) from err


def _stored(kind: pa.DataType) -> pa.DataType:
    """The type in the file, without the form that its writer had it in in memory: Spark sees the file only."""
    if pa.types.is_dictionary(kind):
        return _stored(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) else kind


def csv_header(file: Path, delimiter: str, where: str) -> list[str]:
    """The column names in the first line of a CSV file.

    Raises:
        InputError: the file is not UTF-8 to its end, or has a nameless column.
    """
    _check_encoding(file, where)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            header = next(csv.reader(lines, delimiter=delimiter), [])
    except csv.Error as err:
        raise InputError(Problem("IN_BAD_FILE", f"{where} {file}:1", str(err), "a CSV file")) from err
    if not header or any(not name.strip() for name in header):
        raise InputError(Problem("IN_BAD_FILE", f"{where} {file}:1", f"header {header}", "a name for every column"))
    return header


def _check_encoding(file: Path, where: str) -> None:
    # Spark would put U+FFFD where a byte is not UTF-8, and say nothing.
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with file.open("rb") as blocks:
        while True:
            block = blocks.read(_BLOCK_BYTES)
            try:
                line += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as err:
                line += err.object.count(b"\n", 0, err.start)
                raise InputError(Problem("IN_BAD_FILE", f"{where} {file}:{line}", err.reason, "UTF-8 text")) from err
            if not block:
                return


def _contract_problems(source: Source, schema: pa.Schema, where: str, file: Path) -> Iterator[Problem]:
    yield from _column_problems(schema, where, file)
    for name, expected in source.columns.items():
        if name == source.partition_by:
            continue
        if name not in schema.names:
            yield Problem("IN_COLUMN_MISSING", f"{where} {file.name}", f"no column '{name}'", f"{name}: {expected}")
            continue
        found = schema.field(name).type
        plain = pa.timestamp(found.unit) if pa.types.is_timestamp(found) else found
        if _TYPES.get(str(plain)) != expected and _is_readable(found):
            wanted = "timestamp of ms or us" if expected == "timestamp" else expected
            yield Problem("IN_COLUMN_TYPE", f"{where} {file.name}: {name}", str(found), wanted)


def _column_problems(schema: pa.Schema, where: str, file: Path) -> Iterator[Problem]:
    folded = [name.lower() for name in schema.names]
    for twice in sorted({name for name in folded if folded.count(name) > 1}):
        found = ", ".join(f"'{name}'" for name in schema.names if name.lower() == twice)
        yield Problem("IN_COLUMN_DUPLICATE", f"{where} {file.name}", found, "names that differ in more than case")
    for field in schema:
        if not _is_readable(field.type):
            yield Problem("IN_COLUMN_TYPE", f"{where} {file.name}: {field.name}", str(field.type), "a type of Spark's")


def _is_readable(kind: pa.DataType) -> bool:
    if pa.types.is_decimal(kind) and kind.precision > _MAX_PRECISION:
        return False
    try:
        from_arrow_type(kind)
    except PySparkTypeError:
        return False
    return True


def _fingerprints(name: str, root: Path, files: tuple[Path, ...]) -> Iterator[SourceFile]:
    for file in files:
        path = os.path.relpath(file, root.parent)
        yield SourceFile(source=name, path=path, size_bytes=file.stat().st_size, sha256=sha256_file(file))
