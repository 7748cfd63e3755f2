"""The funnel in the Python workers of Spark: which rows the cheap model lets through to the champion."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.bundles import Bundle
from jobs.dealing import OTHER, VARIANT
from jobs.isolating import score_each
from schemas.run import CHAMPION, ENTITY_ID
from validation.parity import Floats


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the ranking by cheap score, highest first, then by entity id ends.

    Attributes:
        score: Rows above it survive.
        last: The last entity id of those with just this score that survives; all of them where it is None.
    """

    score: float
    last: str | None = None

    def survivors(self, scores: Floats, ids: pa.Array) -> npt.NDArray[np.bool_]:
        """Which rows survive.

        >>> Cut(0.5, "b").survivors(np.array([0.9, 0.5, 0.5, 0.1]), pa.array(["z", "a", "c", "a"])).tolist()
        [True, True, False, False]
        """
        if self.last is None:
            return np.asarray(scores >= self.score)
        # Spark sorts text by its bytes, as Arrow compares it.
        first = np.asarray(pc.less_equal(ids, pa.scalar(self.last)))
        return np.asarray((scores > self.score) | ((scores == self.score) & first))


@dataclass(frozen=True, slots=True)
class Sieve:
    """Takes the rows that a funnel rejects away from the champion.

    Attributes:
        name: Of the funnel, and so the variant of what it rejects.
    """

    name: str
    cut: Cut

    def decided(self, batch: pa.RecordBatch, cheap: Bundle) -> pa.RecordBatch:
        """The rows with the stage that decides, wherever the champion stood; the audit keeps what was rejected."""
        rejected = pa.array(~self.cut.survivors(rank_scores(cheap, batch), batch.column(ENTITY_ID)))
        for index, column in enumerate(batch.schema.names):
            if column == OTHER + self.name:
                told = pc.if_else(rejected, batch.column(index), pa.scalar(None, pa.string()))
            elif column == VARIANT or column.startswith(OTHER):
                is_champions = pc.fill_null(pc.equal(batch.column(index), CHAMPION), False)
                told = pc.if_else(pc.and_(rejected, is_champions), self.name, batch.column(index))
            else:
                continue
            batch = batch.set_column(index, batch.schema.field(index), told)
        return batch


def rank_scores(cheap: Bundle, batch: pa.RecordBatch) -> Floats:
    """What the rows are ranked by: the first output. What is not scored, or no number, comes last; zero has no sign."""
    predicted, _ = score_each(cheap.predict, batch, model=cheap.id)
    scores = predicted[:, 0] + 0.0
    return np.where(np.isnan(scores), -np.inf, scores)
