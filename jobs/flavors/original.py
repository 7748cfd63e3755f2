"""Models as their own libraries use them: what an import is measured against."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.flavors.lightgbm import booster_of
from jobs.flavors.onnx import OnnxModel
from jobs.flavors.scorer import Signature, UnloadableError
from jobs.flavors.sklearn import SklearnModel
from schemas.bundle import Flavor
from validation.parity import Floats


def predicted_by_library(flavor: Flavor, raw: bytes, signature: Signature, table: pa.Table) -> Floats:
    """The model's numbers of all rows at once, from a data frame of the rows as they are.

    Raises:
        UnloadableError: the library cannot read the model.
        UnusableError: it cannot score these rows.
    """
    if flavor == "lightgbm":
        frame = table.select(signature.names).to_pandas()
        booster = booster_of(raw)
        known = iter(booster.pandas_categorical or ())
        for feature in signature.features:
            if feature.kind == "categorical":
                frame[feature.name] = frame[feature.name].astype(_category_type(next(known)))
        return np.asarray(booster.predict(frame, num_threads=1), dtype=np.float64)
    if flavor == "sklearn":
        return SklearnModel(raw, signature).at_once(table.select(signature.names).to_pandas())
    from jobs.matrix import feature_columns

    return OnnxModel(raw, signature).at_once(feature_columns(signature.features, table, model="onnx"))


def categories_in(flavor: Flavor, raw: bytes, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The categories that the model's file lists for these columns, in the order of their codes; none of other flavors.

    Raises:
        UnloadableError: a LightGBM model lists them for other columns.
    """
    if flavor != "lightgbm" or not columns:
        return {}
    listed = booster_of(raw).pandas_categorical or []
    if len(listed) != len(columns):
        raise UnloadableError(
            f"it lists the categories of {len(listed)} columns, its signature has {len(columns)} of text"
        )
    return {name: tuple(map(str, values)) for name, values in zip(columns, listed, strict=True)}


def _category_type(values: Sequence[Any]) -> Any:
    import pandas as pd

    return pd.CategoricalDtype(values)
