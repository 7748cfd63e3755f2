"""A text of LightGBM that leads out of its own arrays is told before LightGBM follows it."""

import re
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import pytest

from jobs.flavors.scorer import UnloadableError
from jobs.flavors.soundness import check_indices

RNG = np.random.default_rng(3)
ROWS = np.column_stack([RNG.normal(size=600), RNG.normal(size=600), RNG.integers(0, 9, 600)])
LABELS = {
    "binary": np.isin(ROWS[:, 2], [1, 4, 6]) ^ (ROWS[:, 0] > 1),
    "regression": ROWS[:, 1],
    "multiclass": ROWS[:, 2] % 3,
}
KINDS: dict[str, dict[str, Any]] = {
    "categories": {"objective": "binary"},
    "several classes": {"objective": "multiclass", "num_class": 3},
    "each class against the others": {"objective": "multiclassova", "num_class": 3},
    "linear trees": {"objective": "regression", "linear_tree": True},
    "trees of one leaf": {"objective": "regression", "min_data_in_leaf": 600},
    "a forest": {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
}


def text(kind: str = "categories") -> str:
    params = {"num_leaves": 9, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1, **KINDS[kind]}
    label = LABELS[{"multiclassova": "multiclass"}.get(params["objective"], params["objective"])]
    data = lightgbm.Dataset(ROWS, label.astype(float), categorical_feature=[2])
    return str(lightgbm.train(params, data, num_boost_round=6).model_to_string())


@pytest.mark.parametrize("kind", KINDS)
def test_what_lightgbm_writes_is_sound(kind: str) -> None:
    check_indices(text(kind).encode())


def test_a_model_without_a_tree_is_sound() -> None:
    data = lightgbm.Dataset(ROWS, LABELS["regression"])
    check_indices(lightgbm.Booster({"verbosity": -1}, data).model_to_string().encode())


def changed(name: str, change: Callable[[list[str]], list[str]], kind: str = "categories") -> bytes:
    """A model one of whose lists is forged, of the first tree that has it; with sizes that agree."""
    head, *trees = re.split(r"(?=^Tree=)", text(kind), flags=re.MULTILINE)
    *trees, last = trees
    tree, rest = last.split("end of trees")
    trees.append(tree)
    for at, each in enumerate(trees):
        if found := re.search(rf"^{name}=(\S.*)$", each, flags=re.MULTILINE):
            trees[at] = each.replace(found.group(), f"{name}={' '.join(change(found.group(1).split()))}")
            break
    sizes = f"tree_sizes={' '.join(str(len(each)) for each in trees)}"
    # The last one ends with an empty line of its own.
    return (re.sub("tree_sizes=.*", sizes, head) + "".join(trees) + "end of trees" + rest).encode()


@pytest.mark.parametrize(
    ("name", "change", "kind"),
    [
        ("left_child", lambda values: ["-2000000000", *values[1:]], "categories"),
        ("left_child", lambda values: ["2000000000", *values[1:]], "categories"),
        ("right_child", lambda values: [*values[:-1], "0"], "categories"),
        ("right_child", lambda values: values[:-1], "categories"),
        ("split_feature", lambda values: ["3", *values[1:]], "categories"),
        ("split_feature", lambda values: ["-1", *values[1:]], "categories"),
        ("threshold", lambda values: ["99999" for _ in values], "categories"),
        ("threshold", lambda values: ["nan" for _ in values], "categories"),
        ("cat_boundaries", lambda values: [*values[:-1], "4000"], "categories"),
        ("cat_boundaries", lambda values: values[::-1], "categories"),
        ("cat_threshold", lambda values: values[:-1], "categories"),
        ("leaf_value", lambda values: values[:-1], "categories"),
        ("num_leaves", lambda values: ["100000"], "categories"),
        ("num_leaves", lambda values: ["1e9"], "categories"),
        ("leaf_features", lambda values: ["77", *values[1:]], "linear trees"),
        ("num_features", lambda values: ["9", *values[1:]], "linear trees"),
    ],
)
def test_a_forged_list_is_refused(name: str, change: Callable[[list[str]], list[str]], kind: str) -> None:
    check_indices(changed(name, lambda values: values, kind))  # the test itself forges well
    with pytest.raises(UnloadableError):
        check_indices(changed(name, change, kind))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"num_tree_per_iteration=3", "num_tree_per_iteration=6"),
        (r"num_class:3", "num_class:300"),
        (r"max_feature_idx=2", "max_feature_idx=0"),
        (r"max_feature_idx=2", "max_feature_idx=2\nmax_feature_idx=9"),
        (r"tree_sizes=\d+", "tree_sizes=7"),
        (r"tree_sizes=\d+ ", "tree_sizes="),
    ],
)
def test_a_forged_head_is_refused(old: str, new: str) -> None:
    forged, count = re.subn(old, new, text("several classes"), count=1)
    assert count == 1
    with pytest.raises(UnloadableError):
        check_indices(forged.encode())


def test_an_objective_of_more_classes_than_trees_is_refused() -> None:
    forged = text().replace("objective=binary sigmoid:1", "objective=multiclass num_class:300")
    with pytest.raises(UnloadableError, match="1 trees a row"):
        check_indices(forged.encode())
