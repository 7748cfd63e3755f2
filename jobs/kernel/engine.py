"""What scores a model's rows: the kernel where it covers the model and proved itself, else the library."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jobs.kernel.modeltext import Floats, UncoveredError
from jobs.kernel.scorer import KernelModel

if TYPE_CHECKING:
    import lightgbm


@dataclass(frozen=True, slots=True)
class Engine:
    """Answers what the library's `predict` answers.

    Attributes:
        name: `kernel (<vectors>)`, or `lightgbm: <why not the kernel>`.
        predict: Scores of rows that are given as columns, one a feature, float64.
    """

    name: str
    predict: Callable[[Sequence[Floats]], Floats]


def library_engine(booster: "lightgbm.Booster", why: str) -> Engine:
    """LightGBM itself, on one thread: Spark runs as many Python workers as there are cores."""

    def predict(columns: Sequence[Floats]) -> Floats:
        return np.asarray(booster.predict(np.column_stack(columns), num_threads=1), dtype=np.float64)

    return Engine(f"lightgbm: {why}", predict)


def choose_engine(booster: "lightgbm.Booster", columns: Sequence[Floats]) -> Engine:
    """The kernel, if it answers these rows as the booster does, to the last bit; else the booster, saying why."""
    try:
        kernel = KernelModel(booster.model_to_string())
    except UncoveredError as err:
        return library_engine(booster, str(err))
    expected = library_engine(booster, "").predict(columns)
    found = kernel.predict(columns)
    if found.shape != expected.shape:
        return library_engine(booster, f"the kernel answers {found.shape[1:]} numbers a row")
    if wrong := np.flatnonzero(
        (found.view(np.int64) != expected.view(np.int64)).reshape(len(found), -1).any(axis=1)
    ).tolist():
        return library_engine(
            booster, f"the kernel differs in {len(wrong)} rows of the holdout, first in row {wrong[0]}"
        )
    return Engine(f"kernel ({kernel.variant})", kernel.predict)
