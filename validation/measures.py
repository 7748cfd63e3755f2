"""What is measured of a run's files, each read once: column profiles and slices, which later runs compare with."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from schemas.checks import Slices
from schemas.errors import InputError, Problem
from schemas.run import ENTITY_ID, SCORED
from validation import profile, slices
from validation.grouping import SliceMeter
from validation.profile import Profile, profile_batches
from validation.slices import SliceProfile

BATCH_ROWS = 65_536  # the rows of a row group of `lookup/writer.py`


class Measures(BaseModel):
    """`profile.json` of a run: what later runs compare with, without reading its data again.

    Attributes:
        predictions: Of the columns of the prediction files.
        features: Of the columns of the feature files, those that name an entity left out.
        slices: One for each declared group-by; empty where none is declared.
        ids_once: Whether it was proven that no entity id stands twice in the prediction files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictions: Profile
    features: Profile
    slices: tuple[SliceProfile, ...] = ()
    ids_once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to measure; it pickles, for Spark's tasks.

    Attributes:
        output: The prediction that slices are of.
        private: Columns whose values name an entity: no profile shows them.
        slices: As declared.
        buckets: Of the lookup table, and how many files their rows are cut into; 0 where that is not known.
    """

    output: str
    private: frozenset[str] = frozenset((ENTITY_ID,))
    slices: Slices | None = None
    buckets: int = 0
    files: int = 0


def measure_pair(predictions: Path, features: Path, wanted: Wanted) -> Measures:
    """The measures of one prediction file and its feature file, read side by side; memory is bounded by two batches.

    Raises:
        InputError: the files are not of the same rows in the same order, or a group-by has more than 1,000 groups.
        OSError: a page of a file is not what was written, or there is no such file.
    """
    meter = SliceMeter(wanted.slices) if wanted.slices else None
    sliced = {column for columns in wanted.slices.groups for column in columns} if wanted.slices else set()
    measured = nothing_measured()
    for scored, known in _side_by_side(predictions, features, sliced - {ENTITY_ID}, wanted):
        part = Measures(
            predictions=profile_batches([scored]),
            features=profile_batches([known], skip=wanted.private),
        )
        if meter:
            meter.add(known, scored.column(wanted.output))
        measured = merge_measures(measured, part)
    return measured.model_copy(
        update={"slices": meter.profiles() if meter else (), "ids_once": _ids_once(predictions, wanted)}
    )


def _ids_once(predictions: Path, wanted: Wanted) -> bool:
    """Whether each id stands once in the file, and belongs into it: equal ids of two files would belong into one."""
    ids = pq.read_table(predictions, columns=[ENTITY_ID]).column(ENTITY_ID)
    number = predictions.stem.removeprefix("part-").partition(".")[0]
    if not wanted.buckets or not number.isdecimal() or pc.count_distinct(ids).as_py() != len(ids):
        return False
    places = {
        crc32(entity) % wanted.buckets * wanted.files // wanted.buckets for entity in ids.cast(pa.binary()).to_pylist()
    }
    return places <= {int(number)}


def merge_measures(a: Measures, b: Measures) -> Measures:
    """The measures of two parts of a run together.

    Raises:
        InputError: a group-by has more than 1,000 groups.
        ValueError: the parts have different columns or group-bys.
    """
    if not a.slices or not b.slices:
        sliced = a.slices or b.slices
    else:
        sliced = tuple(slices.merge(one, other) for one, other in zip(a.slices, b.slices, strict=True))
    return Measures(
        predictions=profile.merge(a.predictions, b.predictions),
        features=profile.merge(a.features, b.features),
        slices=sliced,
        ids_once=a.ids_once and b.ids_once,
    )


def nothing_measured() -> Measures:
    """The measures of no rows: what all others are merged into. Checks of it are not evaluated, and so have failed."""
    return Measures(predictions=Profile(rows=0, columns={}), features=Profile(rows=0, columns={}), ids_once=True)


def _side_by_side(
    predictions: Path, features: Path, sliced: set[str], wanted: Wanted
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Batches of both files, of the same rows."""
    with _opened(predictions) as scored, _opened(features) as known:
        names = [name for name in known.schema_arrow.names if name not in wanted.private or name in sliced]
        columns = list(dict.fromkeys([ENTITY_ID, *names]))
        batches = (_as_scored(scored), known.iter_batches(BATCH_ROWS, columns=columns))
        for pair in _cut_alike(*batches):
            if pair[0] is None or pair[1] is None:
                raise _other_rows(features, "not as many rows as were scored", "the same rows")
            if not pair[0].column(ENTITY_ID).equals(pair[1].column(ENTITY_ID)):
                raise _other_rows(features, "features and predictions differ in order", "the same rows")
            yield pair[0], pair[1]


def _as_scored(predictions: Any) -> Iterator[pa.RecordBatch]:
    """The rows that were scored: what was carried over or withheld has no features. No batch is without rows."""
    for batch in predictions.iter_batches(BATCH_ROWS):
        scored = pc.equal(batch.column("status"), SCORED)
        if scored.true_count:
            yield batch if scored.true_count == batch.num_rows else batch.filter(scored)


def _cut_alike(
    one: Iterator[pa.RecordBatch], other: Iterator[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch | None, pa.RecordBatch | None]]:
    """Both, cut where either is: a batch ends with its row group, and where a text column begins a new dictionary.

    Where one has more rows than the other, a last pair has None for the other. Neither has batches without rows: such a
    one at the end would hide that more follow.
    """
    left, right = next(one, None), next(other, None)
    while left is not None and right is not None:
        rows = min(left.num_rows, right.num_rows)
        yield left.slice(0, rows), right.slice(0, rows)
        left = left.slice(rows) if rows < left.num_rows else next(one, None)
        right = right.slice(rows) if rows < right.num_rows else next(other, None)
    if left is not None or right is not None:
        yield left, right


def _opened(path: Path) -> Any:
    # As text is stored: each value once a page, not once a row. Ids are all different.
    texts = [field.name for field in pq.read_schema(path) if pa.types.is_string(field.type) and field.name != ENTITY_ID]
    return pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts)


def _other_rows(features: Path, found: str, expected: str) -> InputError:
    return InputError(Problem("OUT_ORDER", f"staged files: {features.name}", found, expected))
