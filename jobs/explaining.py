"""Explaining in the Python workers of Spark: the rows that are to be, each by the model that serves it."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa

from jobs.bundles import proven_bundle
from jobs.contributions import EXPLANATION_SCHEMA, explained
from jobs.dealing import VARIANT
from jobs.predicting import Contender
from schemas.run import CHAMPION

EXPLAINED = "__explained"  # whether the row is to be explained


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains, of the rows of a batch, those that are to be.

    Attributes:
        top: Features that are named.
        contenders: Variant -> its bundle.
    """

    top: int
    contenders: Mapping[str, Contender]

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Their explanations, in their order, each by the model that serves the row."""
        rows = batch.filter(batch.column(EXPLAINED))
        variants = rows.column(VARIANT).to_pylist() if VARIANT in rows.schema.names else [CHAMPION] * rows.num_rows
        order = sorted(range(rows.num_rows), key=lambda at: (variants[at], at))
        parts: list[pa.RecordBatch] = []
        for variant, places in groupby(order, key=lambda at: variants[at]):
            one = self.contenders[variant]
            bundle, _ = proven_bundle(one.folder, one.digest)
            parts.append(explained(bundle, rows.take(pa.array([*places])), self.top))
        if not parts:
            return pa.RecordBatch.from_pylist([], schema=EXPLANATION_SCHEMA)
        return pa.concat_batches(parts).take(pa.array(np.argsort(order)))
