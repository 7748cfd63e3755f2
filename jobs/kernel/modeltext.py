"""LightGBM's own model text, read as far as the kernel needs it."""

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_CATEGORY, _DEFAULT_LEFT, _MISSING_SHIFT = 1, 2, 2
_NODE_LISTS = ("split_feature", "threshold", "decision_type", "left_child", "right_child")


class UncoveredError(Exception):
    """What of a model the kernel does not cover: the library scores it. Raised and caught within this package."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree. Children at or above 0 are nodes, others are `~leaf`; a node stands before its children.

    Attributes:
        threshold: Of a category, the index of its set.
        sets: Of each set, the categories that go left.
    """

    feature: Ints
    threshold: Floats
    is_category: NDArray[np.bool_]
    default_left: NDArray[np.bool_]
    missing: Ints
    left: Ints
    right: Ints
    values: Floats
    sets: tuple[Ints, ...]


@dataclass(frozen=True, slots=True)
class ModelText:
    """A model.

    Attributes:
        features: How many columns it reads.
        outputs: How many sums its trees add up to, in turns.
        objective: Its name and parameters; empty where it has none.
        is_average: The sums are divided by the number of trees in each.
    """

    features: int
    outputs: int
    objective: tuple[str, ...]
    is_average: bool
    trees: tuple[Tree, ...]


def read_model(text: str) -> ModelText:
    """The model that LightGBM wrote.

    Raises:
        UncoveredError: it has what the kernel does not know.
    """
    head, _, rest = text.partition("\nTree=")
    body = rest.partition("\nend of trees")[0]
    fields = _fields(head)
    outputs = _whole(fields, "num_tree_per_iteration")
    parts = [_fields(part) for part in re.split(r"\nTree=", body)] if body.strip() else []
    trees = tuple(_tree(part) for part in parts)
    if outputs < 1 or len(trees) % outputs:
        raise UncoveredError(f"{len(trees)} trees for {outputs} outputs")
    return ModelText(
        features=_whole(fields, "max_feature_idx") + 1,
        outputs=outputs,
        objective=tuple(fields.get("objective", "").split()),
        is_average="average_output" in fields,
        trees=trees,
    )


def _fields(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in text.splitlines())}


def _tree(fields: dict[str, str]) -> Tree:
    if fields.get("is_linear", "0") != "0":
        raise UncoveredError("linear trees")
    leaves = _whole(fields, "num_leaves")
    values = _floats(fields, "leaf_value")
    nodes = {name: _floats(fields, name) if leaves > 1 else np.zeros(0) for name in _NODE_LISTS}
    if len(values) != leaves or any(len(each) != leaves - 1 for each in nodes.values()):
        raise UncoveredError("a tree whose lists are of other lengths than its leaves")
    kind, left, right = (nodes[name].astype(np.int64) for name in ("decision_type", "left_child", "right_child"))
    _check_order(left, right)
    return Tree(
        feature=nodes["split_feature"].astype(np.int64),
        threshold=nodes["threshold"],
        is_category=(kind & _CATEGORY) != 0,
        default_left=(kind & _DEFAULT_LEFT) != 0,
        missing=kind >> _MISSING_SHIFT & 3,
        left=left,
        right=right,
        values=values,
        sets=_sets(fields) if _whole(fields, "num_cat") else (),
    )


def _check_order(left: Ints, right: Ints) -> None:
    """Every node but the first, and every leaf, is the child of one node, which stands before it."""
    nodes = len(left)
    if nodes == 0:
        return
    children, parents = np.concatenate([left, right]), np.tile(np.arange(nodes), 2)
    expected = np.concatenate([np.arange(-nodes - 1, 0), np.arange(1, nodes)])
    if not np.array_equal(np.sort(children), expected) or ((children >= 0) & (children <= parents)).any():
        raise UncoveredError("a tree whose nodes are in another order than LightGBM's")


def _sets(fields: dict[str, str]) -> tuple[Ints, ...]:
    bounds, words = _floats(fields, "cat_boundaries").astype(np.int64), _floats(fields, "cat_threshold")
    bits = np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")
    return tuple(np.flatnonzero(bits[start * 32 : end * 32]) for start, end in pairwise(bounds))


def _whole(fields: dict[str, str], name: str) -> int:
    try:
        return int(fields[name])
    except (KeyError, ValueError) as err:
        raise UncoveredError(f"no number {name} in the model's text") from err


def _floats(fields: dict[str, str], name: str) -> Floats:
    try:
        return np.array([float(each) for each in fields[name].split()], dtype=np.float64)
    except (KeyError, ValueError) as err:
        raise UncoveredError(f"no numbers {name} in the model's text") from err
