"""What scores a model's rows: the kernel where it covers the model and proved itself, else the library."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jobs.flavors.scorer import Engine
from jobs.kernel.modeltext import Floats, UncoveredError, read_model
from jobs.kernel.scorer import KernelModel

if TYPE_CHECKING:
    import lightgbm


def library_engine(booster: "lightgbm.Booster", why: str) -> Engine:
    """LightGBM itself, on one thread: Spark runs as many Python workers as there are cores."""

    def predict(columns: Sequence[Floats]) -> Floats:
        return np.asarray(booster.predict(np.column_stack(columns), num_threads=1), dtype=np.float64)

    return Engine(f"lightgbm: {why}", predict)


def choose_engine(booster: "lightgbm.Booster", columns: Sequence[Floats]) -> Engine:
    """The kernel, if it answers these rows as the booster does, to the last bit; else the booster, saying why."""

    def kernel() -> Engine:
        model = KernelModel(read_model(booster.model_to_string()))
        return Engine(f"kernel ({model.variant})", model.predict)

    return proven_engine(lambda why: library_engine(booster, why), kernel, columns)


def proven_engine(library: Callable[[str], Engine], kernel: Callable[[], Engine], columns: Sequence[Floats]) -> Engine:
    """The kernel, if it covers the model and answers these rows as the library does; else the library.

    Args:
        library: The library, which is told why it scores.
        kernel: Lays the model out; raises `UncoveredError` where it cannot.
        columns: Of the holdout.
    """
    try:
        engine = kernel()
    except UncoveredError as err:
        return library(str(err))
    expected, found = library("").predict(columns), engine.predict(columns)
    if found.shape != expected.shape:
        return library(f"the kernel answers {found.shape[1:]} numbers a row")
    differs = found.view(np.int64) != expected.view(np.int64)
    if wrong := np.flatnonzero(differs.reshape(len(found), -1).any(axis=1)).tolist():
        return library(f"the kernel differs in {len(wrong)} rows of the holdout, first in row {wrong[0]}")
    return engine
