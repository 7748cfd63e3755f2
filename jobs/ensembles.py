"""A combination of models that scores as one: its members' outputs, put together row by row in one fixed order."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.kernel.engine import Engine, choose_engine, library_engine
from validation.parity import Floats

if TYPE_CHECKING:
    import lightgbm

# A probability of 0 or 1 has no finite logit.
_SMALLEST = 1e-15


class _Contract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MemberModel(_Contract):
    """A model of the combination, whole: LightGBM's own text."""

    name: str
    model: str


class Ensemble(_Contract):
    """The model file of a bundle of the flavor `ensemble`: it needs no other bundle.

    Attributes:
        weights: One a member, of a weighted mean and of a stack.
        intercept: Of a stack.
        link: Of a stack: `logistic` reads and gives probabilities by their logits.
    """

    format: Literal[1] = 1
    how: Literal["mean", "weighted_mean", "max", "stack"]
    members: tuple[MemberModel, ...] = Field(min_length=2)
    weights: tuple[float, ...] = ()
    intercept: float = 0.0
    link: Literal["identity", "logistic"] = "identity"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wanted = len(self.members) if self.how in ("weighted_mean", "stack") else 0
        if len(self.weights) != wanted:
            raise ValueError(f"{len(self.weights)} weights of a {self.how} of {len(self.members)} members")
        if len({tuple(booster.feature_name()) for booster in self.boosters}) > 1:
            raise ValueError("its members read other columns")
        return self

    @cached_property
    def boosters(self) -> "list[lightgbm.Booster]":
        """The members, opened."""
        import lightgbm  # heavy; only what scores or trains pays for it

        return [lightgbm.Booster(model_str=member.model) for member in self.members]

    def combined(self, outputs: Sequence[Floats]) -> Floats:
        """What the members' outputs for some rows come to: every step is elementwise, in the order of the members.

        >>> one, two = np.array([0.25]), np.array([0.75])
        >>> Ensemble.model_construct(how="max").combined([one, two]).tolist()
        [0.75]
        """
        if self.how == "mean":
            return _sum(outputs) / len(outputs)
        if self.how == "max":
            highest = outputs[0]
            for each in outputs[1:]:
                highest = np.maximum(highest, each)
            return highest
        if self.how == "weighted_mean":
            weighted = [weight * each for weight, each in zip(self.weights, outputs, strict=True)]
            return _sum(weighted) / sum(self.weights)
        read = [linked(each, self.link) for each in outputs]
        total = _sum([weight * each for weight, each in zip(self.weights, read, strict=True)]) + self.intercept
        return _logistic(total) if self.link == "logistic" else total

    # What LightGBM's booster is to a bundle.

    def feature_name(self) -> list[str]:
        return [str(name) for name in self.boosters[0].feature_name()]

    def predict(self, data: Floats, num_threads: int = 1) -> Floats:
        outputs = (booster.predict(data, num_threads=num_threads) for booster in self.boosters)
        return self.combined([np.asarray(each, dtype=np.float64) for each in outputs])

    def model_to_string(self) -> str:
        return self.model_dump_json()


def plain_engine(model: "lightgbm.Booster | Ensemble", why: str) -> Engine:
    """What scores as the library does, and why nothing faster scores."""
    if not isinstance(model, Ensemble):
        return library_engine(model, why)
    return Engine(f"{model.how}: {why}", lambda columns: model.predict(np.column_stack(columns)))


def fastest_engine(model: "lightgbm.Booster | Ensemble", columns: Sequence[Floats]) -> Engine:
    """What scores these rows as the model itself does; of a combination, each member by what is fastest for it."""
    if not isinstance(model, Ensemble):
        return choose_engine(model, columns)
    engines = [choose_engine(booster, columns) for booster in model.boosters]
    names = ", ".join(sorted({engine.name for engine in engines}))

    def predict(columns: Sequence[Floats]) -> Floats:
        return model.combined([engine.predict(columns) for engine in engines])

    return Engine(f"{model.how} of {len(engines)} by {names}", predict)


def linked(outputs: Floats, link: str) -> Floats:
    """How a stack reads a member's outputs."""
    if link == "identity":
        return outputs
    clipped = np.clip(outputs, _SMALLEST, 1.0 - _SMALLEST)
    return _each(math.log, clipped / (1.0 - clipped))


def _logistic(values: Floats) -> Floats:
    # exp would overflow below -709; the quotient has been 0 to the last bit long before.
    return np.asarray(1.0 / (1.0 + _each(math.exp, -np.maximum(values, -700.0))))


def _each(function: Callable[[float], float], values: Floats) -> Floats:
    """Of each number by itself: numpy's own goes by vectors, whose last bit may be another on another machine."""
    return np.fromiter(map(function, values.tolist()), np.float64, len(values))


def _sum(terms: Sequence[Floats]) -> Floats:
    total = terms[0]
    for each in terms[1:]:
        total = total + each
    return total
