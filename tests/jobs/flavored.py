"""A model of every flavor and objective, of the same awkward rows, for tests that hold for all of them."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.bundles import open_bundle, write_bundle
from jobs.fitting import fit, profile_of
from jobs.flavors.opening import open_model
from jobs.flavors.scorer import Signature, as_outputs
from jobs.libraries import library_here
from jobs.matrix import feature_columns
from schemas.bundle import (
    GROUP_COLUMN,
    LABEL_COLUMN,
    BundleManifest,
    Feature,
    Flavor,
    Objective,
    TrainingRecord,
    expected_columns,
    outputs_of,
)
from schemas.pipeline import Pipeline, Training
from validation.parity import measure

ROWS = 300
FEATURES = (
    Feature(name="age", kind="numeric"),
    Feature(name="distance", kind="numeric"),
    Feature(name="carrier", kind="categorical", categories=("AA", "B6", "UA")),
)
CLASSES = ("early", "on_time", "late")
TRAINED: list[tuple[Flavor, Objective, str | None]] = [
    ("lightgbm", "binary", None),
    ("lightgbm", "regression", None),
    ("lightgbm", "multiclass", None),
    ("lightgbm", "ranking", None),
    ("linear", "binary", None),
    ("linear", "regression", None),
    ("linear", "multiclass", None),
    ("sklearn", "binary", "logistic_regression"),
    ("sklearn", "multiclass", "logistic_regression"),
    ("sklearn", "binary", "hist_gradient_boosting"),
    ("sklearn", "multiclass", "random_forest"),
    ("sklearn", "regression", "random_forest"),
]
GIVEN: list[tuple[Flavor, Objective, str | None]] = [("onnx", "binary", None), ("onnx", "multiclass", None)]
ALL = [*TRAINED, *GIVEN]


@dataclass(frozen=True)
class Flavored:
    folder: Path
    rows: pa.Table


def rows() -> pa.Table:
    rng = np.random.default_rng(7)
    ages = pa.array(rng.integers(1, 30, ROWS), mask=rng.random(ROWS) < 0.1)
    carriers = [None if n % 11 == 0 else ("AA", "B6", "UA")[n % 3] for n in range(ROWS)]
    return pa.table({"age": ages, "distance": rng.uniform(0.1, 5, ROWS), "carrier": carriers})


def labels(objective: Objective) -> "np.ndarray[Any, np.dtype[np.float64]]":
    table = rows()
    signal = table["age"].fill_null(12).to_numpy() / 15 + table["distance"].to_numpy() / 5 - 1.4
    if objective == "binary":
        return (signal > 0).astype(np.float64)
    if objective in ("multiclass", "ranking"):
        return np.digitize(signal, (-0.4, 0.4)).astype(np.float64)
    return np.asarray(signal, dtype=np.float64)


def signature(objective: Objective) -> Signature:
    return Signature(FEATURES, objective, CLASSES if objective == "multiclass" else ())


def asked(flavor: Flavor, objective: Objective, estimator: str | None, **more: Any) -> Training:
    declared: dict[str, Any] = {"label": "x", "objective": objective, "split": {"holdout_share": 0.2}, "rounds": 8}
    declared |= {"flavor": flavor, "estimator": estimator, "classes": list(signature(objective).classes), **more}
    if objective == "ranking":
        declared["group"] = "g"
    if flavor == "lightgbm":
        declared["params"] = {"num_leaves": 7, "min_data_in_leaf": 5, "num_threads": 1, **more.get("params", {})}
    return Training.model_validate(declared)


def model_file(flavor: Flavor, objective: Objective, estimator: str | None, *, given: pa.Table | None = None) -> bytes:
    if flavor == "onnx":
        return onnx_graph(signature(objective).numbers)
    given = (rows() if given is None else given).append_column(LABEL_COLUMN, pa.array(labels(objective)))
    given = given.append_column(GROUP_COLUMN, pa.array([f"g{n % 10}" for n in range(ROWS)]))
    training = asked(flavor, objective, estimator)
    pipeline = Pipeline.model_construct(pipeline="p", training=training)
    return fit(pipeline, training, FEATURES, given)


def onnx_graph(numbers: int) -> bytes:
    """A linear model in single precision, of three columns side by side, missing ones as 0."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    weights, bias = rng.normal(size=(3, numbers)), rng.normal(size=numbers)
    link = helper.make_node("Sigmoid" if numbers == 1 else "Softmax", ["sums"], ["probabilities"])
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["x"], ["is_nan"]),
            helper.make_node("Where", ["is_nan", "zero", "x"], ["filled"]),
            helper.make_node("Gemm", ["filled", "weights", "bias"], ["sums"]),
            link,
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, numbers])],
        [
            numpy_helper.from_array(np.float32(0).reshape(1), "zero"),
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(bias.astype(np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def make_bundle(bundles: Path, flavor: Flavor, objective: Objective, estimator: str | None) -> Flavored:
    given, raw = rows(), model_file(flavor, objective, estimator)
    told = signature(objective)
    numbers = open_model(flavor, raw, told).library().predict(feature_columns(FEATURES, given, model="m"))
    outputs, predicted = outputs_of(objective, told.classes), as_outputs(told.classes, numbers)
    record = TrainingRecord(
        pipeline="p", declaration="d", snapshot="s", rows=ROWS, holdout_rows=ROWS, start=dt.date(2013, 1, 1),
        end=dt.date(2013, 6, 30), split="half", label="late", estimator=estimator, params={}, rounds=8, seed=7,
    )  # fmt: skip
    manifest = BundleManifest.model_construct(
        format=1, flavor=flavor, library=library_here(flavor), objective=objective, features=FEATURES,
        outputs=outputs, metrics=measure(objective, labels(objective), predicted), floors={}, training=record, files={},
    )  # fmt: skip
    holdout = given.append_column(LABEL_COLUMN, pa.array(labels(objective)))
    for place, column in enumerate(expected_columns(outputs)):
        holdout = holdout.append_column(column, pa.array(predicted[:, place]))
    profile = profile_of(FEATURES, given, outputs, predicted)
    folder = write_bundle(bundles, "2013-06-30", raw, holdout, profile, manifest)
    assert open_bundle(folder).id == folder.name
    return Flavored(folder, given)
