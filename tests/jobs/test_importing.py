"""A model of another tool becomes a bundle where our predictions are its own library's, to the last bit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from jobs.bundles import find_bundle
from jobs.flavors.skopsfile import dumps
from jobs.importing import import_bundle
from lookup.store import Store
from schemas.declared import DeclaredPipeline
from schemas.errors import AlmanacError, BlockedError, Problem
from schemas.expectations import Suites
from schemas.pipeline import Pipeline
from schemas.settings import Settings
from tests.conftest import ROOT
from tests.jobs.flavored import CLASSES, labels, onnx_graph, rows

COLUMNS = {"age": "double", "distance": "double", "carrier": "string"}


def declared(**training: Any) -> DeclaredPipeline:
    pipeline = Pipeline.model_validate(
        {
            "pipeline": "flights", "description": "d", "owner": "o", "start": "2013-01-01",
            "entity": {"source": "s", "key": ["id"]}, "sources": {"s": {"path": "s.parquet"}},
            "features": {"numeric": ["age", "distance"], "categorical": ["carrier"]},
            "training": {"label": "late", "split": {"holdout_share": 0.2}, **training},
        },
        strict=False,
    )  # fmt: skip
    expectation = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "age"}}
    suites = Suites.model_validate({"inputs": [expectation], "predictions": [expectation]})
    return DeclaredPipeline(folder=Path(), pipeline=pipeline, features_sql="", suites=suites)


def frame() -> pd.DataFrame:
    return rows().to_pandas()


def mlflow_folder(root: Path, flavors: dict[str, Any], file: str, raw: bytes, columns: dict[str, str]) -> Path:
    folder = root / "model"
    folder.mkdir(exist_ok=True)
    (folder / file).write_bytes(raw)
    inputs = json.dumps([{"name": name, "type": kind, "required": True} for name, kind in columns.items()])
    described = {"flavors": flavors, "signature": {"inputs": inputs, "outputs": None, "params": None}}
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    return folder


def boosted(root: Path) -> Path:
    table = frame().astype({"carrier": pd.CategoricalDtype(["UA", "AA", "B6"])})
    params = {"objective": "binary", "num_leaves": 7, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    model = lightgbm.train(params, lightgbm.Dataset(table, labels("binary")), num_boost_round=8)
    raw = model.model_to_string().encode()
    return mlflow_folder(root, {"lightgbm": {"data": "model.lgb"}, "python_function": {}}, "model.lgb", raw, COLUMNS)


def forest(root: Path) -> Path:
    parts = [("n", SimpleImputer(), ["age", "distance"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["carrier"])]
    model = make_pipeline(ColumnTransformer(parts), RandomForestClassifier(5, random_state=1, n_jobs=2))
    raw = dumps(model.fit(frame(), np.array(CLASSES)[labels("multiclass").astype(int)]))
    described = {"sklearn": {"pickled_model": "model.skops", "serialization_format": "skops"}}
    return mlflow_folder(root, described, "model.skops", raw, COLUMNS)


def graph(root: Path) -> Path:
    return mlflow_folder(root, {"onnx": {"data": "model.onnx"}}, "model.onnx", onnx_graph(1), COLUMNS)


@pytest.fixture
def holdout(tmp_path: Path) -> Path:
    path = tmp_path / "holdout.parquet"
    names = np.array(CLASSES)[labels("multiclass").astype(int)]
    table = rows().append_column("late", pa.array(labels("binary"))).append_column("when", pa.array(names))
    pq.write_table(table, path)
    return path


def refused(tmp_path: Path, source: Path | str, holdout: Path, **change: Any) -> Problem:
    """The problem, and that nothing was written for it."""
    store = tmp_path / "store"
    given: dict[str, Any] = {"holdout": holdout, "label": "late", **change}
    pipeline = given.pop("pipeline", None) or declared()
    with pytest.raises(AlmanacError) as caught:
        import_bundle(Settings(pipelines=tmp_path, store=store), pipeline, str(source), **given)
    assert not [*store.rglob("manifest.json"), *store.rglob("latest*")]
    return caught.value.problems[0]


def test_a_boosters_own_categories_keep_their_codes(tmp_path: Path, holdout: Path) -> None:
    settings = Settings(pipelines=tmp_path, store=tmp_path / "store")
    bundle = import_bundle(settings, declared(), str(boosted(tmp_path)), holdout=holdout, label="late")
    assert bundle.manifest.features[2].categories == ("UA", "AA", "B6")
    assert bundle.manifest.metrics["auc"] > 0.9
    assert find_bundle(Store(settings.store, "flights").bundles, "latest", where="w") == bundle.folder


def test_a_pipeline_of_scikit_learn_reads_text_and_missing_values(tmp_path: Path, holdout: Path) -> None:
    settings = Settings(pipelines=tmp_path, store=tmp_path / "store")
    training = declared(objective="multiclass", classes=sorted(CLASSES))
    bundle = import_bundle(settings, training, str(forest(tmp_path)), holdout=holdout, label="when")
    assert [output.name for output in bundle.manifest.outputs] == ["p_early", "p_late", "p_on_time", "class"]
    assert bundle.manifest.metrics["accuracy"] > 0.9


def test_a_graph_of_onnx_is_imported(tmp_path: Path, holdout: Path) -> None:
    settings = Settings(pipelines=tmp_path, store=tmp_path / "store")
    bundle = import_bundle(settings, declared(), str(graph(tmp_path)), holdout=holdout, label="late")
    assert bundle.manifest.flavor == "onnx"


@pytest.mark.parametrize("file", ["model.pkl", "model.joblib"])
def test_a_pickle_is_refused_and_how_to_convert_it_is_told(file: str, tmp_path: Path, holdout: Path) -> None:
    described = {"sklearn": {"pickled_model": file, "serialization_format": "cloudpickle"}}
    problem = refused(tmp_path, mlflow_folder(tmp_path, described, file, b"cos\nsystem\n", COLUMNS), holdout)
    assert problem.code == "IMPORT_FLAVOR"
    assert "is a pickle, which can run anything" in problem.found
    assert "serialization_format='skops'" in problem.expected


@pytest.mark.parametrize(
    ("described", "code"),
    [
        ({"pytorch": {"model_data": "data"}}, "IMPORT_FLAVOR"),
        ({}, "IMPORT_FLAVOR"),
        ({"lightgbm": {"data": "../outside.lgb"}}, "IMPORT_MODEL"),
        ({"lightgbm": {"data": "/etc/hostname"}}, "IMPORT_MODEL"),
        ({"lightgbm": {"data": "gone.lgb"}}, "IMPORT_MODEL"),
        ({"lightgbm": {"data": "model.lgb"}}, "IMPORT_FLAVOR"),
    ],
)
def test_what_is_no_model_that_can_be_read_is_refused(
    described: dict[str, Any], code: str, tmp_path: Path, holdout: Path
) -> None:
    (tmp_path / "outside.lgb").write_text("x")
    folder = mlflow_folder(tmp_path, described, "model.lgb", b"no booster", {"age": "double", "distance": "double"})
    assert refused(tmp_path, folder, holdout).code == code


@pytest.mark.parametrize("text", ["", "- a", "a: [", "flavors: 1"])
def test_a_damaged_description_is_refused(text: str, tmp_path: Path, holdout: Path) -> None:
    (tmp_path / "MLmodel").write_text(text)
    assert refused(tmp_path, tmp_path, holdout).code in ("IMPORT_MODEL", "IMPORT_FLAVOR")


def test_a_model_without_a_signature_is_refused(tmp_path: Path, holdout: Path) -> None:
    folder = boosted(tmp_path)
    described = yaml.safe_load((folder / "MLmodel").read_text())
    del described["signature"]
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    assert refused(tmp_path, folder, holdout).code == "IMPORT_SIGNATURE"


def test_a_forged_text_of_lightgbm_is_refused_before_it_is_followed(tmp_path: Path, holdout: Path) -> None:
    file = boosted(tmp_path) / "model.lgb"
    file.write_bytes(file.read_bytes().replace(b"\nsplit_feature=0", b"\nsplit_feature=9", 1))
    problem = refused(tmp_path, file.parent, holdout)
    assert (problem.code, problem.found) == ("IMPORT_FLAVOR", "tree 0: split_feature beyond 3")


def test_a_model_of_other_features_than_declared_is_refused(tmp_path: Path, holdout: Path) -> None:
    folder = mlflow_folder(tmp_path, {"onnx": {"data": "model.onnx"}}, "model.onnx", onnx_graph(1), {"speed": "double"})
    table = pq.read_table(holdout).append_column("speed", pa.array([1.0] * 300))
    pq.write_table(table, holdout)
    assert "speed, which is not declared as numeric" in refused(tmp_path, folder, holdout).found


def test_what_the_holdout_lacks_is_named(tmp_path: Path, holdout: Path) -> None:
    problem = refused(tmp_path, graph(tmp_path), holdout, label="later")
    assert (problem.code, problem.found) == ("IMPORT_HOLDOUT", "no column later")
    pq.write_table(pq.read_table(holdout).slice(0, 0), holdout)
    assert refused(tmp_path, graph(tmp_path), holdout).found == "no row"
    assert refused(tmp_path, graph(tmp_path), tmp_path / "gone.parquet").code == "IMPORT_HOLDOUT"


def test_labels_of_another_kind_are_refused(tmp_path: Path, holdout: Path) -> None:
    assert refused(tmp_path, graph(tmp_path), holdout, label="when").code == "IMPORT_HOLDOUT"


def test_a_model_below_its_floor_is_not_imported(tmp_path: Path, holdout: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(BlockedError, match="at least 1"):
        import_bundle(
            Settings(pipelines=tmp_path, store=store), declared(floors={"auc": 1.0}), str(graph(tmp_path)),
            holdout=holdout, label="late",
        )  # fmt: skip
    assert not store.exists()


def test_a_registered_model_needs_the_extra(tmp_path: Path, holdout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "mlflow"] or ["mlflow"]:
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed, whatever was loaded before
    problem = refused(tmp_path, "models:/flights@champion", holdout)
    assert (problem.code, problem.expected) == ("IMPORT_EXTRA", "the extra almanac[mlflow]")
    assert "MLflow is not installed" in problem.found


# MLflow 3.17 asks SQLAlchemy 2.1 for what that gives up.
asks_registry = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry of MLflow's, `mlflow.db`, and what the models in it predict, as they come from it."""
    folder = tmp_path_factory.mktemp("registry")
    command = [sys.executable, "-m", "tests.jobs.registering", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def registry(registered: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, and named to MLflow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registered}/mlflow.db")
    return registered


@asks_registry
@pytest.mark.parametrize(
    ("name", "label", "training", "outputs"),
    [
        ("boosted", "late", {}, ["score"]),
        (
            "forest",
            "when",
            {"objective": "multiclass", "classes": sorted(CLASSES)},
            ["p_early", "p_late", "p_on_time", "class"],
        ),
    ],
)
def test_a_registered_model_predicts_as_it_does_where_mlflow_loads_it(
    name: str, label: str, training: dict[str, Any], outputs: list[str], tmp_path: Path, registry: Path, holdout: Path
) -> None:
    settings = Settings(pipelines=tmp_path, store=tmp_path / "store")
    bundle = import_bundle(settings, declared(**training), f"models:/{name}@champion", holdout=holdout, label=label)
    assert [output.name for output in bundle.manifest.outputs] == outputs
    its_own = np.load(registry / f"{name}.npy").reshape(rows().num_rows, -1)
    assert np.array_equal(bundle.predict(rows())[:, : its_own.shape[1]], its_own)
    assert find_bundle(Store(settings.store, "flights").bundles, "latest", where="w") == bundle.folder


@asks_registry
@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("models:/boosted@retired", "IMPORT_MODEL", "alias retired not found"),
        ("models:/unheard@champion", "IMPORT_MODEL", "unheard not found"),
        ("models:/boosted@", "IMPORT_MODEL", "Not a proper models:/ URI"),
        ("models:/pickled@champion", "IMPORT_FLAVOR", "model.pkl is a pickle"),
        ("models:/estimator@champion", "IMPORT_FLAVOR", "model.skops is an estimator in scikit-learn's manner"),
    ],
)
def test_what_the_registry_has_not_or_has_otherwise_is_told(
    source: str, code: str, said: str, tmp_path: Path, registry: Path, holdout: Path
) -> None:
    problem = refused(tmp_path, source, holdout)
    assert (problem.code, problem.where) == (code, source)
    assert said in problem.found


@asks_registry
@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("http://127.0.0.1:9", "IMPORT_MODEL", "API request to http://127.0.0.1:9"),
        ("postgresql://127.0.0.1:9/x", "IMPORT_EXTRA", "No module named 'psycopg"),
        ("foo://x", "IMPORT_MODEL", "unsupported URI 'foo://x'"),
    ],
)
def test_a_registry_that_cannot_be_asked_is_told(
    address: str, code: str, said: str, tmp_path: Path, holdout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    problem = refused(tmp_path, "models:/boosted@champion", holdout)
    assert problem.code == code
    assert said in problem.found


def test_a_registry_that_fails_without_a_word_is_told(
    tmp_path: Path, holdout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def times_out(**_: object) -> str:
        raise TimeoutError

    parts = {"artifacts": {"download_artifacts": times_out}, "exceptions": {"MlflowException": RuntimeError}}
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())  # in MLflow's place: it is quick to fail in words
    for name, holds in parts.items():
        monkeypatch.setitem(sys.modules, f"mlflow.{name}", SimpleNamespace(**holds))
    problem = refused(tmp_path, "models:/boosted@champion", holdout)
    assert (problem.code, problem.found) == ("IMPORT_MODEL", "TimeoutError")


def test_an_unknown_variant_is_refused(tmp_path: Path, holdout: Path) -> None:
    folder = graph(tmp_path)
    assert refused(tmp_path, folder, holdout, variant="canary").code == "IMPORT_VARIANT"
    shutil.rmtree(folder)
