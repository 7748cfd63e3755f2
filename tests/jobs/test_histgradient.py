"""The tree kernel answers what HistGradientBoosting answers, to the last bit, whatever the model and the rows."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from jobs.flavors.histgradient import HistGradient
from jobs.flavors.scorer import Signature, same_bits
from jobs.flavors.sklearn import SklearnModel
from jobs.flavors.skopsfile import dumps
from jobs.kernel.library import load_library
from jobs.kernel.modeltext import UncoveredError
from schemas.bundle import Feature, Objective

pytestmark = pytest.mark.skipif(isinstance(load_library(), str), reason="no compiler, no kernel")

Floats = NDArray[np.float64]
FEATURES = tuple(Feature(name=f"f{place}", kind="numeric") for place in range(3))
ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e300, -1e300, -1.0, 0.5])
KINDS: dict[str, tuple[Objective, dict[str, Any]]] = {
    "binary": ("binary", {}),
    "multiclass": ("multiclass", {}),
    "squared_error": ("regression", {"loss": "squared_error"}),
    "absolute_error": ("regression", {"loss": "absolute_error"}),
    "poisson": ("regression", {"loss": "poisson"}),
    "gamma": ("regression", {"loss": "gamma"}),
    "quantile": ("regression", {"loss": "quantile", "quantile": 0.7}),
}


def fitted(name: str, rng: np.random.Generator, known: Floats, **params: Any) -> Any:
    objective, own = KINDS[name]
    signal = np.nan_to_num(known[:, 0] + np.sin(known[:, 1])) + rng.normal(0, 0.2, len(known))
    kind = HistGradientBoostingRegressor if objective == "regression" else HistGradientBoostingClassifier
    label = {"binary": (signal > 0).astype(float), "multiclass": np.digitize(signal, (-0.5, 0.5)).astype(float)}
    return kind(early_stopping=False, **own, **params).fit(known, label.get(objective, np.exp(signal)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(sorted(KINDS)),
    leaves=st.sampled_from([2, 3, 9, 31, 64, 200]),
    rounds=st.sampled_from([1, 2, 7]),
)
def test_any_model_scores_any_row_to_the_last_bit(seed: int, name: str, leaves: int, rounds: int) -> None:
    rng = np.random.default_rng(seed)
    known = np.column_stack(
        [
            rng.normal(size=500),
            np.where(rng.random(500) < 0.3, np.nan, rng.lognormal(0, 3, 500)),
            rng.integers(-3, 4, 500),
        ]
    )
    model = fitted(name, rng, known, max_leaf_nodes=leaves, max_iter=rounds, min_samples_leaf=2)
    splits = [tree.nodes["num_threshold"][tree.nodes["is_leaf"] == 0] for turn in model._predictors for tree in turn]
    edges = np.concatenate([*splits, ODD])
    edges = np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])
    asked = known.copy()
    for column in range(3):
        odd = rng.random(500) < 0.4
        asked[odd, column] = rng.choice(edges, odd.sum())
    asked[np.isinf(asked)] = np.nan  # scikit-learn refuses infinities
    objective = KINDS[name][0]
    signature = Signature(FEATURES, objective, ("a", "b", "c") if objective == "multiclass" else ())
    columns = [np.ascontiguousarray(column) for column in asked.T]
    found = HistGradient(model, signature).predict(columns)
    if objective == "regression":
        expected = model.predict(asked)
    else:
        expected = model.predict_proba(asked)
        expected = np.ascontiguousarray(expected[:, 1]) if objective == "binary" else np.ascontiguousarray(expected)
    assert same_bits(found, expected)


def test_the_kernel_scores_for_a_bundle_where_it_may() -> None:
    rng = np.random.default_rng(1)
    known = rng.normal(size=(300, 3))
    model = SklearnModel(dumps(fitted("binary", rng, known, max_iter=3)), Signature(FEATURES, "binary"))
    assert model.fastest(list(known.T)).name.startswith("kernel (")


def test_categorical_splits_are_left_to_the_library() -> None:
    rng = np.random.default_rng(1)
    known = np.column_stack([rng.normal(size=(300, 2)), rng.integers(0, 4, 300)])
    model = fitted("binary", rng, known, max_iter=3, categorical_features=[2])
    with pytest.raises(UncoveredError, match="categorical splits"):
        HistGradient(model, Signature(FEATURES, "binary"))
    engine = SklearnModel(dumps(model), Signature(FEATURES, "binary")).fastest(list(known.T))
    assert engine.name.endswith(": categorical splits of HistGradientBoosting")
