"""Growing one model: from a table of labelled rows to the model's file and the profile of what it learned from."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.libraries import let_threads_sleep
from jobs.matrix import feature_matrix
from schemas.bundle import GROUP_COLUMN, LABEL_COLUMN, Feature, Objective, Output, expected_columns
from schemas.errors import DeclarationError, InputError, Problem
from schemas.pipeline import Pipeline, Training
from validation.drift import ScoredProfile
from validation.parity import Floats
from validation.profile import profile_batches

MAX_CATEGORIES = 10_000
# LightGBM's objectives that mean the same to readers: a probability, a number, one probability a class, a rank.
_OBJECTIVES: dict[Objective, tuple[str, ...]] = {
    "binary": ("binary", "cross_entropy"),
    "regression": (
        "regression", "regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie",
    ),
    "multiclass": ("multiclass", "multiclassova"),
    "ranking": ("lambdarank", "rank_xendcg"),
}  # fmt: skip


def labels_of(rows: pa.Table) -> Floats:
    """Shape (rows,)."""
    return np.asarray(rows.column(LABEL_COLUMN).to_numpy(), dtype=np.float64)


def features_of(pipeline: Pipeline, training: pa.Table) -> tuple[Feature, ...]:
    numeric = [Feature(name=name, kind="numeric") for name in pipeline.features.numeric]
    categorical = []
    for name in pipeline.features.categorical:
        seen = categories_of(training.column(name))
        if len(seen) > MAX_CATEGORIES:
            raise InputError(
                Problem("TRAIN_CATEGORIES", f"feature {name}", f"{len(seen)} categories", f"at most {MAX_CATEGORIES}")
            )
        categorical.append(Feature(name=name, kind="categorical", categories=seen))
    return (*numeric, *categorical)


def categories_of(column: pa.ChunkedArray) -> tuple[str, ...]:
    """The different values as text, sorted."""
    return tuple(sorted(pc.unique(pc.cast(column, pa.string())).drop_null().to_pylist()))


def with_expected(holdout: pa.Table, outputs: Sequence[Output], predicted: Floats) -> pa.Table:
    """The holdout with what was predicted for it, as a bundle keeps it."""
    for place, column in enumerate(expected_columns(outputs)):
        holdout = holdout.append_column(column, pa.array(predicted[:, place]))
    return holdout


def fit(pipeline: Pipeline, asked: Training, features: tuple[Feature, ...], training: pa.Table) -> bytes:
    """The file of a new model of the declared flavor.

    Raises:
        DeclarationError: the library does not take the declared parameters.
    """
    if asked.flavor != "lightgbm":
        from jobs.flavors.fitting import fit_sklearn  # heavy; only these flavors pay for it

        matrix = feature_matrix(features, training, model=pipeline.pipeline)
        return fit_sklearn(pipeline.pipeline, asked, features, matrix, labels_of(training))
    if asked.objective == "ranking":  # LightGBM wants the rows of a group side by side
        training = training.sort_by(GROUP_COLUMN)
    return _boosted(pipeline, asked, features, training)


def _boosted(pipeline: Pipeline, asked: Training, features: tuple[Feature, ...], training: pa.Table) -> bytes:
    let_threads_sleep()
    import lightgbm  # heavy; only training pays for it here

    where = f"{pipeline.pipeline}/pipeline.yaml: training.params"
    fixed = {
        "objective": _objective(asked, where),
        "seed": asked.seed,
        "deterministic": True,
        "force_row_wise": True,  # with `deterministic`: the same trees whatever the number of threads
        "verbosity": -1,
        **({"num_class": len(asked.classes)} if asked.classes else {}),
    }
    groups = pc.run_end_encode(training.column(GROUP_COLUMN).combine_chunks()) if asked.group else None
    data = lightgbm.Dataset(
        feature_matrix(features, training, model=pipeline.pipeline),
        label=labels_of(training),
        group=None if groups is None else np.diff(np.asarray(groups.run_ends), prepend=0),
        feature_name=[feature.name for feature in features],
        categorical_feature=[feature.name for feature in features if feature.kind == "categorical"],
    )
    try:
        booster = lightgbm.train({**asked.params, **fixed}, data, num_boost_round=asked.rounds)
    except lightgbm.basic.LightGBMError as err:
        raise DeclarationError(Problem("TRAIN_PARAMS", where, str(err), "parameters that LightGBM takes")) from err
    return str(booster.model_to_string()).encode()


def _objective(asked: Training, where: str) -> str:
    """LightGBM's objective: one of those that mean what is declared, the first unless `params` names another."""
    known = _OBJECTIVES[asked.objective]
    if (named := str(asked.params.get("objective", known[0]))) not in known:
        expected = f"{' or '.join(known)}, as training.objective is {asked.objective}"
        raise DeclarationError(Problem("TRAIN_PARAMS", f"{where}.objective", named, expected))
    return named


def profile_of(
    features: tuple[Feature, ...], training: pa.Table, outputs: Sequence[Output], predicted: Floats
) -> ScoredProfile:
    """The training as drift compares with it: in one batch, so that the same rows give the same bytes."""
    rows = training.select([feature.name for feature in features]).combine_chunks()
    scores = {output.name: pa.array(predicted[:, place]) for place, output in enumerate(outputs)}
    return ScoredProfile(
        features=profile_batches(rows.to_batches()),
        scores=profile_batches([pa.RecordBatch.from_pydict(scores)]),
    )
