"""A model laid out as the kernel reads it: trees as planes of eight leaves, and what each split removes of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jobs.kernel.columns import Array, Columns
from jobs.kernel.modeltext import Floats, Ints, ModelText, Tree, UncoveredError

# The structs of model.h.
CUT = np.dtype([("slot", np.uint16), ("cut", np.int8), ("leaves", np.uint8)])
PICK = np.dtype([("set_at", np.uint32), ("slot", np.uint16), ("leaves", np.uint8), ("is_wide", np.uint8)])

MAX_LEAVES = 256
_PLANE = 8  # leaves


@dataclass(frozen=True, slots=True)
class Layout:
    """Arrays and numbers, under the names of `struct model`.

    Attributes:
        thresholds, classes: How many of them each feature has.
    """

    arrays: dict[str, Array]
    numbers: dict[str, int]
    thresholds: dict[int, int]
    classes: dict[int, int]


def lay_out(model: ModelText) -> Layout:
    """The trees as the kernel reads them.

    Raises:
        UncoveredError: more leaves, thresholds or categories than the kernel tells apart.
    """
    if (largest := max((len(tree.values) for tree in model.trees), default=1)) > MAX_LEAVES:
        raise UncoveredError(f"a tree of {largest} leaves, more than {MAX_LEAVES}")
    columns, planes = Columns(model.trees), _Planes()
    for tree in model.trees:
        _place(tree, columns, planes)
    numbers = {
        "columns": len(columns),
        "slots": columns.slots,
        "trees": len(model.trees),
        "outputs": model.outputs,
        "most_planes": -(-largest // _PLANE),
    }
    arrays = columns.arrays() | planes.arrays()
    return Layout(arrays, numbers, *columns.counts)


@dataclass(slots=True)
class _Planes:
    plane_at: list[int] = field(default_factory=lambda: [0])
    overs: list[list[tuple[int, ...]]] = field(default_factory=list)
    unders: list[list[tuple[int, ...]]] = field(default_factory=list)
    picks: list[list[tuple[int, ...]]] = field(default_factory=list)
    values: list[Floats] = field(default_factory=lambda: [np.zeros(0)])

    def add(self, place: Ints, values: Floats) -> int:
        """Add the planes of a tree, whose leaves have these places; the number of its first."""
        first, planes = self.plane_at[-1], -(-len(values) // _PLANE)
        self.plane_at.append(first + planes)
        for lists in (self.overs, self.unders, self.picks):
            lists += [[] for _ in range(planes)]
        placed = np.zeros(planes * _PLANE)
        placed[place] = values
        self.values.append(placed)
        return first

    def arrays(self) -> dict[str, Array]:
        return {
            "plane_at": np.array(self.plane_at, np.uint32),
            "values": np.concatenate(self.values),
            **_joined("over", self.overs, CUT),
            **_joined("under", self.unders, CUT),
            **_joined("pick", self.picks, PICK),
        }


def _place(tree: Tree, columns: Columns, planes: _Planes) -> None:
    """Give each leaf its place, and note what each split removes.

    The smaller side of every split comes first, and a row that does not go there loses the leaves of that side; so the
    lowest leaf that it keeps is the one that it reaches. A split by a category whose classes fill several views can
    only say who goes left: its right side comes first.
    """
    size = _sizes(tree)
    starts: dict[int, int] = {0: 0} if len(tree.left) else {~0: 0}
    is_left_first: list[bool] = []
    for node, (left, right) in enumerate(zip(tree.left.tolist(), tree.right.tolist(), strict=True)):
        is_left_first.append(size[left] <= size[right] and not columns.is_several(tree, node))
        first, second = (left, right) if is_left_first[node] else (right, left)
        starts[first], starts[second] = starts[node], starts[node] + size[first]
    place = np.array([starts[~leaf] for leaf in range(len(tree.values))])
    plane_at = planes.add(place, tree.values)
    for node, left_first in enumerate(is_left_first):
        begin = starts[node]
        end = begin + size[int((tree.left if left_first else tree.right)[node])]
        removed = [
            (plane_at + plane, (1 << min(end - plane * _PLANE, _PLANE)) - (1 << max(begin - plane * _PLANE, 0)))
            for plane in range(begin // _PLANE, (end - 1) // _PLANE + 1)
        ]
        if tree.is_category[node]:
            for at, slot, is_wide in columns.picks(tree, node, is_out=left_first):
                for plane, leaves in removed:
                    planes.picks[plane].append((at, slot, leaves, is_wide))
        else:
            lists = planes.overs if left_first else planes.unders
            for plane, leaves in removed:
                lists[plane].append((*columns.cut(tree, node), leaves))


def _sizes(tree: Tree) -> dict[int, int]:
    """Leaves below each child, under the name that the tree gives it."""
    size = {~leaf: 1 for leaf in range(len(tree.values))}
    for node in range(len(tree.left) - 1, -1, -1):
        size[node] = size[int(tree.left[node])] + size[int(tree.right[node])]
    return size


def _joined(name: str, lists: Sequence[Sequence[tuple[int, ...]]], kind: "np.dtype[Any]") -> dict[str, Array]:
    at = np.cumsum([0, *(len(each) for each in lists)]).astype(np.uint32)
    return {name: np.array([one for each in lists for one in each], kind), f"{name}_at": at}
