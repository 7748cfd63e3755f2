"""Registers models in an MLflow registry of its own, as a team does: `python -m tests.jobs.registering FOLDER`.

A process of its own keeps what MLflow sets up out of the tests' process. Beside the registry lies what each model
predicts that MLflow loads from it, in `<name>.npy`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import mlflow.lightgbm
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tests.jobs.flavored import CLASSES, labels, rows

ALIAS = "champion"


def main(folder: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment(
        experiment_id=mlflow.create_experiment("flights", artifact_location=str(folder / "artifacts"))
    )
    frame = rows().to_pandas()
    encoded = frame.astype({"carrier": pd.CategoricalDtype(["UA", "AA", "B6"])})  # not in the order of their names
    booster, forest = _boosted(encoded), _forest(frame)
    _register(mlflow.lightgbm.log_model, booster, "boosted", encoded)
    trusted = ["numpy.dtype", "sklearn.tree._tree.Tree"]  # which MLflow asks to be told
    _register(
        mlflow.sklearn.log_model, forest, "forest", frame, serialization_format="skops", skops_trusted_types=trusted
    )
    _register(mlflow.sklearn.log_model, forest, "pickled", frame, serialization_format="cloudpickle")
    estimator = lightgbm.LGBMClassifier(n_estimators=2, verbosity=-1).fit(encoded, labels("binary"))
    _register(mlflow.lightgbm.log_model, estimator, "estimator", encoded)
    np.save(folder / "boosted.npy", mlflow.lightgbm.load_model(f"models:/boosted@{ALIAS}").predict(encoded))
    np.save(folder / "forest.npy", mlflow.sklearn.load_model(f"models:/forest@{ALIAS}").predict_proba(frame))


def _boosted(frame: pd.DataFrame) -> Any:
    params = {"objective": "binary", "num_leaves": 7, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    return lightgbm.train(params, lightgbm.Dataset(frame, labels("binary")), num_boost_round=8)


def _forest(frame: pd.DataFrame) -> Any:
    parts = [("n", SimpleImputer(), ["age", "distance"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["carrier"])]
    model = make_pipeline(ColumnTransformer(parts), RandomForestClassifier(5, random_state=1, n_jobs=2))
    return model.fit(frame, np.array(CLASSES)[labels("multiclass").astype(int)])


def _register(log: Callable[..., Any], model: Any, name: str, frame: pd.DataFrame, **more: Any) -> None:
    signature = infer_signature(frame, model.predict(frame))
    # What it needs is not worked out, which takes seconds: it is served by us.
    log(model, name=name, signature=signature, registered_model_name=name, pip_requirements=[], **more)
    mlflow.MlflowClient().set_registered_model_alias(name, ALIAS, 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
