"""A local MLflow model directory, read without MLflow: which file holds the model, and which columns it reads."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from schemas.bundle import Flavor
from schemas.errors import DeclarationError, InputError, Problem

_DESCRIPTION = "MLmodel"
_REGISTRY = "models:/"
_AS_SKOPS = "log it with mlflow.sklearn and serialization_format='skops' (trees need skops_trusted_types too)"
# The flavors that are read, which key of each names the model's file, and how to have a file that is no pickle.
_FILES: dict[str, tuple[Flavor, str, str]] = {
    "lightgbm": ("lightgbm", "data", "log the Booster (model.booster_) with mlflow.lightgbm, which writes model.lgb"),
    "sklearn": ("sklearn", "pickled_model", _AS_SKOPS),
    "onnx": ("onnx", "data", "log it with mlflow.onnx, as one file"),
}
_PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle")
# Whoever sets them keeps what is set. MLflow counts its uses and sends them; tries for minutes; draws over our lines.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True, slots=True)
class MlflowModel:
    """What the directory holds.

    Attributes:
        inputs: Column -> whether it is text, in the order of the signature.
    """

    source: str
    flavor: Flavor
    raw: bytes
    inputs: dict[str, bool]


@contextmanager
def mlflow_model(source: str) -> Iterator[MlflowModel]:
    """The model in a local directory, or in the registry that MLflow is set to: `models:/name@alias`.

    Raises:
        InputError: it is not there, is pickled, or has no signature of columns.
        DeclarationError: the registry is asked for, and MLflow is not installed, or lacks what this registry needs.
    """
    if not source.startswith(_REGISTRY):
        yield _read(source, Path(source))
        return
    with tempfile.TemporaryDirectory(prefix="almanac-import-") as folder:
        yield _read(source, _downloaded(source, folder))


def _downloaded(source: str, folder: str) -> Path:
    for name, value in _QUIET.items():  # it reads some of them when it is imported
        os.environ.setdefault(name, value)
    try:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError as err:
        found = f"MLflow is not installed ({err.name})"
        raise DeclarationError(Problem("IMPORT_EXTRA", source, found, "the extra almanac[mlflow]")) from err
    try:
        return Path(download_artifacts(artifact_uri=source, dst_path=folder))
    except ImportError as err:  # of a database's driver, or of a cloud's client
        found = f"MLflow needs a package for this registry: {err}"
        raise DeclarationError(Problem("IMPORT_EXTRA", source, found, "that package, or a tracking server")) from err
    except (MlflowException, OSError) as err:
        found = (str(err).strip() or type(err).__name__).splitlines()[0]
        expected = "a model of the registry that MLFLOW_TRACKING_URI names"
        raise InputError(Problem("IMPORT_MODEL", source, found, expected)) from err


def _read(source: str, folder: Path) -> MlflowModel:
    described = _described(source, folder)
    flavors = described.get("flavors")
    known = [name for name in _FILES if isinstance(flavors, dict) and isinstance(flavors.get(name), dict)]
    if not isinstance(flavors, dict) or not known:
        found = ", ".join(map(str, flavors)) if isinstance(flavors, dict) else "no flavors"
        raise InputError(Problem("IMPORT_FLAVOR", source, found, f"one of {', '.join(_FILES)}"))
    flavor, key, remedy = _FILES[known[0]]
    file = str(flavors[known[0]].get(key) or "")
    if file.endswith(_PICKLES):
        found = f"{file} is a pickle, which can run anything when it is opened"
        raise InputError(Problem("IMPORT_FLAVOR", source, found, remedy))
    if file.endswith(".skops") and flavor != "sklearn":  # what MLflow makes of LGBMClassifier and its like
        found = f"{file} is an estimator in scikit-learn's manner, not {flavor}'s own file"
        raise InputError(Problem("IMPORT_FLAVOR", source, found, remedy))
    path = folder / file
    if not file or folder.resolve() not in path.resolve().parents or not path.is_file():
        raise InputError(Problem("IMPORT_MODEL", source, f"no file {file!r} of flavor {known[0]}", remedy))
    return MlflowModel(source, flavor, path.read_bytes(), _inputs(source, described))


def _described(source: str, folder: Path) -> dict[str, Any]:
    try:
        described = yaml.safe_load((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        found = f"{_DESCRIPTION}: {str(err).splitlines()[0]}"
        raise InputError(Problem("IMPORT_MODEL", source, found, "an MLflow model directory")) from err
    if not isinstance(described, dict):
        raise InputError(Problem("IMPORT_MODEL", source, f"{_DESCRIPTION} is no mapping", "an MLflow model directory"))
    return described


def _inputs(source: str, described: dict[str, Any]) -> dict[str, bool]:
    expected = "a signature of named columns (mlflow.models.infer_signature)"
    try:
        columns = json.loads(described["signature"]["inputs"])
        found = {str(column["name"]): column["type"] == "string" for column in columns}
    except (KeyError, TypeError, ValueError) as err:
        wrong = f"{_DESCRIPTION} has no such signature: {type(err).__name__} {err}"
        raise InputError(Problem("IMPORT_SIGNATURE", source, wrong, expected)) from err
    if not found or len(found) < len(columns):
        raise InputError(Problem("IMPORT_SIGNATURE", source, f"{len(columns)} inputs", expected))
    return found
