"""The files of a staged run as a comparison reads them: predictions, with their slices beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import InputError, Problem
from schemas.run import ENTITY_ID
from validation.grouping import NULL
from validation.slices import MAX_GROUPS

ROUTE = MODEL, STATUS = "model", "status"


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The Parquet files of a run.

    Attributes:
        predictions: ENTITY_ID, the outputs, ROUTE.
        features: For each of these the file with the same rows in the same order; needed for slices alone.
    """

    predictions: tuple[Path, ...]
    features: tuple[Path, ...] = ()

    def has(self, column: str) -> bool:
        """Whether each features file has the column."""
        return all(column in _column_names(path) for path in self.features)


class Codes:
    """Numbers that stand for the values of a column, the same in both runs.

    Attributes:
        values: Code -> value.
    """

    def __init__(self, most: int | None = MAX_GROUPS) -> None:
        self._known: dict[str, int] = {}
        self._most = most

    @property
    def values(self) -> list[str]:
        return list(self._known)

    @property
    def overflows(self) -> bool:
        """Whether there are more values than `most`; their codes are of no use then."""
        return self._most is not None and len(self._known) > self._most

    def of(self, array: pa.Array) -> pa.Array:
        """The code of each value, int32."""
        coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        if self.overflows or len(coded) == 0:
            return pa.array(np.zeros(len(coded), np.int32))
        names = [NULL if value is None else value for value in coded.dictionary.cast(pa.string()).to_pylist()]
        if coded.null_count:
            names.append(NULL)
        codes = np.array([self._known.setdefault(name, len(self._known)) for name in names], np.int32)
        return pa.array(codes.take(coded.indices.fill_null(len(names) - 1).to_numpy()))


def row_count(files: RunFiles) -> int:
    """How many rows the files say they have."""
    rows = 0
    for path in files.predictions:
        with _opened(path) as parquet:
            rows += parquet.metadata.num_rows
    return rows


def coded_rows(
    files: RunFiles, outputs: Sequence[str], codes: dict[str, Codes], slices: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """The rows of a run: ENTITY_ID, the outputs as double, ROUTE and slice columns as codes.

    Raises:
        InputError: a file is missing, damaged, or without one of the columns.
    """
    for index, path in enumerate(files.predictions):
        predictions = _batches(path, [ENTITY_ID, *outputs, *ROUTE])
        if slices:
            features = _batches(files.features[index], [ENTITY_ID, *slices])
            predictions = (_beside(*both, path) for both in zip_longest(predictions, features))
        for batch in predictions:
            arrays = {ENTITY_ID: batch.column(ENTITY_ID)}
            arrays |= {name: batch.column(name).cast(pa.float64()) for name in outputs}
            arrays |= {name: codes[name].of(batch.column(name)) for name in (*ROUTE, *slices)}
            yield pa.RecordBatch.from_pydict(arrays)


def _beside(predictions: pa.RecordBatch | None, features: pa.RecordBatch | None, path: Path) -> pa.RecordBatch:
    if not (predictions and features and predictions.column(ENTITY_ID).equals(features.column(ENTITY_ID))):
        raise InputError(Problem("OUT_ORDER", str(path), "its features file differs in order", "the same rows"))
    rest = [name for name in features.schema.names if name not in predictions.schema.names]
    return pa.RecordBatch.from_arrays(
        [*predictions.columns, *(features.column(name) for name in rest)], names=[*predictions.schema.names, *rest]
    )


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    names = _column_names(path)
    if missing := [name for name in columns if name not in names]:
        raise InputError(Problem("OUT_FORMAT", str(path), f"no column {', '.join(missing)}", ", ".join(columns)))
    # Columns of few texts are read as their codes.
    with _opened(path, coded=columns[1:]) as parquet:
        try:
            yield from parquet.iter_batches(columns=columns)
        except (pa.ArrowException, OSError) as err:
            raise _damaged(path, err) from err


def _column_names(path: Path) -> list[str]:
    with _opened(path) as parquet:
        return list(parquet.schema_arrow.names)


def _opened(path: Path, *, coded: Sequence[str] = ()) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, read_dictionary=list(coded), page_checksum_verification=True)
    except FileNotFoundError:
        expected = "the run's file: restore it, or score that run again"
        raise InputError(Problem("OUT_NOT_FOUND", str(path), "no such file", expected)) from None
    except (pa.ArrowException, OSError) as err:
        raise _damaged(path, err) from err


def _damaged(path: Path, err: Exception) -> InputError:
    return InputError(Problem("OUT_CHECKSUM", str(path), str(err).partition("\n")[0], "a whole Parquet file"))
