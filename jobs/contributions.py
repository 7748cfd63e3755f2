"""How much each feature moved a prediction, by LightGBM's own TreeSHAP."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import pyarrow as pa

from jobs.bundles import Bundle
from jobs.flavors.lightgbm import LightGBM
from jobs.matrix import feature_matrix
from schemas.errors import DeclarationError, Problem
from schemas.run import ENTITY_ID
from validation.parity import Floats

if TYPE_CHECKING:
    import lightgbm

_MOVES = pa.list_(pa.struct([pa.field("feature", pa.string()), pa.field("contribution", pa.float64())]))
EXPLANATION_SCHEMA = pa.schema(
    [
        pa.field(ENTITY_ID, pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("expected", pa.float64(), nullable=False),
        pa.field("contributions", _MOVES, nullable=False),
        pa.field("rest", pa.float64(), nullable=False),
        pa.field("raw", pa.float64(), nullable=False),
    ]
)


class Contributions(NamedTuple):
    """What made some rows' scores, before the objective's transformation: `expected` and each row of `moved` are `raw`.

    Attributes:
        expected: What the model says of nobody in particular, shape (rows,).
        moved: By each feature, shape (rows, features).
        raw: The model's raw scores, shape (rows,).
    """

    expected: Floats
    moved: Floats
    raw: Floats


def contributions(bundle: Bundle, rows: pa.RecordBatch | pa.Table) -> Contributions:
    """How much each feature moved these rows' scores.

    Source:
        Lundberg, Erion, Lee, Consistent individualized feature attribution for tree ensembles (2018).

    Raises:
        InputError: a feature is missing or of a type the model cannot read.
    """
    booster = _booster(bundle)
    matrix = feature_matrix(bundle.manifest.features, rows, model=bundle.id)
    found = np.asarray(booster.predict(matrix, pred_contrib=True, num_threads=1), dtype=np.float64)
    raw = np.asarray(booster.predict(matrix, raw_score=True, num_threads=1), dtype=np.float64)
    return Contributions(found[:, -1], found[:, :-1], raw)


def check_explainable(bundles: Mapping[str, Bundle], where: str) -> None:
    """Refuse to explain what TreeSHAP does not: before a row is scored.

    Args:
        bundles: Variant -> its bundle.
        where: The declared key that asks for explanations.

    Raises:
        DeclarationError: one is no single LightGBM model of plain trees with one output.
    """
    problems = []
    for variant, bundle in bundles.items():
        if why := _unexplainable(bundle):
            expected = "one LightGBM model with one output, of trees that are not linear"
            problems.append(Problem("EXPLAIN_MODEL", f"{where}: {variant}", why, expected))
    if problems:
        raise DeclarationError(*problems)


def _booster(bundle: Bundle) -> "lightgbm.Booster":
    return cast("LightGBM", bundle.scorer).booster


def _unexplainable(bundle: Bundle) -> str | None:
    if bundle.manifest.flavor != "lightgbm":
        return f"bundle {bundle.id} is of the flavor {bundle.manifest.flavor}"
    booster = _booster(bundle)
    if booster.num_model_per_iteration() > 1:
        return f"bundle {bundle.id} has {booster.num_model_per_iteration()} outputs"
    return f"bundle {bundle.id} has linear trees" if "\nis_linear=1\n" in booster.model_to_string() else None


def explained(bundle: Bundle, rows: pa.RecordBatch | pa.Table, top: int) -> pa.RecordBatch:
    """The explanation of each row, in their order: the features that moved it most, and what the others did together.

    Of features that moved it as much, those that the model reads first come first.
    """
    found = contributions(bundle, rows)
    most = np.argsort(-np.abs(found.moved), axis=1, kind="stable")[:, :top]
    rest = found.moved.copy()
    np.put_along_axis(rest, most, 0.0, axis=1)
    names = np.array([feature.name for feature in bundle.manifest.features])
    count, width = most.shape
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * width)
    values = np.take_along_axis(found.moved, most, axis=1).ravel()
    named = [pa.array(names[most].ravel(), pa.string()), pa.array(values)]
    moves = pa.StructArray.from_arrays(named, fields=[*_MOVES.value_type])
    return pa.RecordBatch.from_arrays(
        [
            rows.column(ENTITY_ID) if isinstance(rows, pa.RecordBatch) else rows.column(ENTITY_ID).combine_chunks(),
            pa.repeat(bundle.id, count),
            pa.array(found.expected),
            pa.ListArray.from_arrays(offsets, moves, type=_MOVES),
            pa.array(rest.sum(axis=1)),
            pa.array(found.raw),
        ],
        schema=EXPLANATION_SCHEMA,
    )
