"""Arithmetic of a row by itself, in one fixed order: the same to the last bit however many rows there are."""

import math
from collections.abc import Callable, Iterable

import numpy as np

from validation.parity import Floats


def each(function: Callable[[float], float], values: Floats) -> Floats:
    """Of each number by itself: numpy's own goes by vectors, whose last bit may be another on another machine."""
    return np.fromiter(map(function, values.tolist()), np.float64, len(values))


def logistic(values: Floats) -> Floats:
    """The probabilities of these logits."""
    # exp would overflow below -709; the quotient has been 0 to the last bit long before.
    return np.asarray(1.0 / (1.0 + each(math.exp, -np.maximum(values, -700.0))))


def total(terms: Iterable[Floats]) -> Floats:
    """The sum, from the first to the last."""
    first, *others = terms
    for term in others:
        first = first + term
    return first


def highest(terms: Iterable[Floats]) -> Floats:
    """The largest; NaN where one is."""
    first, *others = terms
    for term in others:
        first = np.maximum(first, term)
    return first
