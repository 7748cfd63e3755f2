"""Growing one model: from a table of labelled rows to a booster and the profile of what it learned from."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.libraries import let_threads_sleep
from jobs.matrix import feature_matrix
from schemas.bundle import LABEL_COLUMN, Feature
from schemas.errors import DeclarationError, InputError, Problem
from schemas.pipeline import Pipeline, Training
from validation.drift import ScoredProfile
from validation.parity import Floats
from validation.profile import profile_batches

if TYPE_CHECKING:
    import lightgbm

MAX_CATEGORIES = 10_000
SCORE = "score"


def labels_of(rows: pa.Table) -> Floats:
    """Shape (rows,)."""
    return np.asarray(rows.column(LABEL_COLUMN).to_numpy(), dtype=np.float64)


def features_of(pipeline: Pipeline, training: pa.Table) -> tuple[Feature, ...]:
    numeric = [Feature(name=name, kind="numeric") for name in pipeline.features.numeric]
    categorical = []
    for name in pipeline.features.categorical:
        seen = sorted(pc.unique(pc.cast(training.column(name), pa.string())).drop_null().to_pylist())
        if len(seen) > MAX_CATEGORIES:
            raise InputError(
                Problem("TRAIN_CATEGORIES", f"feature {name}", f"{len(seen)} categories", f"at most {MAX_CATEGORIES}")
            )
        categorical.append(Feature(name=name, kind="categorical", categories=tuple(seen)))
    return (*numeric, *categorical)


def fit(pipeline: Pipeline, asked: Training, features: tuple[Feature, ...], training: pa.Table) -> "lightgbm.Booster":
    let_threads_sleep()
    import lightgbm  # heavy; only training pays for it here

    fixed = {
        "objective": pipeline.training.objective,
        "seed": asked.seed,
        "deterministic": True,
        "force_row_wise": True,  # with `deterministic`: the same trees whatever the number of threads
        "verbosity": -1,
    }
    names = [feature.name for feature in features]
    data = lightgbm.Dataset(
        feature_matrix(features, training, model=pipeline.pipeline),
        label=labels_of(training),
        feature_name=names,
        categorical_feature=[feature.name for feature in features if feature.kind == "categorical"],
    )
    try:
        return lightgbm.train({**asked.params, **fixed}, data, num_boost_round=asked.rounds)
    except lightgbm.basic.LightGBMError as err:
        where = f"{pipeline.pipeline}/pipeline.yaml: training.params"
        raise DeclarationError(Problem("TRAIN_PARAMS", where, str(err), "parameters that LightGBM takes")) from err


def profile_of(features: tuple[Feature, ...], training: pa.Table, scores: Floats) -> ScoredProfile:
    """The training as drift compares with it: in one batch, so that the same rows give the same bytes."""
    rows = training.select([feature.name for feature in features]).combine_chunks()
    return ScoredProfile(
        features=profile_batches(rows.to_batches()),
        scores=profile_batches([pa.RecordBatch.from_pydict({SCORE: pa.array(scores)})]),
    )
