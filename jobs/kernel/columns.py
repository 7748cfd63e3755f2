"""The columns of a model: its features' thresholds and categories, and the bytes that tell their rows apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.kernel.modeltext import Ints, Tree, UncoveredError

Array = NDArray[Any]

# The structs of model.h.
COLUMN = np.dtype([(name, np.uint32) for name in ("feature", "is_category", "at", "count", "view_at", "view_count")])
VIEW = np.dtype([("base", np.uint32), ("missing", np.uint8), ("default_left", np.uint8), ("slot", np.uint16)])

_VIEW = 255  # thresholds, or classes, that one byte tells apart
_MAX_PLACES = 65_535  # thresholds or classes of a column, and slots of a model
_MAX_CATEGORY = 1_000_000
_NARROW = 128  # classes in half a set
_SET_BYTES = 32
_CLASS_SLOTS = 3
_MISSING_NONE = 0
_SIGN = 128  # bytes are compared as signed

# The first threshold or class that it tells apart; what is missing, and whether that goes left.
_ViewKey = tuple[int, int, bool]


@dataclass(slots=True)
class _Column:
    """A feature as splits of one kind see it.

    Attributes:
        places: Of a number, each threshold's place among them; of a category, the class of each.
        views: Each with its slot.
    """

    places: dict[float, int] | Ints
    count: int
    views: dict[_ViewKey, int] = field(default_factory=dict)


class Columns:
    """What the trees look at. Splits ask for the slot of their view, which is made when first asked for."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self.slots = 0
        self._sets = bytearray()
        self._numbers = {feature: _numbers(feature, values) for feature, values in _thresholds(trees).items()}
        self._classes = {feature: _classes(feature, sets) for feature, sets in _category_sets(trees).items()}

    def __len__(self) -> int:
        return len(self._numbers) + len(self._classes)

    @property
    def counts(self) -> tuple[dict[int, int], dict[int, int]]:
        """How many thresholds, and how many classes, each feature has."""
        numbers, classes = (
            {feature: column.count for feature, column in each.items()} for each in (self._numbers, self._classes)
        )
        return numbers, classes

    def is_several(self, tree: Tree, node: int) -> bool:
        """Whether a split by category must look at several views."""
        return bool(tree.is_category[node]) and self._classes[int(tree.feature[node])].count > _VIEW

    def cut(self, tree: Tree, node: int) -> tuple[int, int]:
        """Slot of a split by number, and the byte above which a row goes right."""
        column = self._numbers[int(tree.feature[node])]
        place, missing = column.places[tree.threshold[node]], int(tree.missing[node])
        key = (place // _VIEW * _VIEW, missing, missing != _MISSING_NONE and bool(tree.default_left[node]))
        return self._slot(column, key, 1), place % _VIEW - _SIGN

    def picks(self, tree: Tree, node: int, *, is_out: bool) -> Iterator[tuple[int, int, bool]]:
        """Where the sets of a split by category are, each with its slot and whether it is wide.

        Args:
            tree: The tree.
            node: A split by category of it.
            is_out: The sets are of those that do not go left, else of those that do.
        """
        column = self._classes[int(tree.feature[node])]
        members = np.unique(np.asarray(column.places)[tree.sets[int(tree.threshold[node])]])
        for base in range(0, max(column.count, 1), _VIEW):
            inside = members[(members > base) & (members <= base + _VIEW)] - base
            if len(inside) == 0 and not is_out:
                continue
            bits = np.zeros(_SET_BYTES * 8, np.uint8)
            bits[inside] = 1
            at = len(self._sets)
            self._sets += np.packbits(bits ^ is_out, bitorder="little").tobytes()
            is_wide = min(column.count - base, _VIEW) >= _NARROW
            yield at, self._slot(column, (base, _MISSING_NONE, False), _CLASS_SLOTS), is_wide

    def _slot(self, column: _Column, key: _ViewKey, slots: int) -> int:
        if key not in column.views:
            column.views[key] = self.slots
            self.slots += slots
            if self.slots > _MAX_PLACES:
                raise UncoveredError("more different splits than the kernel has room for")
        return column.views[key]

    def arrays(self) -> dict[str, Array]:
        """The arrays of `struct model` that are about columns."""
        columns: list[tuple[int, ...]] = []
        views: list[tuple[int, ...]] = []
        thresholds, classes = [np.zeros(0)], [np.zeros(0, np.uint16)]
        for feature, column in self._numbers.items():
            halvings = column.count.bit_length()
            padded = np.full((1 << halvings) - 1, np.inf)
            padded[: column.count] = list(column.places)
            columns.append((feature, False, sum(map(len, thresholds)), halvings, len(views), len(column.views)))
            thresholds.append(padded)
            views += [(*key, slot) for key, slot in column.views.items()]
        for feature, column in self._classes.items():
            of = np.asarray(column.places, np.uint16)
            columns.append((feature, True, sum(map(len, classes)), len(of), len(views), len(column.views)))
            classes.append(of)
            views += [(*key, slot) for key, slot in column.views.items()]
        return {
            "column": np.array(columns, COLUMN),
            "view": np.array(views, VIEW),
            "thresholds": np.concatenate(thresholds),
            "classes": np.concatenate(classes),
            "sets": np.frombuffer(bytes(self._sets), np.uint8),
        }


def _thresholds(trees: Sequence[Tree]) -> dict[int, set[float]]:
    found: dict[int, set[float]] = {}
    for tree in trees:
        numeric = ~tree.is_category
        for feature, threshold in zip(tree.feature[numeric].tolist(), tree.threshold[numeric].tolist(), strict=True):
            found.setdefault(feature, set()).add(threshold)
    return found


def _category_sets(trees: Sequence[Tree]) -> dict[int, list[Ints]]:
    found: dict[int, list[Ints]] = {}
    for tree in trees:
        for node in np.flatnonzero(tree.is_category).tolist():
            found.setdefault(int(tree.feature[node]), []).append(tree.sets[int(tree.threshold[node])])
    return found


def _numbers(feature: int, thresholds: set[float]) -> _Column:
    if len(thresholds) > _MAX_PLACES or any(threshold != threshold for threshold in thresholds):
        raise UncoveredError(f"{len(thresholds)} thresholds of feature {feature}")
    return _Column({threshold: place for place, threshold in enumerate(sorted(thresholds))}, len(thresholds))


def _classes(feature: int, sets: Sequence[Ints]) -> _Column:
    """The categories by the sets they are in: what no split tells apart is one class, what is in none is class 0."""
    largest = max((int(each[-1]) for each in sets if len(each)), default=-1)
    if largest > _MAX_CATEGORY:
        raise UncoveredError(f"category {largest} of feature {feature}")
    in_sets = np.zeros((largest + 2, -(-len(sets) // 8)), np.uint8)
    for index, members in enumerate(sets):
        in_sets[members, index // 8] |= 1 << index % 8
    # The last row is in no set. Its class and class 0 change names.
    _, of = np.unique(in_sets, axis=0, return_inverse=True)
    of = of.reshape(-1).astype(np.int64)
    nowhere = of[-1]
    of = np.where(of == nowhere, 0, np.where(of == 0, nowhere, of))
    count = int(of.max())
    if count > _MAX_PLACES:
        raise UncoveredError(f"{count} classes of categories of feature {feature}")
    return _Column(of[:-1], count)
