"""A LightGBM model as the kernel scores it."""

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.kernel.layout import lay_out
from jobs.kernel.library import ModelStruct, load_library, variants
from jobs.kernel.modeltext import Floats, ModelText, UncoveredError

# `enum output` of model.h: how a score becomes what LightGBM answers, by the name of its objective.
_RAW, _SIGMOID, _SOFTMAX, _EXP, _LOG1P_EXP, _SIGNED_SQUARE = range(6)
_TRANSFORMS = {
    **dict.fromkeys(
        ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg"), _RAW
    ),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), _EXP),
    **dict.fromkeys(("binary", "multiclassova", "cross_entropy"), _SIGMOID),
    "multiclass": _SOFTMAX,
    "cross_entropy_lambda": _LOG1P_EXP,
}


class KernelModel:
    """Scores rows of feature columns, to the last bit as the library does. Safe for threads.

    Attributes:
        features: How many columns it reads.
        outputs: How many numbers it answers for a row.
        variant: The width of vectors that it uses.
        thresholds, classes: How many thresholds, and classes of categories, each feature has.
    """

    def __init__(self, model: ModelText, *, variant: str | None = None) -> None:
        """Lay the model out.

        Args:
            model: All iterations in it are used.
            variant: One that this machine has; the widest where it is None.

        Raises:
            UncoveredError: the kernel is not there, or does not cover the model.
        """
        library = load_library()
        if isinstance(library, str):
            raise UncoveredError(library)
        output, sigmoid = _transform(model)
        layout = lay_out(model)
        here = variants(library)
        self.features, self.outputs = model.features, model.outputs
        self.variant = variant or next(iter(here))
        self._library, self._index = library, here[self.variant]
        self.thresholds, self.classes = layout.thresholds, layout.classes
        self._arrays = layout.arrays  # kept, for the struct only points to them
        average = float(len(model.trees) // model.outputs) if model.is_average else 0.0
        pointers = {name: array.ctypes.data for name, array in layout.arrays.items()}
        self._struct = ModelStruct(**layout.numbers, **pointers, output=output, average=average, sigmoid=sigmoid)

    def predict(self, columns: Sequence[Floats], *, raw: bool = False) -> Floats:
        """Scores, shape (rows,) or, where there are several outputs, (rows, outputs).

        Args:
            columns: One a feature, all as long; float64. They are read where they are.
            raw: Without the objective's transformation.
        """
        if len(columns) != self.features or len({len(column) for column in columns}) > 1:
            raise ValueError(f"{len(columns)} columns; expected {self.features}, all as long")
        kept = [np.ascontiguousarray(column, dtype=np.float64) for column in columns]
        rows = len(kept[0])
        scores = np.empty((rows, self.outputs))
        addresses = (ctypes.c_void_p * len(kept))(*(column.ctypes.data for column in kept))
        status = self._library.almanac_score(
            ctypes.byref(self._struct), self._index, addresses, rows, raw, scores.ctypes.data
        )
        if status:
            raise MemoryError("no memory for the rows of a block")
        return scores[:, 0] if self.outputs == 1 else scores


def _transform(model: ModelText) -> tuple[int, float]:
    """How sums become answers, and the factor of a sigmoid.

    Raises:
        UncoveredError: the objective is not known.
    """
    name, *rest = model.objective or ("",)
    parameters: dict[str, Any] = dict(part.partition(":")[::2] for part in rest)
    if not name:
        return _RAW, math.nan
    if name not in _TRANSFORMS:
        raise UncoveredError(f"objective {name}")
    if "sqrt" in parameters:
        return _SIGNED_SQUARE, math.nan
    return _TRANSFORMS[name], float(parameters.get("sigmoid", 1.0))
