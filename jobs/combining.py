"""Training a combination: its members, and for a stack the small model over their outputs."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.ensembles import Ensemble, MemberModel, linked
from jobs.fitting import fit, labels_of
from jobs.matrix import feature_matrix
from lookup.crc import crc32
from lookup.rows import flat
from schemas.bundle import Feature
from schemas.errors import InputError, Problem
from schemas.models import Combine
from schemas.pipeline import Pipeline, Training
from schemas.run import ENTITY_ID
from validation.parity import Floats

_FOLD = 4  # one row in so many is kept from a stack's members


def fit_combination(
    pipeline: Pipeline, asked: Training, combine: Combine, features: tuple[Feature, ...], training: pa.Table
) -> Ensemble:
    """The members, trained one after the other, and how they are put together.

    A stack learns from a fold of the rows that its members have not seen: of those they have, they know too much.

    Raises:
        InputError: the fold has nothing to learn from.
    """
    fold = in_fold(training.column(ENTITY_ID)) if combine.how == "stack" else None
    lesson = training if fold is None else training.filter(pa.array(~fold))
    boosters = []
    for member in combine.members:
        own = {"params": {**asked.params, **member.params}, "rounds": member.rounds or asked.rounds}
        seed = asked.seed if member.seed is None else member.seed
        boosters.append(fit(pipeline, asked.model_copy(update={**own, "seed": seed}), features, lesson))
    members = tuple(
        MemberModel(name=member.name, model=booster.model_to_string())
        for member, booster in zip(combine.members, boosters, strict=True)
    )
    if fold is None:
        weights = tuple(member.weight for member in combine.members if member.weight is not None)
        return Ensemble(how=combine.how, members=members, weights=weights)
    held = training.filter(pa.array(fold))
    matrix = feature_matrix(features, held, model=pipeline.pipeline) if held.num_rows else np.empty((0, len(features)))
    link = "logistic" if asked.objective == "binary" else "identity"
    outputs = [linked(np.asarray(each.predict(matrix, num_threads=1)), link) for each in boosters if held.num_rows]
    coefficients, intercept = stacked(pipeline.pipeline, asked.objective, outputs, labels_of(held))
    return Ensemble(how="stack", members=members, weights=coefficients, intercept=intercept, link=link)


def in_fold(ids: pa.ChunkedArray) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    """Whether an entity is kept from the members: by a hash of its id, so that it is in the same fold every time."""
    every = pc.cast(ids, pa.binary()).combine_chunks()
    return np.asarray(crc32(*flat(every)).astype(np.int64) % _FOLD == 0)


def stacked(name: str, objective: str, outputs: list[Floats], labels: Floats) -> tuple[tuple[float, ...], float]:
    """Coefficients, one a member, and intercept, learnt from the members' outputs as a stack reads them.

    Raises:
        InputError: there are too few labels to learn from.
    """
    from sklearn.linear_model import LinearRegression, LogisticRegression  # a second of import that only stacks pay

    wanted = 2 if objective == "binary" else 1
    if np.unique(labels).size < wanted:
        where = f"{name}/pipeline.yaml: models: a stack"
        found = f"{labels.size} rows with {np.unique(labels).size} labels to learn from"
        expected = "more labelled rows: a fourth is kept from its members"
        raise InputError(Problem("TRAIN_EMPTY", where, found, expected))
    model = LogisticRegression(tol=1e-8, max_iter=1000) if objective == "binary" else LinearRegression()
    model.fit(np.column_stack(outputs), labels)
    return tuple(np.ravel(model.coef_).tolist()), float(np.ravel(model.intercept_)[0])
