"""Whether the text of a LightGBM model keeps to its own arrays: LightGBM, which reads and writes by it, does not look.

Source:
    LightGBM issues 7357, 7437 and 7438: numbers of a text are used as indices as they are, in `predict` and SHAP alike.
"""

import re
from itertools import pairwise

from jobs.flavors.scorer import UnloadableError

_CATEGORY = 1


def check_indices(raw: bytes) -> None:
    """Look at every number of a model's text that LightGBM uses as an index or as a length.

    Raises:
        UnloadableError: one leads out of its array, in circles, or elsewhere than it seems to.
    """
    head = re.split(rb"\n(?:Tree=|end of trees)", raw, maxsplit=1)[0]
    fields = _fields(head)
    features = _whole(fields, "max_feature_idx") + 1
    outputs = _whole(fields, "num_tree_per_iteration")
    asked = [_whole(fields, "num_class"), *map(int, re.findall(r"num_class:(\d+)", fields.get("objective", "")))]
    if {*asked} != {outputs}:
        raise UnloadableError(f"{outputs} trees a row for {asked} classes")
    start, sizes = len(head) + 1, _list(fields, "tree_sizes", "")
    trees = [raw[begin:end] for begin, end in pairwise(_sums(start, sizes))]
    for number, tree in enumerate(trees):
        if not tree.startswith(b"Tree=") or tree.count(b"Tree=") > 1:
            raise UnloadableError(f"tree {number} is not where tree_sizes says")
        _check_tree(_fields(tree.partition(b"\n\n")[0]), features, f"tree {number}")
    if b"\nTree=" in raw[sum(sizes) + start - 1 :]:
        raise UnloadableError("a tree behind the last one of tree_sizes")


def _check_tree(fields: dict[str, str], features: int, where: str) -> None:
    leaves = _whole(fields, "num_leaves")
    if leaves < 1 or len(fields.get("leaf_value", "").split()) != leaves:
        raise UnloadableError(f"{where}: other leaf values than {leaves} leaves")
    if leaves > 1:
        kinds, split = _list(fields, "decision_type", where), _list(fields, "split_feature", where)
        children = [_list(fields, name, where) for name in ("left_child", "right_child")]
        thresholds = fields.get("threshold", "").split()
        if {len(kinds), len(split), len(thresholds), *map(len, children)} != {leaves - 1}:
            raise UnloadableError(f"{where}: lists of other lengths than {leaves} leaves")
        _check_children(children, leaves, where)
        _inside(split, features, f"{where}: split_feature")
        sets = [float(at) for at, kind in zip(thresholds, kinds, strict=True) if kind & _CATEGORY]
        _inside(sets, _sets(fields, where), f"{where}: threshold of a category")
    if fields.get("is_linear", "0") != "0":
        _check_linear(fields, leaves, features, where)


def _check_children(children: list[list[int]], leaves: int, where: str) -> None:
    """Every leaf and every node but the first is the child of one node, which stands before it."""
    found = sorted(child for each in children for child in each)
    is_forward = all(child < 0 or child > node for each in children for node, child in enumerate(each))
    if found != [*range(-leaves, 0), *range(1, leaves - 1)] or not is_forward:
        raise UnloadableError(f"{where}: its children are no tree")


def _sets(fields: dict[str, str], where: str) -> int:
    """How many sets of categories there are; each lies within the words that there are."""
    if not (count := _whole(fields, "num_cat")):
        return 0
    bounds, words = _list(fields, "cat_boundaries", where), _list(fields, "cat_threshold", where)
    if len(bounds) != count + 1 or bounds != sorted(bounds) or bounds[0] != 0 or bounds[-1] != len(words):
        raise UnloadableError(f"{where}: cat_boundaries are not those of {count} sets in {len(words)} words")
    return count


def _check_linear(fields: dict[str, str], leaves: int, features: int, where: str) -> None:
    counts, used = _list(fields, "num_features", where), _list(fields, "leaf_features", where)
    numbers = (len(fields.get(name, "").split()) for name in ("leaf_const", "leaf_coeff"))
    if (len(counts), sum(counts), *numbers) != (leaves, len(used), leaves, len(used)) or min(counts) < 0:
        raise UnloadableError(f"{where}: other linear terms than its leaves have")
    _inside(used, features, f"{where}: leaf_features")


def _inside(values: list[int] | list[float], count: int, where: str) -> None:
    if any(not 0 <= value < count for value in values):
        raise UnloadableError(f"{where} beyond {count}")


def _sums(start: int, sizes: list[int]) -> list[int]:
    if any(size < 1 for size in sizes):
        raise UnloadableError("a tree without a size")
    return [start + sum(sizes[:at]) for at in range(len(sizes) + 1)]


def _fields(block: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in block.decode(errors="replace").split("\n"):
        name, _, value = line.partition("=")
        if name in fields and name:
            raise UnloadableError(f"{name} twice in the model's text")
        fields[name] = value
    return fields


def _whole(fields: dict[str, str], name: str) -> int:
    numbers = _list(fields, name, "the model")
    if len(numbers) != 1:
        raise UnloadableError(f"{len(numbers)} numbers {name} in the model's text")
    return numbers[0]


def _list(fields: dict[str, str], name: str, where: str) -> list[int]:
    numbers = fields.get(name, "").split()
    if not all(re.fullmatch(r"-?[0-9]{1,10}", each) for each in numbers):
        raise UnloadableError(f"{where}: {name} holds what is no whole number")
    return [int(each) for each in numbers]
