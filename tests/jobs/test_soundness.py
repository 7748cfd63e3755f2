"""A text of LightGBM that leads out of its own arrays is told before LightGBM follows it."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
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
KIND = "abcdefghi"


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


@pytest.mark.parametrize(
    "params",
    [
        {"objective": "lambdarank"},
        {"objective": "rank_xendcg"},
        {"objective": "multiclass", "num_class": 3, "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        {"objective": "multiclass", "num_class": 3, "boosting": "dart"},
        {"objective": "binary", "monotone_constraints": [1, 0, 0]},
        {"objective": "quantile", "linear_tree": True, "num_leaves": 200, "min_data_in_leaf": 2},
        {"objective": lambda scores, data: (scores - data.get_label(), np.ones(len(scores)))},
    ],
)
def test_a_file_that_lightgbm_saved_is_sound(params: dict[str, Any], tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"größe": ROWS[:, 0], "a=b": ROWS[:, 1], "kind": pd.Categorical.from_codes(ROWS[:, 2].astype(int), [*KIND])}
    )
    data = lightgbm.Dataset(rows, LABELS["multiclass"], group=[60] * 10)
    booster = lightgbm.train({"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5, **params}, data, 4)
    booster.save_model(path := tmp_path / "model.lgb")
    assert all(each in path.read_text() for each in ("\nparameters:\n", "pandas_categorical:[["))
    check_indices(path.read_bytes())


def test_a_category_of_a_high_number_fills_a_word_of_ten_digits() -> None:
    rows = np.repeat(np.arange(64.0), 10)[:, None]
    data = lightgbm.Dataset(rows, rows[:, 0] % 32 == 31, categorical_feature=[0])
    params = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5, "min_data_per_group": 1, "cat_smooth": 0.0}
    found = lightgbm.train({"objective": "binary", **params}, data, 2).model_to_string()
    assert re.search(r"^cat_threshold=.*\b[0-9]{10}\b", found, flags=re.MULTILINE)
    check_indices(found.encode())


def changed(name: str, change: Callable[[list[str]], list[str]], kind: str = "categories") -> bytes:
    """A model one of whose lists is forged, of the first tree that has it; with sizes that agree."""

    def forged(tree: str) -> str:
        found = re.search(rf"^{name}=(\S.*)$", tree, flags=re.MULTILINE)
        return tree.replace(found.group(), f"{name}={' '.join(change(found.group(1).split()))}") if found else tree

    return rewritten(forged, kind)


def rewritten(forged: Callable[[str], str], kind: str = "categories") -> bytes:
    """A model of which the first tree that this changes is forged; with sizes that agree."""
    head, *trees = re.split(r"(?=^Tree=)", text(kind), flags=re.MULTILINE)
    *trees, last = trees
    tree, rest = last.split("end of trees")
    trees.append(tree)
    for at, each in enumerate(trees):
        if forged(each) != each:
            trees[at] = forged(each)
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
        ("threshold", lambda values: ["abc" for _ in values], "categories"),
        ("threshold", lambda values: ["abc" for _ in values], "a forest"),
        ("leaf_value", lambda values: ["abc", *values[1:]], "categories"),
        ("num_cat", lambda _: [""], "trees of one leaf"),
        ("threshold", lambda values: ["0_0" for _ in values], "categories"),
        ("threshold", lambda values: ["0.99999999999999999999" for _ in values], "categories"),
        ("num_cat", lambda values: ["4294967297"], "categories"),
        ("num_leaves", lambda values: ["4294967305"], "categories"),
        ("left_child", lambda values: ["\t".join(values)], "categories"),
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
        (r"max_feature_idx=2", "max_feature_idx=2\n=max_feature_idx=9"),
        (r"max_feature_idx=2", "max_feature_idx=2\n==max_feature_idx=9"),
        (r"max_feature_idx=2", "max_feature_idx=2\nmax_feature_idx"),
        (r"max_feature_idx=2", "max_feature_idx=2\nx=\rmax_feature_idx=9"),
        (r"max_feature_idx=2", "max_feature_idx=2\nx=\0"),
        (r"max_feature_idx=2", "max_feature_idx=4294967298"),
        (r"max_feature_idx=2", "max_feature_idx=2147483648"),
        (r"num_class=3\nnum_tree_per_iteration=3", "num_class=4294967299\nnum_tree_per_iteration=4294967299"),
        (
            r"num_class=3\nnum_tree_per_iteration=3\n(?s:(.*?)) num_class:3",
            r"num_class=0\nnum_tree_per_iteration=0\n\1",
        ),
        (r"num_class:3", "num_class:+2"),
        (r"num_class:3", "num_class::2"),
        (r"num_class:3", ":num_class:2"),
        (r"num_class:3", "num_class:3 num_class:2"),
        (r"num_class:3", "num_class:03"),
        (r"tree_sizes=(\d+) ", "tree_sizes=\\1\u2003"),
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


HIDDEN = "leaf_value=" + " ".join(["100"] * 9)
LINES: dict[str, Callable[[str], str]] = {
    "a carriage return": lambda tree: tree.replace("shrinkage=1\n", f"shrinkage=1\r{HIDDEN}\n"),
    "a key over two lines": lambda tree: tree.rstrip("\n") + f"\nx\n\ny=1\n{HIDDEN}\n\n\n",
    "a line without a key": lambda tree: tree.replace("shrinkage=1\n", "=1\nshrinkage=1\n"),
    "a key with a space": lambda tree: tree.replace("shrinkage=1\n", "shrinkage =1\n"),
    "no empty line": lambda tree: tree.rstrip("\n") + "\n",
    "more behind an empty line": lambda tree: tree.replace("num_cat=", "\nnum_cat="),
    "a list behind the last line read": lambda tree: tree.replace(
        "\nleft_child", "".join(f"\n{'x' * n}=1" for n in range(1, 20)) + "\nleft_child"
    ),
    "another tree": lambda tree: tree.replace("num_leaves=", "Tree=7\nnum_leaves="),
    "a tree with more than a number": lambda tree: tree.replace("Tree=0", "Tree=0 num_leaves=9"),
}


@pytest.mark.parametrize("kind", LINES)
def test_a_forged_line_of_a_tree_is_refused(kind: str) -> None:
    check_indices(rewritten(lambda tree: tree))
    forged = rewritten(LINES[kind])
    assert forged != text().encode()
    with pytest.raises(UnloadableError):
        check_indices(forged)


@pytest.mark.parametrize("line", ["max_feature_idx=9", "=max_feature_idx=9", "tree_sizes=7", "objective"])
def test_without_a_tree_the_head_does_not_go_on_behind_its_end(line: str) -> None:
    data = lightgbm.Dataset(ROWS, LABELS["regression"])
    whole = lightgbm.Booster({"verbosity": -1}, data).model_to_string()
    with pytest.raises(UnloadableError, match="behind the head"):
        check_indices(whole.replace("end of trees\n", f"end of trees\n{line}\n").encode())


def test_a_text_of_many_trees_is_looked_at_in_linear_time() -> None:
    started = time.process_time()
    with pytest.raises(UnloadableError, match="tree 0"):
        check_indices(re.sub("tree_sizes=.*", "tree_sizes=" + "1 " * 100_000, text()).encode())
    assert time.process_time() - started < 5  # a sum for each takes a minute
