"""Which group each row is in, by the values of one column or of a pair, and what is measured of each group."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.checks import Slices
from validation.moments import GroupMoments
from validation.sketch import Floats, Ints, Sketch, bins_of, count_bins
from validation.slices import MAX_GROUPS, SliceGroup, SliceProfile, bounded

NULL = "(null)"
# Bins of the sketch lie between -142,000 and 142,000: group and bin in one integer.
_SPAN, _OFFSET = 2**20, 2**19


class Grouping:
    """Numbers the groups of some group-bys as they first appear: equal values have one number in every batch."""

    def __init__(self, by: Sequence[tuple[str, ...]]) -> None:
        self._by = by
        self._columns = {column: _Values(column) for columns in by for column in columns}
        self._pairs = {columns: _Pairs(columns) for columns in by if len(columns) > 1}

    def number(self, batch: pa.RecordBatch) -> dict[tuple[str, ...], Ints]:
        """For each group-by, the group of each row.

        Raises:
            InputError: a column, or a pair, has more than 1,000 groups.
        """
        codes = {column: values.number(batch.column(column)) for column, values in self._columns.items()}
        return {
            columns: self._pairs[columns].number(*(codes[column] for column in columns))
            if columns in self._pairs
            else codes[columns[0]]
            for columns in self._by
        }

    def groups(self, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The values of each group by now, in the order of their numbers."""
        every = [self._columns[column].texts for column in columns]
        if columns not in self._pairs:
            return [(text,) for text in every[0]]
        return [(every[0][first], every[1][second]) for first, second in self._pairs[columns].codes]


class _Values:
    """The values of a column, numbered as they first appear; a null is `(null)`."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._numbers: dict[str, int] = {}

    @property
    def texts(self) -> list[str]:
        return list(self._numbers)

    def number(self, column: pa.Array) -> Ints:
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        texts = [NULL if text is None else text for text in pc.cast(encoded.dictionary, pa.string()).to_pylist()]
        indices = encoded.indices
        if indices.null_count:
            indices, texts = pc.fill_null(indices, len(texts)), [*texts, NULL]
        numbers = [self._numbers.setdefault(text, len(self._numbers)) for text in texts]
        bounded(len(self._numbers), (self._column,))
        found: Ints = np.array(numbers, np.int64)[indices.to_numpy()]
        return found


class _Pairs:
    """Pairs of numbered values, numbered as they first appear."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._numbers: npt.NDArray[np.int32] = np.full(MAX_GROUPS * MAX_GROUPS, -1, np.int32)
        self._known = np.zeros(0, np.int64)

    @property
    def codes(self) -> list[tuple[int, int]]:
        return [divmod(key, MAX_GROUPS) for key in self._known.tolist()]

    def number(self, first: Ints, second: Ints) -> Ints:
        keys = first * MAX_GROUPS + second
        numbers = self._numbers[keys]
        unknown = np.unique(keys[numbers < 0])
        if len(unknown):
            self._numbers[unknown] = np.arange(len(unknown)) + len(self._known)
            self._known = np.append(self._known, unknown)
            bounded(len(self._known), self._columns)
            numbers = self._numbers[keys]
        found: Ints = numbers.astype(np.int64)
        return found


class GroupRows(NamedTuple):
    """Where the rows of one group are.

    Attributes:
        columns: What is grouped by.
        values: The group's value of each.
        places: Of its rows in the table, ascending.
    """

    columns: tuple[str, ...]
    values: tuple[str, ...]
    places: Ints


def largest_groups(table: pa.Table, by: Sequence[tuple[str, ...]], *, least: int, most: int) -> Iterator[GroupRows]:
    """Of each group-by the groups with so many rows or more, the largest first, and not more than `most` of them.

    Raises:
        InputError: a column, or a pair, has more than 1,000 groups.
    """
    grouping = Grouping(by)
    numbered = [grouping.number(batch) for batch in table.to_batches()]
    for columns in by:
        values = grouping.groups(columns)
        codes = np.concatenate([np.zeros(0, np.int64), *(found[columns] for found in numbered)])
        counts = np.bincount(codes, minlength=len(values))
        places = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
        enough = [number for number in range(len(values)) if counts[number] >= max(least, 1)]
        for number in sorted(enough, key=lambda number: (-counts[number], values[number]))[:most]:
            yield GroupRows(columns, values[number], places[number])


class SliceMeter:
    """Measures the predictions of every group of the declared group-bys, batch after batch."""

    def __init__(self, declared: Slices) -> None:
        self._by = declared.groups
        self._grouping = Grouping(self._by)
        self._counters = [_Counter(declared.positive_at) for _ in self._by]

    def add(self, batch: pa.RecordBatch, predictions: pa.Array) -> None:
        """Add rows: a batch with the columns that are grouped by, and the prediction of each of its rows.

        Raises:
            InputError: a column, or a pair, has more than 1,000 groups.
        """
        values: Floats = pc.cast(predictions, pa.float64()).to_numpy(zero_copy_only=False)
        finite = np.isfinite(values)
        numbered = self._grouping.number(batch)
        usable, bins = values[finite], bins_of(values[finite])
        for columns, counter in zip(self._by, self._counters, strict=True):
            groups = numbered[columns]
            counter.add(groups[finite], usable, bins, groups[~finite], len(self._grouping.groups(columns)))

    def profiles(self) -> tuple[SliceProfile, ...]:
        """One for each group-by, with the groups that have rows, by their values."""
        return tuple(
            SliceProfile(columns=columns, groups=counter.groups(self._grouping.groups(columns)))
            for columns, counter in zip(self._by, self._counters, strict=True)
        )


class _Counter:
    """What is measured of each group of one group-by."""

    def __init__(self, positive_at: float | None) -> None:
        self._positive_at = positive_at
        self._moments = GroupMoments()
        self._unusable = self._positives = np.zeros(0, np.int64)
        self._cells = self._counts = np.zeros(0, np.int64)

    def add(self, groups: Ints, values: Floats, bins: Ints, unusable: Ints, count: int) -> None:
        self._moments.add(groups, values, count)
        self._unusable = _added(self._unusable, unusable, count)
        if self._positive_at is not None:
            self._positives = _added(self._positives, groups[values >= self._positive_at], count)
        cells, counts = _cells(groups, bins)
        every, places = np.unique(np.append(self._cells, cells), return_inverse=True)
        self._counts = np.bincount(places, np.append(self._counts, counts), len(every)).astype(np.int64)
        self._cells = every

    def groups(self, values: Sequence[tuple[str, ...]]) -> tuple[SliceGroup, ...]:
        found = (self._group(number, each) for number, each in enumerate(values) if number < len(self._unusable))
        seen = (group for group in found if group.rows or group.unusable)
        return tuple(sorted(seen, key=lambda group: group.values))

    def _group(self, number: int, values: tuple[str, ...]) -> SliceGroup:
        moments = self._moments.of(number)
        start, end = np.searchsorted(self._cells, [number * _SPAN, (number + 1) * _SPAN])
        bins = self._cells[start:end] - number * _SPAN - _OFFSET
        return SliceGroup(
            values=values,
            rows=moments.rows,
            unusable=int(self._unusable[number]),
            mean=moments.mean,
            variance=moments.variance,
            positives=None if self._positive_at is None else int(self._positives[number]),
            sketch=Sketch(bins=tuple(bins.tolist()), counts=tuple(self._counts[start:end].tolist())),
        )


def measure_slices(batches: Iterable[pa.RecordBatch], declared: Slices, *, output: str) -> tuple[SliceProfile, ...]:
    """Every declared group-by, in one scan.

    Args:
        batches: Hold the columns and the output side by side.
        declared: What to group by, and what counts as positive.
        output: The prediction that is measured.

    Raises:
        InputError: a column, or a pair, has more than 1,000 groups.
    """
    meter = SliceMeter(declared)
    for batch in batches:
        meter.add(batch, batch.column(output))
    return meter.profiles()


def _added(counts: Ints, groups: Ints, count: int) -> Ints:
    return np.pad(counts, (0, count - len(counts))) + np.bincount(groups, minlength=count)


def _cells(groups: Ints, bins: Ints) -> tuple[Ints, Ints]:
    """Every pair of group and bin once, as one ascending integer, with how often it occurs."""
    if not len(bins):
        return bins, bins
    low = int(bins.min())
    width = int(bins.max()) - low + 1
    cells, counts = count_bins(groups * width + (bins - low))
    return cells // width * _SPAN + cells % width + low + _OFFSET, counts
