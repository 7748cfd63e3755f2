"""What every flavor of model is to the rest: an opened model that scores columns of numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from schemas.bundle import Feature, Objective
from validation.parity import Floats

Predict = Callable[[Sequence[Floats]], Floats]


class UnloadableError(Exception):
    """Why bytes are no model of a flavor. Raised and caught within `jobs`, which names the bundle."""


class UnusableError(Exception):
    """Why a sound model cannot score these rows, or cannot be the model of this bundle."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Answers what the library's `predict` answers.

    Attributes:
        name: `kernel (<vectors>)`, or the library; behind a colon, why not the kernel.
        predict: Numbers of rows that are given as columns, one a feature, float64: shape (rows,) or (rows, numbers).
    """

    name: str
    predict: Predict


@dataclass(frozen=True, slots=True)
class Signature:
    """What a bundle says of its model.

    Attributes:
        features: Its columns, in order.
        objective: What its numbers mean.
        classes: Their names, of a multiclass model.
    """

    features: tuple[Feature, ...]
    objective: Objective
    classes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [feature.name for feature in self.features]

    @property
    def numbers(self) -> int:
        """How many numbers the model predicts for a row: of classes one each, else one."""
        return len(self.classes) or 1


def as_outputs(classes: Sequence[str], numbers: Floats) -> Floats:
    """What a model's numbers are as outputs, shape (rows, outputs): of classes, the likeliest is put behind them."""
    numbers = numbers.reshape(len(numbers), len(classes) or 1)
    return np.column_stack([numbers, numbers.argmax(axis=1)]) if classes else numbers


class Scorer(Protocol):
    """An opened model. A row's numbers depend on that row alone; the columns are only read."""

    @property
    def feature_names(self) -> list[str] | None:
        """The columns that it was trained with, where its file has their names."""

    def library(self, why: str = "") -> Engine:
        """The library itself, and why nothing faster scores."""

    def fastest(self, columns: Sequence[Floats]) -> Engine:
        """What scores fastest of all that answer these rows as the library does, to the last bit.

        Raises:
            UnusableError: the library itself does not answer a row alike wherever it stands.
        """


class Steady:
    """Scores in blocks of one size, the last one filled up, by a library whose sums go by the shape of its input.

    Matrix products add up in an order that depends on how many rows there are. With one size of block it depends on
    a row's place in its block at most, and `prove` looks for that.
    """

    BLOCK = 1024

    def __init__(self, predict: Predict, block: int = BLOCK) -> None:
        self._predict, self._block = predict, block

    def __call__(self, columns: Sequence[Floats]) -> Floats:
        """Numbers of the rows, shape (rows,) or (rows, numbers)."""
        rows = len(columns[0])
        parts = []
        for start in range(0, max(rows, 1), self._block):
            part = [column[start : start + self._block] for column in columns]
            count = len(part[0])
            if count < self._block:
                # With its own first row: a model may refuse what is made up. Of no rows there is only the shape.
                part = [np.concatenate([p, np.repeat(p[:1] if count else [0.0], self._block - count)]) for p in part]
            found = np.asarray(self._predict(part), dtype=np.float64)
            if found.shape[:1] != (self._block,):
                raise UnusableError(f"{found.shape} numbers for {self._block} rows")
            parts.append(found[:count])
        return np.concatenate(parts)

    def prove(self, columns: Sequence[Floats]) -> None:
        """Score these rows in other places of their blocks too.

        Raises:
            UnusableError: a row is not answered alike in another place.
        """
        expected = self(columns)
        rows = len(expected)
        for order in (np.arange(rows)[::-1], np.roll(np.arange(rows), 1)):
            found = self([column[order] for column in columns])
            if not same_bits(found, expected[order]):
                raise UnusableError("a row's prediction depends on the rows beside it")


def texts_of(
    categories: Sequence[str], codes: Floats, missing: str | float | None
) -> "np.ndarray[tuple[int, ...], np.dtype[np.object_]]":
    """The categories that stand behind these codes, shape (rows,); `missing` where there is none."""
    known = np.array([*categories, missing], dtype=object)
    return known[np.where(np.isnan(codes), len(categories), codes).astype(np.int64)]


def same_bits(one: Floats, other: Floats) -> bool:
    """Whether two arrays are alike to the last bit; of what is no number, any is like any."""
    return one.shape == other.shape and np.array_equal(_bits(one), _bits(other))


def _bits(values: Floats) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    return np.where(np.isnan(values), np.nan, values).view(np.int64)
