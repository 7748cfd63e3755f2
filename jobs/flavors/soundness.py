"""Whether the text of a LightGBM model keeps to its own arrays: LightGBM, which reads and writes by it, does not look.

Source:
    LightGBM issues 7357, 7437 and 7438: numbers of a text are used as indices as they are, in `predict` and SHAP alike.
    LightGBM's gbdt_model_text.cpp and tree.cpp (`LoadModelFromString`, `Tree::Tree`): which lines it reads, and how.
"""

import re
from itertools import accumulate, pairwise

from jobs.flavors.scorer import UnloadableError

_CATEGORY = 1
_REALS = ("leaf_value", "threshold", "leaf_const", "leaf_coeff")
_REAL = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]{1,3})?|inf|nan)").fullmatch
_FLAGS = (b"tree", b"average_output")  # the lines without a value that LightGBM writes
_MOST_LINES = 22  # of a tree, after its first: LightGBM reads no more


def check_indices(raw: bytes) -> None:
    """Look at every number of a model's text that LightGBM uses as an index or as a length.

    Raises:
        UnloadableError: one leads out of its array, in circles, or elsewhere than it seems to.
    """
    if b"\r" in raw or b"\0" in raw:
        raise UnloadableError("a line that ends elsewhere for LightGBM")
    head = re.split(rb"\n(?:Tree=|end of trees)", raw, maxsplit=1)[0]
    fields = _fields([line for line in head.split(b"\n") if line and line not in _FLAGS], "the head")
    features, outputs = _whole(fields, "max_feature_idx") + 1, _whole(fields, "num_tree_per_iteration")
    _check_classes(fields, outputs)
    start, sizes = len(head) + 1, _list(fields, "tree_sizes", "the head")
    trees = [raw[begin:end] for begin, end in pairwise(_sums(start, sizes))]
    for number, tree in enumerate(trees):
        _check_tree(_fields(_lines(tree, number), f"tree {number}"), features, f"tree {number}")
    behind = raw[sum(sizes) + start - 1 :]
    if b"\nTree=" in behind:
        raise UnloadableError("a tree behind the last one of tree_sizes")
    if not trees and re.search(rb"^=*[a-z_]+(=|$)", behind, re.MULTILINE):
        raise UnloadableError("a field behind the head")  # which goes on to the end where no tree ends it


def _check_classes(fields: dict[str, str], outputs: int) -> None:
    told = [word for word in _words(fields, "objective") if "num_class" in word]
    if outputs < 1 or _whole(fields, "num_class") != outputs or {*told} - {f"num_class:{outputs}"}:
        raise UnloadableError(f"{outputs} trees a row for other classes")


def _lines(tree: bytes, number: int) -> list[bytes]:
    """Those of a tree: LightGBM reads to the first empty one, or so many."""
    first, *lines = tree.rstrip(b"\n").split(b"\n")
    if not re.fullmatch(rb"Tree=[0-9]+", first):
        raise UnloadableError(f"tree {number} is not where tree_sizes says")
    if not tree.endswith(b"\n\n") or len(lines) > _MOST_LINES:
        raise UnloadableError(f"tree {number} does not end where LightGBM ends it")
    return lines


def _check_tree(fields: dict[str, str], features: int, where: str) -> None:
    leaves = _whole(fields, "num_leaves")
    if leaves < 1 or len(_words(fields, "leaf_value")) != leaves:
        raise UnloadableError(f"{where}: other leaf values than {leaves} leaves")
    for name in _REALS:  # where one is no number, LightGBM ends the process
        if not all(_REAL(word) for word in _words(fields, name)):
            raise UnloadableError(f"{where}: {name} holds what is no number")
    sets = _sets(fields, where)
    if leaves > 1:
        kinds, split = _list(fields, "decision_type", where), _list(fields, "split_feature", where)
        children = [_list(fields, name, where) for name in ("left_child", "right_child")]
        thresholds = _words(fields, "threshold")
        if {len(kinds), len(split), len(thresholds), *map(len, children)} != {leaves - 1}:
            raise UnloadableError(f"{where}: lists of other lengths than {leaves} leaves")
        _check_children(children, leaves, where)
        _inside(split, features, f"{where}: split_feature")
        category = f"{where}: threshold of a category"
        asked = _numbers([at for at, kind in zip(thresholds, kinds, strict=True) if kind & _CATEGORY], category)
        _inside(asked, sets, category)
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
    numbers = (len(_words(fields, name)) for name in ("leaf_const", "leaf_coeff"))
    if (len(counts), sum(counts), *numbers) != (leaves, len(used), leaves, len(used)) or min(counts) < 0:
        raise UnloadableError(f"{where}: other linear terms than its leaves have")
    _inside(used, features, f"{where}: leaf_features")


def _inside(values: list[int], count: int, where: str) -> None:
    if any(not 0 <= value < count for value in values):
        raise UnloadableError(f"{where} beyond {count}")


def _sums(start: int, sizes: list[int]) -> list[int]:
    if any(size < 1 for size in sizes):
        raise UnloadableError("a tree without a size")
    return list(accumulate(sizes, initial=start))


def _fields(lines: list[bytes], where: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        if not (found := re.fullmatch(rb"([a-z_]+)=(.*)", line)):
            raise UnloadableError(f"{where}: a line that is no field")
        name, value = (part.decode(errors="replace") for part in found.groups())
        if name in fields:
            raise UnloadableError(f"{where}: {name} twice")
        fields[name] = value
    return fields


def _whole(fields: dict[str, str], name: str) -> int:
    numbers = _list(fields, name, "the model")
    if len(numbers) != 1 or not 0 <= numbers[0] < 2**31:
        raise UnloadableError(f"the model's text holds no {name}, or none that fits")
    return numbers[0]


def _list(fields: dict[str, str], name: str, where: str) -> list[int]:
    return _numbers(_words(fields, name), f"{where}: {name}")


def _numbers(words: list[str], where: str) -> list[int]:
    if not all(re.fullmatch(r"-?[0-9]{1,10}", each) for each in words):
        raise UnloadableError(f"{where} holds what is no whole number")
    return [int(each) for each in words]


def _words(fields: dict[str, str], name: str) -> list[str]:
    """What spaces part: LightGBM knows no other white space."""
    return [word for word in fields.get(name, "").split(" ") if word]
