"""Scoring a batch in which some row cannot be scored: the others are, and it is told which one and why."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from schemas.errors import AlmanacError, InputError, Problem
from validation.parity import Floats

MOST_FAILED = 100  # rows of a batch; where there are more, it is not the rows that are at fault
_MOST_CHARACTERS = 200

Score = Callable[[pa.RecordBatch], Floats]


def score_each(score: Score, batch: pa.RecordBatch, *, model: str) -> tuple[Floats, dict[int, str]]:
    """The scores of all rows, NaN where there is none; and what each row raised that cannot be scored, by its place.

    A batch that raises is halved until the rows are alone that do: n of them cost 2 n log2(rows) calls more.

    Raises:
        InputError: the model raises for more than MOST_FAILED rows.
        AlmanacError: whatever `score` tells of the whole batch.
    """
    errors: dict[int, str] = {}
    parts = _scored(score, batch, 0, errors, model)
    known = [part for part in parts if part is not None]
    none = np.full((1, *known[0].shape[1:]) if known else (1,), np.nan)
    scores = (
        parts[0] if len(parts) == 1 and known else np.concatenate([none if part is None else part for part in parts])
    )
    return (none if scores is None else scores), errors


def _scored(score: Score, batch: pa.RecordBatch, first: int, errors: dict[int, str], model: str) -> list[Floats | None]:
    """The scores in parts, of which one of a single row that raised is None."""
    try:
        return [score(batch)]
    except AlmanacError:
        raise  # it is about the model or the columns, whichever rows there are
    except Exception as err:  # what a model's library raises cannot be foreseen
        if batch.num_rows > 1:
            half = batch.num_rows // 2
            before = _scored(score, batch.slice(0, half), first, errors, model)
            return before + _scored(score, batch.slice(half), first + half, errors, model)
        told = _told(err)
        if len(errors) == MOST_FAILED:
            found, expected = (
                f"more than {MOST_FAILED} rows of a batch raise, the last {told}",
                "a model that scores them",
            )
            raise InputError(Problem("SCORE_RAISES", f"bundle {model}", found, expected)) from err
        errors[first] = told
        return [None]


def _told(err: Exception) -> str:
    lines = str(err).splitlines()
    return f"{type(err).__name__}: {lines[0] if lines else ''}"[:_MOST_CHARACTERS].rstrip(": ")
