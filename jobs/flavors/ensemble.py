"""A combination of models that scores as one: its members' outputs, put together row by row in one fixed order."""

import math
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from jobs.flavors.lightgbm import LightGBM
from jobs.flavors.rowwise import each, highest, logistic, total
from jobs.flavors.scorer import Engine, Signature, UnloadableError
from schemas.bundle import Contract
from validation.parity import Floats

Link = Literal["identity", "logistic"]

# A probability of 0 or 1 has no finite logit.
_SMALLEST = 1e-15


class MemberModel(Contract):
    """A model of the combination, whole: LightGBM's own text."""

    name: str
    model: str


class EnsembleModel(Contract):
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
    link: Link = "identity"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wanted = len(self.members) if self.how in ("weighted_mean", "stack") else 0
        if len(self.weights) != wanted:
            raise ValueError(f"{len(self.weights)} weights of a {self.how} of {len(self.members)} members")
        return self

    def combined(self, outputs: Sequence[Floats]) -> Floats:
        """What the members' outputs for some rows come to: every step is elementwise, in the order of the members.

        >>> one, two = np.array([0.25]), np.array([0.75])
        >>> EnsembleModel.model_construct(how="max").combined([one, two]).tolist()
        [0.75]
        """
        if self.how == "mean":
            return total(outputs) / len(outputs)
        if self.how == "max":
            return highest(outputs)
        if self.how == "weighted_mean":
            return self._weighted(outputs) / sum(self.weights)
        stacked = self._weighted([linked(output, self.link) for output in outputs]) + self.intercept
        return logistic(stacked) if self.link == "logistic" else stacked

    def _weighted(self, outputs: Sequence[Floats]) -> Floats:
        return total(weight * output for weight, output in zip(self.weights, outputs, strict=True))


class Ensemble:
    """An opened combination.

    Attributes:
        model: How its members are put together.
        members: Opened.
    """

    def __init__(self, raw: bytes, signature: Signature) -> None:
        """Read the combination and its members.

        Raises:
            UnloadableError: it is none, or a member does not fit the signature or the others.
        """
        try:
            self.model = EnsembleModel.model_validate_json(raw)
        except ValidationError as err:
            first = err.errors()[0]
            raise UnloadableError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from err
        self.members = [LightGBM(member.model.encode(), signature) for member in self.model.members]
        if len({tuple(member.feature_names) for member in self.members}) > 1:
            raise UnloadableError("its members read other columns")

    @property
    def feature_names(self) -> list[str]:
        return self.members[0].feature_names

    def library(self, why: str = "") -> Engine:
        return self._engine(why, [member.library(why) for member in self.members])

    def fastest(self, columns: Sequence[Floats]) -> Engine:
        engines = [member.fastest(columns) for member in self.members]
        return self._engine(", ".join(sorted({engine.name for engine in engines})), engines)

    def _engine(self, told: str, engines: Sequence[Engine]) -> Engine:
        def predict(columns: Sequence[Floats]) -> Floats:
            return self.model.combined([engine.predict(columns) for engine in engines])

        return Engine(f"{self.model.how} of {len(engines)}: {told}", predict)


def linked(outputs: Floats, link: Link) -> Floats:
    """How a stack reads a member's outputs."""
    if link == "identity":
        return outputs
    clipped = np.clip(outputs, _SMALLEST, 1.0 - _SMALLEST)
    return each(math.log, clipped / (1.0 - clipped))
