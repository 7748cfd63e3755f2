"""What a run's report, its page and its profile tell of one entity alone: found in its rows, and taken out."""

import html
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.content import write_atomically
from schemas.hashing import without
from schemas.run import DATA_DOCS, ENTITY_ID, PROFILE_FILE, REPORT_FILE, REPORT_PAGE, DataFile

ERASED = "(erased)"

Own = dict[str, set[Any]]
"""Column -> the values that the entity's rows have, and no other row of the run."""


def own_values(folder: Path, files: Sequence[DataFile], entity: str) -> Own:
    """What only the entity's rows say, in these files of a run: numbers as they are, all else as text.

    What others have too does not tell of it. Truth values and lists name nobody, and are left out.
    """
    own: Own = {}
    for file in files:
        for column, values in _columns(folder / file.path, lambda ids: pc.equal(ids, entity)):
            own.setdefault(column, set()).update(pc.unique(values.drop_null()).to_pylist())
    for file in files:
        for column, values in _columns(folder / file.path, lambda ids: pc.not_equal(ids, entity), own):
            sought = pa.array(sorted(own[column]), values.type)
            own[column] -= set(pc.unique(values.filter(pc.is_in(values, value_set=sought))).to_pylist())
    return own


def redact(folder: Path, own: Mapping[str, Collection[Any]], entity: str) -> None:
    """Take the entity's id and its own values out of what was written about a run; verdicts and counts stay.

    Args:
        folder: Of the run.
        own: As `own_values` has them.
        entity: Its id.
    """
    sliced = _redact_profile(folder / PROFILE_FILE, own)
    # A bare number in a sentence is a count or a mean, unless it is the name of a group.
    texts = {_text(v) for name, values in own.items() for v in values if isinstance(v, str) or name in sliced}
    told = _pattern({entity, *texts} - {""})
    _rewrite(folder / REPORT_FILE, lambda text: _redacted_report(text, told))
    for page in (folder / REPORT_PAGE, *(folder / DATA_DOCS).rglob("*.html")):
        _rewrite(page, lambda text: _redacted_page(text, told))


def _columns(
    path: Path, chosen: Callable[[Any], Any], names: Collection[str] | None = None
) -> Iterator[tuple[str, Any]]:
    """The columns of the chosen rows; each read by itself, so that memory is bounded by one."""
    schema = pq.read_schema(path)
    mask = pc.fill_null(chosen(pq.read_table(path, columns=[ENTITY_ID]).column(ENTITY_ID)), False)
    if not pc.any(mask).as_py():
        return
    for name, kind in zip(schema.names, schema.types, strict=True):
        told = name != ENTITY_ID and not pa.types.is_nested(kind) and not pa.types.is_boolean(kind)
        if told and (names is None or name in names):
            values = pq.read_table(path, columns=[name]).column(name).filter(mask)
            is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
            yield name, values.cast(pa.float64() if pa.types.is_floating(kind) else kind if is_number else pa.string())


def _redact_profile(path: Path, own: Mapping[str, Collection[Any]]) -> set[str]:
    """Rewrite the profile without them; the columns that the run was sliced by."""
    if not path.is_file():
        return set()
    before = path.read_text(encoding="utf-8")
    profile = json.loads(before)
    for name, values in own.items():
        _redact_column(profile["features"]["columns"].get(name, {}), values)
    told = {(name, _text(value)) for name, values in own.items() for value in values}
    for by in profile["slices"] if own else ():
        by["groups"] = [group for group in by["groups"] if not _tells(by["columns"], group, told)]
    after = json.dumps(profile, separators=(",", ":"), ensure_ascii=False) + "\n"
    if after != before:
        write_atomically(path, after)
    return {column for by in profile["slices"] for column in by["columns"]}


def _tells(columns: Sequence[str], group: Mapping[str, Any], told: set[tuple[str, str]]) -> bool:
    """Whether a group has a value that is the entity's alone, or is a pair of one row: which may be the entity's."""
    alone = len(columns) > 1 and group["rows"] + group["unusable"] == 1
    return alone or not told.isdisjoint(zip(columns, group["values"], strict=True))


def _redact_column(column: dict[str, Any], values: Collection[Any]) -> None:
    for value in values:
        if column.get("kind") == "category":
            column["count"] -= column["values"].pop(value, 0)
        else:
            for end in ("min", "max"):
                if end in column and column[end] == value:
                    column[end] = None
            # Who knows the hash of a number can search for the number.
            if "hashes" in column:
                column["hashes"] = without(column["hashes"], value)


def _text(value: Any) -> str:
    """As a group is named: 17, not 17.0."""
    return str(pa.scalar(value).cast(pa.string()))


def _pattern(values: Collection[str]) -> re.Pattern[str]:
    """Matches any of them where it stands by itself: not as a part of a word or of a number."""
    longest_first = "|".join(re.escape(value) for value in sorted(values, key=lambda value: (-len(value), value)))
    return re.compile(rf"(?<!\w)(?<!\d[.,])(?:{longest_first})(?!\w)(?![.,]\d)")


def _redacted_report(text: str, told: re.Pattern[str]) -> str:
    report = json.loads(text)
    for check in report["checks"]:
        check["observed"] = told.sub(ERASED, check["observed"])
    for group in (*report.get("slices", ()), *report.get("calibration", ())):
        group["values"] = [told.sub(ERASED, value) for value in group["values"]]
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n" if report != json.loads(text) else text


def _redacted_page(page: str, told: re.Pattern[str]) -> str:
    """The page with its text redacted; tags and style sheet are no text."""
    parts = re.split(r"(<style.*?</style>|<[^>]*>)", page, flags=re.DOTALL)
    for index in range(0, len(parts), 2):
        if told.search(text := html.unescape(parts[index])):
            parts[index] = html.escape(told.sub(ERASED, text), quote=False)
    return "".join(parts)


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    if path.is_file() and (after := change(before := path.read_text(encoding="utf-8"))) != before:
        write_atomically(path, after)
