"""`almanac new`: a pipeline's folder, written for a user's own CSV or Parquet file."""

import datetime as dt
import difflib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from jobs.inspection import InspectedColumn, inspect_column, shown
from jobs.scaffold_files import expectations_yaml, features_sql, pipeline_yaml
from jobs.scaffold_plan import Plan, ascii_name, label_sql, plan_features, plan_split
from jobs.tablefile import TableFile, inspect_key, read_table_file
from jobs.targets import Target, check_size, gives_away, inspect_target
from schemas.declared import PIPELINE_FILE, read_folder
from schemas.errors import DeclarationError, InputError, Problem
from schemas.settings import Settings
from schemas.strict import COLUMN_PATTERN, NAME_PATTERN
from schemas.yamlfile import MAX_BYTES

_MAX_KEY = 8


class Scaffold(NamedTuple):
    """A folder that was written, and what stands in it."""

    folder: Path
    plan: Plan


def scaffold(
    settings: Settings,
    name: str,
    *,
    table: Path,
    key: list[str],
    target: str,
    date: str | None = None,
    force: bool = False,
    today: dt.date | None = None,
) -> Scaffold:
    """Write the folder of a new pipeline, whole or not at all; return where, and what was decided for it.

    At most the first 200,000 rows are read.

    Args:
        settings: Where pipelines are declared.
        name: The pipeline's, and its folder's.
        table: A CSV or Parquet file with a row for each entity.
        key: The columns that name an entity.
        target: The column to predict.
        date: The column that orders the rows in time, where the table has several or none should be guessed.
        force: Replace a folder that exists.
        today: The first logical date; today in UTC when left out.

    Raises:
        DeclarationError: a name or a flag is wrong, or the folder exists; nothing was written.
        InputError: the table cannot make a pipeline; nothing was written.
    """
    folder = settings.pipelines / name
    _check_name(name, folder, force)
    file = read_table_file(table)
    _check_flags(file, key, target, date)
    plan = _plan(settings, name, file, key, target, date, today or dt.datetime.now(dt.UTC).date())
    _write(folder, _texts(plan), force)
    return Scaffold(folder, plan)


def _texts(plan: Plan) -> dict[str, str]:
    declaration = pipeline_yaml(plan)
    if (size := len(declaration.encode())) > MAX_BYTES:
        found = f"{len(plan.features):,} features make a declaration of {size:,} bytes"
        raise InputError(
            Problem("SCAFFOLD_TOO_WIDE", str(plan.file.path), found, f"at most {MAX_BYTES:,}; leave columns out")
        )
    return {
        PIPELINE_FILE: declaration,
        "features.sql": features_sql(plan),
        "expectations.yaml": expectations_yaml(plan),
    }


def _check_name(name: str, folder: Path, force: bool) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        found, expected = (
            f"{name!r} cannot be a pipeline's name",
            "a lower-case letter, then letters, digits and _, at most 63",
        )
        raise DeclarationError(Problem("SCAFFOLD_NAME", "name", found, expected))
    if folder.is_symlink() or (folder.exists() and not (force and folder.is_dir())):
        raise DeclarationError(
            Problem("SCAFFOLD_EXISTS", str(folder), "exists already", "a new name, or --force to replace it")
        )


def _check_flags(file: TableFile, key: Sequence[str], target: str, date: str | None) -> None:
    flags = [*(("key", name) for name in key), ("target", target), *([("date", date)] if date is not None else [])]
    problems = [
        Problem(
            "SCAFFOLD_COLUMN", f"{flag} '{name}'", f"no such column in {file.path}{_near(name, file)}", _known(file)
        )
        for flag, name in flags
        if name not in file.columns
    ]
    if not 1 <= len(key) <= _MAX_KEY or len(set(key)) != len(key):
        problems.append(
            Problem("SCAFFOLD_KEY", "key", f"{', '.join(key) or 'no column'}", f"1 to {_MAX_KEY} columns, each once")
        )
    if target in key or target == date:
        problems.append(
            Problem("SCAFFOLD_TARGET", f"target '{target}'", "is the key or date as well", "another column")
        )
    if problems:
        raise DeclarationError(*problems)
    if key_problems := [problem for name in key for problem in _key_problems(file, name)]:
        raise InputError(*key_problems)


def _near(name: str, file: TableFile) -> str:
    near = difflib.get_close_matches(name.lower(), [known.lower() for known in file.columns], n=1)
    return f"; did you mean '{next(known for known in file.columns if known.lower() == near[0])}'?" if near else ""


def _known(file: TableFile) -> str:
    names = [shown(name) for name in file.columns]
    return f"one of {', '.join(names[:20])}" + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _key_problems(file: TableFile, name: str) -> Iterator[Problem]:
    where, column = f"key '{name}'", file.columns[name]
    if not re.fullmatch(COLUMN_PATTERN, name):
        better = ascii_name(name, default="key")
        expected = f"letters, digits and _ only: rename the column, for example to '{better}'"
        yield Problem("SCAFFOLD_KEY_NAME", where, f"column {shown(name)} cannot be a key under this name", expected)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (is_text or pa.types.is_signed_integer(kind) or pa.types.is_date(kind)):
        yield Problem("SCAFFOLD_KEY_TYPE", where, f"is of type {kind}", "text, an integer or a date")
        return
    missing = column.is_null()
    if is_text:
        missing = pc.or_kleene(missing, pc.equal(pc.utf8_trim(column.cast(kind), " "), ""))
    if count := pc.sum(missing).as_py():
        rows = pc.indices_nonzero(missing)[:3].to_pylist()
        found = f"{count:,} of {file.rows:,} rows have none, the first in row {', '.join(str(row + 1) for row in rows)}"
        yield Problem("SCAFFOLD_KEY_NULL", where, found, "a value in every row")


def _plan(
    settings: Settings, name: str, file: TableFile, key: list[str], target_name: str, date: str | None, today: dt.date
) -> Plan:
    repeated = _check_unique(file, key, target_name)
    target = inspect_target(inspect_column(target_name, file.columns[target_name]))
    check_size(target)
    columns, leaks = _inspect(file, key, target)
    candidates = [column for column in columns if column.name not in leaks]
    split = plan_split(candidates, target, date)
    features, left_out = plan_features(candidates, key)
    if not features:
        reasons = "; ".join(f"{shown(column)}: {why}" for column, why in [*leaks.items(), *left_out.items()][:5])
        raise InputError(
            Problem("SCAFFOLD_NO_FEATURE", str(file.path), f"no column can be a feature ({reasons})", "at least one")
        )
    return Plan(
        name=name,
        source=ascii_name(file.path.stem, default="table").lower()[:63],
        source_path=_source_path(settings, file.path),
        file=file,
        key=key,
        repeated=repeated,
        target=target,
        label=label_sql(target),
        features=features,
        left_out=left_out,
        forbidden={target_name: "the target", **leaks},
        split=split,
        today=today,
    )


def _inspect(file: TableFile, key: Sequence[str], target: Target) -> tuple[list[InspectedColumn], dict[str, str]]:
    """Every column but the target, and why those that give it away do."""
    columns: list[InspectedColumn] = []
    leaks: dict[str, str] = {}
    for name, array in file.columns.items():
        if name == target.column.name:
            continue
        column = inspect_column(name, array)
        if name not in key and (why := gives_away(column, target)):
            leaks[name] = why
        # The different texts of a column that is no feature may be as many as the rows: they are let go.
        columns.append(replace(column, levels=()) if column.unusable else column)
    return columns, leaks


def _check_unique(file: TableFile, key: list[str], target: str) -> int:
    """How many rows only repeat another one."""
    report = inspect_key(file, key)
    if report.ambiguous:
        found = f"{report.ambiguous:,} keys stand on several different rows: {', '.join(report.examples)}"
        more = [column for column in report.completions if column != target]
        hint = f"; {shown(more[0])} beside it would do" if more else ""
        raise InputError(
            Problem(
                "SCAFFOLD_KEY_DUPLICATE", f"key '{', '.join(key)}'", found, f"one row for each: add key columns{hint}"
            )
        )
    return report.repeated


def _source_path(settings: Settings, path: Path) -> str:
    # Not resolve(): a link that is part of the path stays, so that what it points to may change.
    absolute, root = (Path(os.path.normpath(place.absolute())) for place in (path, settings.root))
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)


def _write(folder: Path, texts: Mapping[str, str], force: bool) -> None:
    """Put the folder in place in one step, once it was read back as a declaration."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as staging:
            built = Path(staging) / folder.name
            built.mkdir()
            for file, text in texts.items():
                (built / file).write_text(text, encoding="utf-8", newline="\n")
            read_folder(built)
            replaced = Path(staging) / "replaced"
            if force and folder.exists():
                folder.rename(replaced)
            try:
                built.rename(folder)
            except OSError:
                if replaced.exists():
                    replaced.rename(folder)
                raise
    except OSError as err:
        raise DeclarationError(
            Problem("SCAFFOLD_WRITE", str(folder), f"cannot be written: {err.strerror}", "a folder to write in")
        ) from err
