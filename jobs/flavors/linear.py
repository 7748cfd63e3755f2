"""The linear form: intercepts and weights in a JSON file, evaluated with numpy in one fixed order.

A row's numbers are the intercepts plus one term a feature, in the order of the features; every step is elementwise, so
that no library can add up in an order of its own.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from jobs.flavors.rowwise import each, highest, logistic, total
from jobs.flavors.scorer import Engine, Signature, UnloadableError
from schemas.bundle import Contract, Objective
from validation.parity import Floats

Link = Literal["identity", "logistic", "softmax"]
_LINKS: dict[Objective, Link] = {"binary": "logistic", "multiclass": "softmax"}


class Term(Contract):
    """What one feature adds to each number.

    Attributes:
        weights: Of a numeric feature: one a number, by which its value is multiplied.
        missing: The value that stands for one that is missing; none, where there is no prediction without it.
        categories: Of a categorical feature: for each category, what it adds to each number. A missing one
            adds nothing.
    """

    feature: str
    weights: tuple[float, ...] = ()
    missing: float | None = None
    categories: tuple[tuple[float, ...], ...] = ()


class LinearModel(Contract):
    """`model.json` of a bundle of the linear flavor."""

    format: Literal[1] = 1
    link: Link
    intercepts: tuple[float, ...] = Field(min_length=1)
    terms: tuple[Term, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rectangular(self) -> "LinearModel":
        for term in self.terms:
            rows = term.categories or (term.weights,)
            if any(len(row) != len(self.intercepts) for row in rows) or (term.categories and term.weights):
                raise ValueError(f"{term.feature}: expected {len(self.intercepts)} weights, or as many a category")
        return self


class Linear:
    """An opened linear model."""

    def __init__(self, raw: bytes, signature: Signature) -> None:
        """Read the model.

        Raises:
            UnloadableError: it is none, or does not fit the signature.
        """
        try:
            self._model = LinearModel.model_validate_json(raw)
        except ValidationError as err:
            first = err.errors()[0]
            raise UnloadableError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from err
        if self._model.link != (link := _LINKS.get(signature.objective, "identity")):
            raise UnloadableError(f"link {self._model.link} of a {signature.objective} model, which has {link}")
        if (found := len(self._model.intercepts)) != signature.numbers:
            raise UnloadableError(f"it predicts {found} numbers for a row, its manifest {signature.numbers}")
        for term, feature in zip(self._model.terms, signature.features, strict=False):
            if len(term.categories) != len(feature.categories):
                raise UnloadableError(f"{term.feature}: weights of {len(term.categories)} categories")

    @property
    def feature_names(self) -> list[str]:
        return [term.feature for term in self._model.terms]

    def library(self, why: str = "") -> Engine:  # noqa: ARG002  # there is nothing faster
        return Engine("linear", self._predict)

    def fastest(self, columns: Sequence[Floats]) -> Engine:  # noqa: ARG002  # it is exact by construction
        return self.library()

    def _predict(self, columns: Sequence[Floats]) -> Floats:
        sums = [np.full(len(columns[0]), intercept) for intercept in self._model.intercepts]
        with np.errstate(all="ignore"):  # what is not finite is set aside by the run
            for term, column in zip(self._model.terms, columns, strict=True):
                for number, so_far in enumerate(sums):
                    np.add(so_far, _added(term, column, number), out=so_far)
            return _LINKED[self._model.link](sums)


def _added(term: Term, column: Floats, number: int) -> Floats:
    if term.categories:
        table = np.array([*(weights[number] for weights in term.categories), 0.0])
        known: Floats = table[np.where(np.isnan(column), len(table) - 1, column).astype(np.int64)]
        return known
    value = column if term.missing is None else np.where(np.isnan(column), term.missing, column)
    return value * term.weights[number]


def _softmax(sums: Sequence[Floats]) -> Floats:
    top = highest(sums)
    powers = [each(math.exp, logits - top) for logits in sums]
    whole = total(powers)
    return np.column_stack([power / whole for power in powers])


_LINKED: dict[Link, Callable[[Sequence[Floats]], Floats]] = {
    "identity": lambda sums: sums[0],
    "logistic": lambda sums: logistic(sums[0]),
    "softmax": _softmax,
}
