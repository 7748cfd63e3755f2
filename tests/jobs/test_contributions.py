"""Contributions of features: they add up to the score, and depend on the row alone."""

from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.bundles import Bundle
from jobs.contributions import check_explainable, contributions, explained
from jobs.flavors.lightgbm import LightGBM
from jobs.flavors.scorer import Signature
from schemas.bundle import BundleManifest, Feature
from schemas.errors import DeclarationError
from schemas.run import ENTITY_ID

FEATURE_NAMES = ("first", "second", "kind")


def bundle_of(booster: Any, flavor: Any = "lightgbm") -> Bundle:
    features = (
        Feature(name="first", kind="numeric"),
        Feature(name="second", kind="numeric"),
        Feature(name="kind", kind="categorical", categories=("a", "b", "c")),
    )
    classes = tuple("abc"[: booster.num_model_per_iteration()]) if booster.num_model_per_iteration() > 1 else ()
    scorer = LightGBM(booster.model_to_string().encode(), Signature(features, "binary", classes))
    unused: Any = None
    manifest = BundleManifest.model_construct(
        flavor=flavor,
        features=features,
        library="",
        objective="binary",
        outputs=(),
        metrics={},
        floors={},
        training=unused,
        files={},
    )
    return Bundle("made", unused, "", manifest, scorer, scorer.library("test"), unused, unused)


def table_of(seed: int, count: int) -> pa.Table:
    """Rows with missing values, and categories that no model has seen."""
    draw = np.random.default_rng(seed)
    return pa.table(
        {
            ENTITY_ID: [f"UA:{n}" for n in range(count)],
            "first": pa.array(draw.normal(size=count), mask=draw.random(count) < 0.1),
            "second": draw.integers(0, 4, count).astype(float),
            "kind": pa.array(draw.choice(["a", "b", "c", "new"], count), mask=draw.random(count) < 0.1),
        }
    )


def grown(seed: int, params: dict[str, Any], flavor: str = "lightgbm") -> Bundle:
    draw = np.random.default_rng(seed)
    matrix = np.column_stack([draw.normal(size=300), draw.integers(0, 4, 300), draw.integers(0, 3, 300)])
    label = (matrix[:, 0] + (matrix[:, 2] == 1) + draw.normal(size=300) > 0.3).astype(float)
    data = lightgbm.Dataset(matrix, label, feature_name=[*FEATURE_NAMES], categorical_feature=["kind"])
    fixed = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5, "min_data_per_group": 5, "seed": seed}
    return bundle_of(lightgbm.train({**fixed, **params}, data, 12), flavor)


KINDS: list[dict[str, Any]] = [
    {"objective": "binary"},
    {"objective": "regression", "boosting": "dart"},
    {"objective": "poisson"},
    {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.7},
]


@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_contributions_add_up_to_the_score_less_what_is_expected_of_anybody(
    seed: int, params: dict[str, Any], top: int
) -> None:
    bundle, table = grown(seed, params), table_of(seed, 40)

    found, told = contributions(bundle, table), explained(bundle, table, top).to_pylist()

    assert np.abs(found.moved.sum(axis=1) - (found.raw - found.expected)).max() < 1e-9
    for row, moved in zip(told, found.moved.tolist(), strict=True):
        named = {each["feature"]: each["contribution"] for each in row["contributions"]}
        assert [*named] == sorted(FEATURE_NAMES, key=lambda name: -abs(moved[FEATURE_NAMES.index(name)]))[:top]
        assert all(moved[FEATURE_NAMES.index(name)] == value for name, value in named.items())
        assert row["expected"] + sum(named.values()) + row["rest"] == pytest.approx(row["raw"], abs=1e-9)


def test_how_rows_come_does_not_change_an_explanation() -> None:
    bundle, table = grown(3, KINDS[0]), table_of(3, 50)
    whole = pa.Table.from_batches([explained(bundle, table, 2)])

    parts = [explained(bundle, table.slice(start, 7), 2) for start in range(0, 50, 7)]

    assert pa.Table.from_batches(parts).combine_chunks().equals(whole.combine_chunks())


@pytest.mark.parametrize(
    ("params", "flavor", "told"),
    [
        ({"objective": "regression", "linear_tree": True}, "lightgbm", "has linear trees"),
        ({"objective": "multiclass", "num_class": 2}, "lightgbm", "has 2 outputs"),
        (KINDS[0], "ensemble", "of the flavor ensemble"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_its_name(params: dict[str, Any], flavor: str, told: str) -> None:
    bundle = grown(1, params, flavor)

    with pytest.raises(DeclarationError, match=rf"p: explain: champion: bundle made .*{told}.*EXPLAIN_MODEL"):
        check_explainable({"champion": bundle}, "p: explain")
