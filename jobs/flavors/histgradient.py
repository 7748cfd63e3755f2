"""HistGradientBoosting's trees, scored by the kernel; what its sums mean is left to scikit-learn itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.flavors.scorer import Signature
from jobs.kernel.modeltext import ModelText, Tree, UncoveredError
from jobs.kernel.scorer import KernelModel
from validation.parity import Floats

_MISSING_NAN = 2  # of LightGBM: NaN goes where the split says


class HistGradient:
    """A HistGradientBoosting estimator without categorical splits, laid out for the kernel.

    The library adds the leaves of each tree to its baseline, in the order of the trees; so does the kernel, to which
    the baseline is a first tree of one leaf. The inverse of the loss's link is then the library's own.

    Attributes:
        variant: The width of vectors that the kernel uses.
    """

    def __init__(self, estimator: Any, signature: Signature) -> None:
        """Lay the trees out.

        Raises:
            UncoveredError: it has categorical splits, or more than the kernel covers.
        """
        if estimator.is_categorical_ is not None and estimator.is_categorical_.any():
            raise UncoveredError("categorical splits of HistGradientBoosting")
        baseline = np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(-1)
        if np.signbit(baseline[baseline == 0]).any():
            raise UncoveredError("a baseline of -0.0")
        trees = [_leaf(value) for value in baseline]
        trees += [_tree(predictor.nodes) for turn in estimator._predictors for predictor in turn]
        features, outputs = len(signature.features), len(baseline)
        self._kernel = KernelModel(ModelText(features, outputs, (), is_average=False, trees=tuple(trees)))
        self._loss, self._objective = estimator._loss, signature.objective
        self.variant = self._kernel.variant

    @staticmethod
    def is_one(estimator: Any) -> bool:
        """Whether the estimator is a HistGradientBoosting one, by itself and not in a pipeline."""
        return type(estimator).__name__.startswith("HistGradientBoosting")

    def predict(self, columns: Sequence[Floats]) -> Floats:
        """Numbers of the rows, shape (rows,) or (rows, classes)."""
        sums = self._kernel.predict(columns, raw=True)
        if self._objective in ("binary", "multiclass"):
            numbers: Floats = self._loss.predict_proba(np.asfortranarray(sums.reshape(len(sums), -1)))
            return np.ascontiguousarray(numbers[:, 1] if self._objective == "binary" else numbers)
        return np.asarray(self._loss.link.inverse(sums.reshape(-1)), dtype=np.float64)


def _leaf(value: float) -> Tree:
    none = np.zeros(0, np.int64)
    flags = np.zeros(0, np.bool_)
    return Tree(none, np.zeros(0), flags, flags, none, none, none, np.array([value]), ())


def _tree(nodes: Any) -> Tree:
    """The tree with its splits and its leaves each numbered by themselves; a split stands before those below it.

    Raises:
        UncoveredError: its nodes are in another order, or do not make a tree.
    """
    is_leaf = nodes["is_leaf"].astype(np.bool_)
    places = np.where(is_leaf, ~(np.cumsum(is_leaf) - 1), np.cumsum(~is_leaf) - 1)
    splits = nodes[~is_leaf]
    left, right = splits["left"].astype(np.int64), splits["right"].astype(np.int64)
    children, parents = np.concatenate([left, right]), np.tile(np.flatnonzero(~is_leaf), 2)
    if not np.array_equal(np.sort(children), np.arange(1, len(nodes))) or (children <= parents).any():
        raise UncoveredError("a tree whose nodes are in another order than scikit-learn's")
    return Tree(
        feature=splits["feature_idx"].astype(np.int64),
        threshold=splits["num_threshold"].astype(np.float64),
        is_category=splits["is_categorical"].astype(np.bool_),
        default_left=splits["missing_go_to_left"].astype(np.bool_),
        missing=np.full(len(splits), _MISSING_NAN, np.int64),
        left=places[left],
        right=places[right],
        values=nodes["value"][is_leaf].astype(np.float64),
        sets=(),
    )
