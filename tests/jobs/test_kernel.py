"""The tree kernel answers what LightGBM's own `predict` answers, to the last bit, whatever the model and the rows."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from jobs.kernel.building import compile_library
from jobs.kernel.engine import choose_engine
from jobs.kernel.library import load_library, variants
from jobs.kernel.modeltext import UncoveredError, read_model
from jobs.kernel.scorer import KernelModel

LIBRARY = load_library()
pytestmark = pytest.mark.skipif(
    isinstance(LIBRARY, str) and not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no compiler, no kernel"
)
VARIANTS = [] if isinstance(LIBRARY, str) else list(variants(LIBRARY))

Floats = NDArray[np.float64]
# What a feature may hold beside what it was trained on: every kind of nothing, of zero, of category and of end.
ODD = (
    np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-36, -1e-36, float(np.float32(1e-35)), -float(np.float32(1e-35)), 1.1e-35,
    5e-324, 1e300, -1e300, 1.7976931348623157e308, -1.0, -0.5, 0.5, 1.5, 7.0, 40.0, 999.0, 2147483647.0,
    2147483648.0, -2147483649.0, 1e19,
)  # fmt: skip
OBJECTIVES: dict[str, dict[str, Any]] = {
    "binary": {},
    "binary, another sigmoid": {"objective": "binary", "sigmoid": 0.7},
    "regression": {},
    "regression of roots": {"objective": "regression", "reg_sqrt": True},
    "regression_l1": {},
    "huber": {},
    "fair": {},
    "quantile": {"alpha": 0.7},
    "mape": {},
    "poisson": {},
    "gamma": {},
    "tweedie": {},
    "cross_entropy": {},
    "cross_entropy_lambda": {},
    "multiclass": {"num_class": 3},
    "multiclassova": {"num_class": 4, "sigmoid": 1.3},
    "lambdarank": {},
}


def columns_of(asked: Floats) -> list[Floats]:
    return [np.ascontiguousarray(asked[:, index]) for index in range(asked.shape[1])]


def same_bits(one: Floats, other: Floats) -> bool:
    return one.shape == other.shape and np.array_equal(one.view(np.int64), other.view(np.int64))


def rows(rng: np.random.Generator, count: int, categories: int) -> Floats:
    """Six columns: two of real numbers, whole numbers, mostly zero, one that is often missing, and categories."""
    columns = [
        rng.normal(size=count),
        rng.lognormal(0, 3, count),
        rng.integers(-5, 6, count).astype(np.float64),
        np.where(rng.random(count) < 0.7, 0.0, rng.normal(size=count)),
        np.where(rng.random(count) < 0.4, np.nan, rng.uniform(-1, 1, count)),
        np.minimum(rng.geometric(2 / (categories + 1), count), categories).astype(np.float64) - 1,
    ]
    return np.column_stack(columns)


def odd_rows(rng: np.random.Generator, booster: lightgbm.Booster, known: Floats) -> Floats:
    """Rows as known, with odd values and the model's own thresholds, and their neighbours, sprinkled over them."""
    found = known[rng.integers(0, len(known), 400)].copy()
    trees = read_model(booster.model_to_string()).trees
    numbers = np.concatenate([np.zeros(1), *(tree.threshold[~tree.is_category] for tree in trees)])
    edges = [numbers, np.nextafter(numbers, np.inf), np.nextafter(numbers, -np.inf), np.array(ODD)]
    for column in range(found.shape[1]):
        values = np.concatenate(edges)
        chosen = rng.random(len(found)) < 0.4
        found[chosen, column] = rng.choice(values, chosen.sum())
    return found


def train(
    rng: np.random.Generator, name: str, params: dict[str, Any], known: Floats, *, rounds: int, categorical: bool
) -> lightgbm.Booster:
    signal = np.nan_to_num(known[:, 0] + np.sin(known[:, 5]) + known[:, 2] / 5 + known[:, 4], nan=0.3)
    signal = signal + rng.normal(0, 0.3, len(known))
    kind = OBJECTIVES[name].get("objective", name)
    label = signal
    if kind in ("binary", "cross_entropy", "cross_entropy_lambda"):
        label = (signal > 0).astype(np.float64)
    elif kind in ("multiclass", "multiclassova", "lambdarank"):
        label = np.digitize(signal, (-0.7, 0.4)).astype(np.float64)
    elif kind in ("poisson", "gamma", "tweedie"):
        label = np.exp(signal / 3)
    data = lightgbm.Dataset(
        known,
        label,
        group=[len(known) // 10] * 10 if kind == "lambdarank" else None,
        categorical_feature=[5] if categorical else [],
        params={"verbosity": -1},
        free_raw_data=False,
    )
    fixed = {"objective": kind, "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 2, "max_bin": 255, "seed": 1}
    return lightgbm.train({**fixed, **OBJECTIVES[name], **params}, data, num_boost_round=rounds)


def check(booster: lightgbm.Booster, asked: Floats, *names: str) -> None:
    """That the kernel answers as the booster, raw and transformed, in every width of vectors, and reads only."""
    columns = columns_of(asked)
    for column in columns:
        column.flags.writeable = False
    text = booster.model_to_string()
    for variant in names or VARIANTS:
        kernel = KernelModel(read_model(text), variant=variant)
        for raw in (True, False):
            expected = np.asarray(booster.predict(asked, raw_score=raw, num_threads=1), dtype=np.float64)
            assert same_bits(kernel.predict(columns, raw=raw), expected), (variant, raw)


@st.composite
def models(draw: st.DrawFn) -> tuple[int, str, dict[str, Any], dict[str, Any]]:
    params = {
        "num_leaves": draw(st.sampled_from([2, 3, 8, 9, 31, 33, 64, 200, 256])),
        "use_missing": draw(st.booleans()),
        "zero_as_missing": draw(st.booleans()),
        "max_cat_to_onehot": draw(st.sampled_from([1, 4])),
        "cat_smooth": 1.0,
        "min_data_per_group": 2,
        "learning_rate": draw(st.sampled_from([0.1, 0.7])),
        "max_bin": draw(st.sampled_from([15, 255, 1000])),
        **draw(
            st.sampled_from(
                [
                    {},
                    {"boosting": "dart"},
                    {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
                    {"extra_trees": True},
                ]
            )
        ),
    }
    shape = {"categorical": draw(st.booleans()), "rounds": draw(st.sampled_from([1, 2, 9]))}
    return draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from(sorted(OBJECTIVES))), params, shape


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(model=models(), categories=st.sampled_from([2, 20, 300]))
def test_any_model_scores_any_row_to_the_last_bit(
    model: tuple[int, str, dict[str, Any], dict[str, Any]], categories: int
) -> None:
    seed, name, params, shape = model
    rng = np.random.default_rng(seed)
    known = rows(rng, 600, categories)
    booster = train(rng, name, params, known, **shape)
    check(booster, odd_rows(rng, booster, known))


@pytest.fixture(scope="module")
def known() -> Floats:
    return rows(np.random.default_rng(1), 3000, 300)


@pytest.fixture(scope="module")
def booster(known: Floats) -> lightgbm.Booster:
    """A model of numbers and of 300 categories, with leaves enough for several planes."""
    shape = {"num_leaves": 60, "max_cat_to_onehot": 4, "cat_smooth": 1.0, "min_data_per_group": 2}
    return train(np.random.default_rng(2), "binary", shape, known, rounds=20, categorical=True)


def test_the_kernel_is_compiled_where_there_is_a_compiler() -> None:
    assert not isinstance(LIBRARY, str), f"{LIBRARY}: python -m jobs.kernel.building compiles it"


def test_more_categories_than_a_byte_holds_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    category = rng.integers(0, 3000, 60_000).astype(np.float64)
    effect = rng.normal(size=3000)
    known = np.column_stack([category, rng.normal(size=len(category))])
    data = lightgbm.Dataset(known, effect[category.astype(np.int64)], categorical_feature=[0], params={"max_bin": 5000})
    params = {"objective": "regression", "verbosity": -1, "max_cat_threshold": 1000, "min_data_in_leaf": 1, "seed": 1}
    booster = lightgbm.train({**params, "cat_smooth": 0.0, "min_data_per_group": 1}, data, num_boost_round=20)
    kernel = KernelModel(read_model(booster.model_to_string()))

    assert kernel.classes[0] > 510, "three bytes are needed"
    check(booster, np.column_stack([np.arange(-5, 4000), np.tile(0.0, 4005)]).astype(np.float64))


def test_more_thresholds_than_a_byte_holds_are_told_apart() -> None:
    rng = np.random.default_rng(4)
    known = rng.normal(size=(20_000, 2))
    known[rng.random(known.shape) < 0.1] = np.nan
    data = lightgbm.Dataset(known, np.sin(40 * np.nan_to_num(known[:, 0])), params={"max_bin": 5000})
    params = {"objective": "regression", "verbosity": -1, "num_leaves": 200, "min_data_in_leaf": 1, "seed": 1}
    booster = lightgbm.train(params, data, num_boost_round=30)

    assert max(KernelModel(read_model(booster.model_to_string())).thresholds.values()) > 510, "three bytes are needed"
    check(booster, odd_rows(rng, booster, known))


def test_an_objective_of_ones_own_gives_the_plain_sum(known: Floats) -> None:
    def squares(scores: Floats, data: lightgbm.Dataset) -> tuple[Floats, Floats]:
        return scores - np.asarray(data.get_label()), np.ones(len(scores))

    data = lightgbm.Dataset(known, known[:, 0], params={"verbosity": -1})
    check(lightgbm.train({"objective": squares, "verbosity": -1}, data, num_boost_round=5), known)


def test_trees_of_one_leaf_are_added_too(known: Floats) -> None:
    data = lightgbm.Dataset(known, np.full(len(known), 2.5), params={"verbosity": -1})
    constant = lightgbm.train({"objective": "poisson", "verbosity": -1}, data, num_boost_round=3)

    assert "num_leaves=1\n" in constant.model_to_string()
    check(constant, known)


def test_a_model_that_stopped_early_scores_with_its_best_iteration(known: Floats) -> None:
    rng = np.random.default_rng(5)
    label = (rng.random(len(known)) < 0.5).astype(np.float64)
    data = lightgbm.Dataset(known[:2000], label[:2000], params={"verbosity": -1}, free_raw_data=False)
    stopped = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "seed": 1},
        data,
        num_boost_round=60,
        keep_training_booster=True,
        valid_sets=[data.create_valid(known[2000:], label[2000:])],
        callbacks=[lightgbm.early_stopping(5, verbose=False)],
    )

    assert 0 < stopped.best_iteration < stopped.num_trees()
    check(stopped, known)


def test_a_model_that_was_trained_on_with_other_missing_values_is_covered(booster: lightgbm.Booster) -> None:
    """Trees of one model may treat what is missing in a feature in different ways."""
    rng = np.random.default_rng(6)
    later = rows(rng, 1000, 300)
    later[rng.random(later.shape) < 0.2] = np.nan
    label = (np.nan_to_num(later[:, 0]) > 0).astype(np.float64)
    data = lightgbm.Dataset(later, label, categorical_feature=[5], params={"verbosity": -1, "zero_as_missing": True})
    params = {"objective": "binary", "verbosity": -1, "zero_as_missing": True}
    check(lightgbm.train(params, data, num_boost_round=5, init_model=booster), odd_rows(rng, booster, later))


@given(cuts=st.lists(st.integers(0, 3000), max_size=8).map(sorted), variant=st.sampled_from(VARIANTS or ["none"]))
def test_no_row_depends_on_its_batch(cuts: list[int], variant: str, booster: lightgbm.Booster, known: Floats) -> None:
    kernel = KernelModel(read_model(booster.model_to_string()), variant=variant)
    edges = [0, *cuts, len(known)]
    parts = [kernel.predict(columns_of(known[start:end])) for start, end in pairwise(edges)]

    assert same_bits(np.concatenate(parts), kernel.predict(columns_of(known)))


def test_the_order_of_rows_changes_no_score(booster: lightgbm.Booster, known: Floats) -> None:
    kernel = KernelModel(read_model(booster.model_to_string()))
    order = np.random.default_rng(7).permutation(len(known))

    assert same_bits(kernel.predict(columns_of(known[order])), kernel.predict(columns_of(known))[order])


def test_columns_are_read_where_they_are_and_left_as_they_were(booster: lightgbm.Booster, known: Floats) -> None:
    kernel = KernelModel(read_model(booster.model_to_string()))
    columns = columns_of(known)
    before = [column.copy() for column in columns]
    expected = kernel.predict(columns)

    assert all(same_bits(column, copy) for column, copy in zip(columns, before, strict=True))
    assert same_bits(kernel.predict([known[:, index] for index in range(6)]), expected), "not contiguous"


def test_no_rows_are_no_scores(booster: lightgbm.Booster) -> None:
    assert KernelModel(read_model(booster.model_to_string())).predict([np.zeros(0)] * 6).shape == (0,)


def test_columns_that_do_not_fit_are_refused(booster: lightgbm.Booster) -> None:
    kernel = KernelModel(read_model(booster.model_to_string()))
    for columns in ([np.zeros(3)] * 5, [*[np.zeros(3)] * 5, np.zeros(2)]):
        with pytest.raises(ValueError, match="columns; expected 6"):
            kernel.predict(columns)


# What the kernel does not cover


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"objective": "regression", "linear_tree": True}, "linear trees"),
        ({"objective": "regression", "num_leaves": 500, "min_data_in_leaf": 1}, "a tree of 500 leaves, more than 256"),
    ],
)
def test_what_is_not_covered_is_scored_by_the_library_and_named(
    params: dict[str, Any], reason: str, known: Floats
) -> None:
    data = lightgbm.Dataset(
        known, np.sin(9 * known[:, 0]), params={"verbosity": -1, "linear_tree": "linear_tree" in params}
    )
    uncovered = lightgbm.train({**params, "verbosity": -1}, data, num_boost_round=2)

    engine = choose_engine(uncovered, columns_of(known))

    assert engine.name == f"lightgbm: {reason}"
    assert same_bits(engine.predict(columns_of(known)), np.asarray(uncovered.predict(known, num_threads=1)))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("objective=binary", "objective=of_a_later_library", "objective of_a_later_library"),
        ("num_tree_per_iteration=1", "num_tree_per_iteration=3", "20 trees for 3 outputs"),
        ("max_feature_idx=5", "", "no number max_feature_idx in the model's text"),
        ("left_child=", "left_child=0 ", "a tree whose lists are of other lengths than its leaves"),
        ("left_child=1 ", "left_child=0 ", "a tree whose nodes are in another order than LightGBM's"),
        ("leaf_value=", "leaf_value=x ", "no numbers leaf_value in the model's text"),
    ],
)
def test_a_text_that_is_not_understood_is_not_guessed_at(
    old: str, new: str, reason: str, booster: lightgbm.Booster
) -> None:
    text = booster.model_to_string()
    assert old in text
    with pytest.raises(UncoveredError, match=reason):
        KernelModel(read_model(text.replace(old, new, 1)))


def test_a_kernel_that_differs_in_one_bit_on_the_holdout_does_not_score(
    booster: lightgbm.Booster, known: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = KernelModel.predict

    def wrong(kernel: KernelModel, columns: list[Floats]) -> Floats:
        scores = right(kernel, columns)
        scores[17] = np.nextafter(scores[17], 2)
        return scores

    monkeypatch.setattr(KernelModel, "predict", wrong)

    engine = choose_engine(booster, columns_of(known))

    assert engine.name == "lightgbm: the kernel differs in 1 rows of the holdout, first in row 17"
    assert same_bits(engine.predict(columns_of(known)), np.asarray(booster.predict(known, num_threads=1)))


# The library and its build


def test_a_machine_without_a_compiler_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)

    assert compile_library(tmp_path / "lib.so") == "no C compiler (cc, gcc or clang) is on PATH"


def test_a_compiler_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    (tmp_path / "lib.so").write_text("before")

    assert compile_library(tmp_path / "lib.so") is not None
    assert [path.name for path in tmp_path.iterdir()] == ["lib.so"]
    assert (tmp_path / "lib.so").read_text() == "before"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "the kernel was not compiled"), (b"not a library", "the kernel cannot be loaded: ")],
)
def test_without_the_compiled_library_the_reason_is_told(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "libtrees.so"
    if content is not None:
        path.write_bytes(content)
    found = load_library(path)

    assert isinstance(found, str)
    assert found.startswith(reason)


def test_from_an_archive_no_library_is_loaded() -> None:
    assert load_library(Path("/tmp/almanac.zip/jobs/kernel/libtrees.so")) == "no library can be loaded from an archive"
