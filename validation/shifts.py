"""The groups of a slice in two runs: how many entities, their mean, who joined and who left."""

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.diff import SliceShift
from validation.pairing import Pair, Positions
from validation.rundata import Codes
from validation.slices import MAX_GROUPS

Floats = npt.NDArray[np.float64]


class Shifts:
    """The sums of each group of one slice, over all parts."""

    def __init__(self, columns: tuple[str, ...], codes: dict[str, Codes], output: str) -> None:
        self.columns = columns
        self._codes = [codes[column] for column in columns]
        self._output = output
        self._sums: Any = None

    def add(self, pair: Pair) -> None:
        if any(codes.overflows for codes in self._codes):
            return
        size = prod(len(codes.values) for codes in self._codes)
        before = self._counted(pair.before, pair.removed, size)
        after = self._counted(pair.after, pair.added, size)
        both = np.stack([before, after])
        self._sums = both if self._sums is None else self._sums + both

    def _counted(self, rows: pa.Table, apart: Positions, size: int) -> Floats:
        """Rows, those with a finite output, the sum of it, and those of `apart`: shape (4, size)."""
        cell = np.zeros(rows.num_rows, np.int64)
        for column, codes in zip(self.columns, self._codes, strict=True):
            cell = cell * len(codes.values) + rows.column(column).to_numpy()
        output = rows.column(self._output).to_numpy()
        finite = np.isfinite(output)
        weights = (None, finite, np.where(finite, output, 0.0))
        counted = [np.bincount(cell, weights=weight, minlength=size) for weight in weights]
        return np.stack([*counted, np.bincount(cell[apart], minlength=size)]).astype(np.float64)

    def found(self) -> list[SliceShift] | str:
        """Every group, or why there are none."""
        for column, codes in zip(self.columns, self._codes, strict=True):
            if codes.overflows:
                return f"{column} has more than {MAX_GROUPS:,} values"
        if self._sums is None:
            return []
        filled = np.flatnonzero(self._sums[:, 0].sum(axis=0))
        if filled.size > MAX_GROUPS:
            return f"{filled.size:,} groups; at most {MAX_GROUPS:,} are told"
        shape = [len(codes.values) for codes in self._codes]
        named = [(self._values(np.unravel_index(cell, shape)), self._sums[:, :, cell]) for cell in filled]
        return [self._shift(values, *sums) for values, sums in sorted(named, key=lambda found: found[0])]

    def _values(self, at: Iterable[Any]) -> tuple[str, ...]:
        return tuple(codes.values[int(code)] for codes, code in zip(self._codes, at, strict=True))

    def _shift(self, values: tuple[str, ...], before: Floats, after: Floats) -> SliceShift:
        return SliceShift(
            columns=self.columns,
            values=values,
            rows_before=int(before[0]),
            rows_after=int(after[0]),
            mean_before=float(before[2] / before[1]) if before[1] else None,
            mean_after=float(after[2] / after[1]) if after[1] else None,
            removed=int(before[3]),
            added=int(after[3]),
        )
