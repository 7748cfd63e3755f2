"""What holds for a bundle holds for one of every flavor: it says the same of a row, wherever the row stands."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.bundles import Bundle, check_promises, open_bundle, proven_bundle
from jobs.flavors.linear import LinearModel
from jobs.flavors.opening import open_model
from jobs.flavors.scorer import Steady, UnloadableError, UnusableError, as_outputs, same_bits
from jobs.flavors.skopsfile import dumps, loads
from schemas.bundle import Flavor, Objective, expected_columns
from schemas.errors import InputError
from tests.jobs.flavored import (
    ALL,
    CLASSES,
    ROWS,
    TRAINED,
    Flavored,
    make_bundle,
    model_file,
    onnx_graph,
    rows,
    signature,
)

Kind = tuple[Flavor, Objective, str | None]
every_flavor = pytest.mark.parametrize("kind", ALL, ids=lambda kind: "-".join(part for part in kind if part))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Flavored]:
    """Of each kind a bundle, made once."""
    return lru_cache(lambda kind: make_bundle(tmp_path_factory.mktemp("bundles"), *kind))


def proven(flavored: Flavored) -> Bundle:
    return proven_bundle(flavored.folder, open_bundle(flavored.folder).digest)[0]


@every_flavor
def test_a_bundle_of_any_flavor_proves_itself_and_keeps_its_promises(
    kind: Kind, made: Callable[[Kind], Flavored]
) -> None:
    opened = open_bundle(made(kind).folder)
    bundle, difference = proven_bundle(opened.folder, opened.digest)
    check_promises(bundle, {})
    expected = np.column_stack([opened.holdout[name].to_numpy() for name in expected_columns(opened.manifest.outputs)])
    assert difference == 0.0
    assert same_bits(bundle.predict(opened.holdout), expected)
    assert expected.shape == (ROWS, len(CLASSES) + 1 if kind[1] == "multiclass" else 1)


@every_flavor
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_neither_order_nor_batches_change_a_bit(
    data: st.DataObject, kind: Kind, made: Callable[[Kind], Flavored]
) -> None:
    flavored = made(kind)
    bundle = proven(flavored)
    expected = bundle.predict(flavored.rows)
    seed = data.draw(st.integers(0, 2**32 - 1))
    order = np.random.default_rng(seed).permutation(ROWS)
    cuts = data.draw(st.lists(st.integers(0, ROWS), max_size=4).map(sorted))
    shuffled = flavored.rows.take(pa.array(order))
    parts = [shuffled.slice(a, b - a) for a, b in pairwise([0, *cuts, ROWS]) if b > a]
    found = np.concatenate([bundle.predict(part) for part in parts])
    assert same_bits(found, expected[order])


@every_flavor
def test_the_input_is_only_read(kind: Kind, made: Callable[[Kind], Flavored]) -> None:
    flavored = made(kind)
    before = pa.table({name: pa.array(flavored.rows[name].to_pylist()) for name in flavored.rows.schema.names})
    proven(flavored).predict(flavored.rows)
    assert flavored.rows.equals(before)


@every_flavor
def test_no_row_at_all_has_no_output(kind: Kind, made: Callable[[Kind], Flavored]) -> None:
    flavored = made(kind)
    bundle = proven(flavored)
    assert bundle.predict(flavored.rows.slice(0, 0)).shape == (0, len(bundle.manifest.outputs))


@every_flavor
def test_columns_are_taken_by_name_and_more_of_them_do_not_matter(kind: Kind, made: Callable[[Kind], Flavored]) -> None:
    flavored = made(kind)
    bundle = proven(flavored)
    wider = flavored.rows.append_column("more", pa.array(range(ROWS)))
    wider = wider.select(["carrier", "more", "distance", "age"])
    assert same_bits(bundle.predict(wider), bundle.predict(flavored.rows))


@every_flavor
@pytest.mark.parametrize("unseen", ["ZZ", "", "aa"])
def test_an_unseen_category_is_a_missing_one(unseen: str, kind: Kind, made: Callable[[Kind], Flavored]) -> None:
    flavored = made(kind)
    bundle, table = proven(flavored), flavored.rows
    of = [table.set_column(2, "carrier", pa.array([value] * ROWS, pa.string())) for value in (unseen, None)]
    assert same_bits(bundle.predict(of[0]), bundle.predict(of[1]))


@every_flavor
@pytest.mark.parametrize(
    ("column", "values", "code"),
    [("age", ["1", "2"], "BUNDLE_DTYPE"), ("carrier", [1.5, 2.5], "BUNDLE_DTYPE"), ("age", None, "BUNDLE_FEATURES")],
)
def test_a_missing_column_or_one_of_another_type_is_refused(
    column: str, values: list[Any] | None, code: str, kind: Kind, made: Callable[[Kind], Flavored]
) -> None:
    two = made(kind).rows.slice(0, 2).drop_columns([column])
    if values:
        two = two.append_column(column, pa.array(values))
    with pytest.raises(InputError, match=code):
        proven(made(kind)).predict(two)


@pytest.mark.parametrize("kind", TRAINED, ids=str)
def test_the_same_rows_give_the_same_file(kind: Kind) -> None:
    first, second = model_file(*kind), model_file(*kind)
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()


@pytest.mark.parametrize("flavor", ["lightgbm", "sklearn", "onnx", "linear"])
@pytest.mark.parametrize("raw", [b"", b"not a model", b"\x00" * 1000, b"PK\x03\x04", b"{}"])
def test_bytes_that_are_no_model_are_refused(flavor: Flavor, raw: bytes) -> None:
    with pytest.raises(UnloadableError):
        open_model(flavor, raw, signature("binary"))


@pytest.mark.parametrize("kind", ALL, ids=str)
def test_a_model_of_another_shape_than_its_bundle_says_is_refused(kind: Kind) -> None:
    flavor, objective, _ = kind
    other: Objective = "binary" if objective == "multiclass" else "multiclass"
    columns = [np.zeros(3)] * 3
    with pytest.raises((UnloadableError, UnusableError)):
        open_model(flavor, model_file(*kind), signature(other)).library().predict(columns)


# Outputs


def test_the_likeliest_class_stands_behind_the_probabilities() -> None:
    found = as_outputs(CLASSES, np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]))
    assert found.tolist() == [[0.2, 0.5, 0.3, 1.0], [0.4, 0.4, 0.2, 0.0]]


@pytest.mark.parametrize("kind", TRAINED, ids=str)
def test_a_feature_without_any_value_is_trained_on_and_looked_at_by_nobody(kind: Kind) -> None:
    empty = rows().set_column(1, "distance", pa.nulls(ROWS, pa.float64()))
    numbers = open_model(kind[0], model_file(*kind, given=empty), signature(kind[1])).library()
    columns = [np.full(3, 5.0), np.array([np.nan, 1.0, -7.0]), np.zeros(3)]
    found = numbers.predict(columns).reshape(3, -1)
    assert same_bits(found, np.ascontiguousarray(np.broadcast_to(found[0], found.shape)))


# skops: nothing but what is on the list


def forged(change: Callable[[dict[str, Any]], None]) -> bytes:
    from sklearn.linear_model import Ridge

    with zipfile.ZipFile(io.BytesIO(dumps(Ridge().fit([[0.0], [1.0]], [0.0, 1.0])))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    described = json.loads(parts["schema.json"])
    change(described)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, raw in parts.items():
            archive.writestr(name, json.dumps(described) if name == "schema.json" else raw)
    return written.getvalue()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"__module__": "os", "__class__": "system"}, "os.system"),
        ({"__module__": "builtins", "__class__": "eval"}, "builtins.eval"),
        ({"__module__": "subprocess", "__class__": "Popen"}, "subprocess.Popen"),
        ({"__module__": "sklearn.linear_model._ridge", "__class__": "RidgeCV"}, "sklearn.linear_model._ridge.RidgeCV"),
        ({"__loader__": "MethodNode"}, "MethodNode"),
        ({"__loader__": "OperatorFuncNode"}, "OperatorFuncNode"),
    ],
)
def test_a_type_that_is_not_on_the_list_is_refused_by_name(change: dict[str, str], named: str) -> None:
    with pytest.raises(UnloadableError, match=f"{named}.* is not on the list"):
        loads(forged(lambda described: described.update(change)))


def test_an_estimator_of_another_package_is_refused_by_name() -> None:
    import lightgbm

    table = np.arange(80.0).reshape(40, 2)
    model = lightgbm.LGBMRegressor(n_estimators=1, verbosity=-1).fit(table, table[:, 0])
    with pytest.raises(UnloadableError, match=r"type .*lightgbm.* is not on the list"):
        loads(dumps(model))


# What goes by the shape of its input


def test_a_library_whose_rows_depend_on_each_other_is_found_out() -> None:
    steady = Steady(lambda columns: columns[0] - columns[0].mean(), block=8)
    with pytest.raises(UnusableError, match="depends on the rows beside it"):
        steady.prove([np.arange(20.0)])


def test_a_linear_models_weights_must_be_as_many_as_its_numbers() -> None:
    term = {"feature": "a", "weights": [1.0]}
    with pytest.raises(ValueError, match="expected 2 weights"):
        LinearModel.model_validate({"link": "softmax", "intercepts": [0.0, 1.0], "terms": [term]})


def test_a_linear_model_is_what_its_formula_says() -> None:
    raw = (
        b'{"link": "logistic", "intercepts": [0.5], "terms": [{"feature": "age", "weights": [2.0], "missing": 3.0},'
        b'{"feature": "distance", "weights": [-1.0]}, {"feature": "carrier", "categories": [[0.25], [0.5], [1.0]]}]}'
    )
    model = open_model("linear", raw, signature("binary"))
    columns = [np.array([1.0, np.nan]), np.array([1.0, 2.0]), np.array([2.0, np.nan])]
    found = model.library().predict(columns)
    assert found.tolist() == [1 / (1 + np.exp(-2.5)), 1 / (1 + np.exp(-4.5))]


def test_an_onnx_model_without_floats_says_what_it_has() -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("IsNaN", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.BOOL, [None, 3])],
    )
    raw = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    with pytest.raises(UnloadableError, match=r"no output is a tensor of floats, but y tensor\(bool\)"):
        open_model("onnx", raw, signature("binary"))


def test_an_onnx_model_of_another_width_is_refused() -> None:
    from dataclasses import replace

    narrow = replace(signature("binary"), features=signature("binary").features[:2])
    with pytest.raises(UnloadableError, match="reads 3 columns, its manifest names 2"):
        open_model("onnx", onnx_graph(1), narrow)


def test_a_bundle_whose_library_is_missing_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UnloadableError, match=r"install almanac\[onnx\]"):
        open_model("onnx", onnx_graph(1), signature("binary"))
