"""Training a combination: its members, and for a stack the small model over their outputs."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.fitting import fit, labels_of
from jobs.flavors.ensemble import EnsembleModel, Link, MemberModel, linked
from jobs.flavors.lightgbm import LightGBM
from jobs.flavors.scorer import Signature
from jobs.matrix import feature_columns
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
    pipeline: Pipeline, asked: Training, features: tuple[Feature, ...], training: pa.Table, *, combine: Combine
) -> bytes:
    """The file of a new combination: the members, trained one after the other, and how they are put together.

    A stack learns from a fold of the rows that its members have not seen: of those they have, they know too much.

    Raises:
        InputError: the fold has nothing to learn from.
    """
    fold = in_fold(training.column(ENTITY_ID)) if combine.how == "stack" else None
    lesson = training if fold is None else training.filter(pa.array(~fold))
    members = []
    for member in combine.members:
        own = {"params": {**asked.params, **member.params}, "rounds": member.rounds or asked.rounds}
        seed = asked.seed if member.seed is None else member.seed
        model = fit(pipeline, asked.model_copy(update={**own, "seed": seed}), features, lesson)
        members.append(MemberModel(name=member.name, model=model.decode()))
    if fold is None:
        weights = tuple(member.weight for member in combine.members if member.weight is not None)
        made = EnsembleModel(how=combine.how, members=tuple(members), weights=weights)
    else:
        made = _stack(pipeline.pipeline, asked, features, tuple(members), training.filter(pa.array(fold)))
    return made.model_dump_json().encode()


def _stack(
    name: str, asked: Training, features: tuple[Feature, ...], members: tuple[MemberModel, ...], held: pa.Table
) -> EnsembleModel:
    """The members, and the small model over their outputs for rows that they have not seen."""
    link: Link = "logistic" if asked.objective == "binary" else "identity"
    signature = Signature(features, asked.objective)
    columns = feature_columns(features, held, model=name) if held.num_rows else []
    engines = [LightGBM(member.model.encode(), signature).library() for member in members]
    outputs = [linked(engine.predict(columns), link) for engine in engines if held.num_rows]
    coefficients, intercept = stacked(name, asked.objective, outputs, labels_of(held))
    return EnsembleModel(how="stack", members=members, weights=coefficients, intercept=intercept, link=link)


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
