"""Feature columns as a model reads them: the one encoder of training and of scoring."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.bundle import Feature
from schemas.errors import InputError, Problem
from validation.parity import Floats


def feature_matrix(features: Sequence[Feature], table: pa.RecordBatch | pa.Table, *, model: str) -> Floats:
    """The columns of `feature_columns` side by side, shape (rows, features)."""
    return np.column_stack(feature_columns(features, table, model=model))


def feature_columns(features: Sequence[Feature], table: pa.RecordBatch | pa.Table, *, model: str) -> list[Floats]:
    """The model's input, one column a feature, in the order it was trained with; some are the table's own memory.

    A null, and a category that was not seen in training, is NaN: missing to the model.

    Raises:
        InputError: a column is missing, or is not of its declared kind.
    """
    missing = [feature.name for feature in features if feature.name not in table.schema.names]
    if missing:
        raise InputError(
            Problem(
                "BUNDLE_FEATURES",
                f"bundle {model}",
                f"no feature {', '.join(missing)}",
                f"it among {', '.join(table.schema.names)}",
            )
        )
    return [_encoded(feature, table.column(feature.name), model) for feature in features]


def _encoded(feature: Feature, column: pa.Array | pa.ChunkedArray, model: str) -> Floats:
    where = f"bundle {model}: feature {feature.name}"
    if feature.kind == "categorical":
        codes = None
        if pa.types.is_dictionary(column.type) and isinstance(column, pa.Array):
            column, codes = column.dictionary, column.indices
        if pa.types.is_floating(column.type):
            raise InputError(Problem("BUNDLE_DTYPE", where, str(column.type), "text, as in training"))
        try:
            text = pc.cast(column, pa.string())
        except pa.ArrowException as err:  # a list, a struct, bytes that are not UTF-8
            raise InputError(Problem("BUNDLE_DTYPE", where, str(column.type), "text, as in training")) from err
        column = pc.index_in(text, pa.array(feature.categories, pa.string()))
        column = column if codes is None else column.take(codes)
    elif not (
        pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
    ):
        raise InputError(Problem("BUNDLE_DTYPE", where, str(column.type), "a number, as in training"))
    # Not safely: an integer past 2^53 becomes the nearest double, as Spark's own cast makes it.
    values = pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan"))
    return np.asarray(
        values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy(), dtype=np.float64
    )
