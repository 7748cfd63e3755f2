"""Estimators and pipelines of scikit-learn, kept by skops and opened only where every type in them is on our list."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.flavors.histgradient import HistGradient
from jobs.flavors.scorer import Engine, Predict, Signature, Steady, UnloadableError, UnusableError, texts_of
from jobs.flavors.skopsfile import loads
from jobs.kernel.engine import proven_engine
from jobs.kernel.modeltext import UncoveredError
from validation.parity import Floats


class SklearnModel:
    """A fitted estimator or pipeline.

    One that was fitted on a data frame gets one: numbers as float64, categories as text, missing ones as its
    encoders saw them, None or NaN. One that
    was fitted on an array gets the bundle's own encoding: categories as their index, missing ones as NaN.
    """

    def __init__(self, raw: bytes, signature: Signature) -> None:
        """Read the model.

        Raises:
            UnloadableError: a type in it is not on the list, or it does not fit the signature.
        """
        self._estimator, self._signature = loads(raw), signature
        _work_alone(self._estimator)
        names = getattr(self._estimator, "feature_names_in_", None)
        self.feature_names = None if names is None else [str(name) for name in names]
        wanted, found = len(signature.features), getattr(self._estimator, "n_features_in_", None)
        if found not in (None, wanted):
            raise UnloadableError(f"it reads {found} columns, its manifest names {wanted}")
        self._method = _method(self._estimator, signature)
        self._missing = _missing_text(self._estimator)
        self._steady = Steady(self._answer)

    def library(self, why: str = "") -> Engine:
        from sklearn import __version__

        return Engine(f"scikit-learn {__version__}{f': {why}' if why else ''}", self._steady)

    def fastest(self, columns: Sequence[Floats]) -> Engine:
        self._steady.prove(columns)
        return proven_engine(self.library, self._kernel, columns)

    def at_once(self, frame: Any) -> Floats:
        """The numbers of a data frame's rows, as the library itself is used."""
        given = frame if self.feature_names else frame.to_numpy(dtype=np.float64)
        return self._numbers(given)

    def _kernel(self) -> Engine:
        if not HistGradient.is_one(self._estimator):
            raise UncoveredError(f"{type(self._estimator).__name__} is not made of trees that the kernel scores")
        model = HistGradient(self._estimator, self._signature)
        return Engine(f"kernel ({model.variant})", model.predict)

    def _answer(self, columns: Sequence[Floats]) -> Floats:
        return self._numbers(self._input(columns))

    def _numbers(self, given: Any) -> Floats:
        from threadpoolctl import threadpool_limits

        # One thread: Spark runs as many Python workers as there are cores, and several would add up in other orders.
        with threadpool_limits(1), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of a category that the pipeline was not fitted on, for each block
            try:
                found = np.asarray(self._method(given), dtype=np.float64)
            except (TypeError, ValueError) as err:
                raise UnusableError(f"scikit-learn: {str(err).splitlines()[0]}") from err
        return found[:, 1] if self._signature.objective == "binary" else found

    def _input(self, columns: Sequence[Floats]) -> Any:
        if self.feature_names is None:
            return np.column_stack(columns)
        import pandas as pd

        given = zip(self._signature.features, columns, strict=True)
        return pd.DataFrame({
            feature.name: column
            if feature.kind == "numeric"
            else texts_of(feature.categories, column, self._missing)
            for feature, column in given
        })  # fmt: skip


def _missing_text(part: Any) -> float | None:
    """What the encoders in an estimator were fitted on where a text was missing: None, which is another than NaN."""
    if isinstance(part, list | tuple):
        parts = list(part)
    else:
        if any(None in list(known) for known in getattr(part, "categories_", ())):
            return None
        parts = [value for name in ("steps", "transformers_", "transformer_list") for value in getattr(part, name, ())]
    return None if any(_missing_text(each) is None for each in parts) else np.nan


def _method(estimator: Any, signature: Signature) -> Predict:
    """What answers the numbers that the objective is about."""
    if signature.objective in ("regression", "ranking"):
        if hasattr(estimator, "classes_") or not hasattr(estimator, "predict"):
            raise UnloadableError(f"{type(estimator).__name__} is no regressor")
        return estimator.predict  # type: ignore[no-any-return]
    expected = list(signature.classes) or ["0", "1"]
    if not hasattr(estimator, "predict_proba"):
        raise UnloadableError(f"{type(estimator).__name__} predicts no probabilities")
    found = [_class_name(each) for each in estimator.classes_]
    if found not in (expected, [str(index) for index in range(len(expected))]):
        raise UnloadableError(f"its classes are {', '.join(found)}, the bundle's {', '.join(expected)}")
    return estimator.predict_proba  # type: ignore[no-any-return]


def _class_name(value: Any) -> str:
    is_whole = isinstance(value, float | np.floating | bool | np.bool_) and float(value).is_integer()
    return str(int(value)) if is_whole else str(value)


def _work_alone(estimator: Any) -> None:
    """Make every part of the estimator predict in one thread: a forest's threads add up in any order."""
    parameters = estimator.get_params() if hasattr(estimator, "get_params") else {}
    if asked := {name: 1 for name in parameters if name == "n_jobs" or name.endswith("__n_jobs")}:
        estimator.set_params(**asked)
