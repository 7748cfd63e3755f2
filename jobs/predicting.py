"""Predicting in the Python workers of Spark: the bundles, each proven once a process, and the rows that each scores."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.bundles import Bundle, proven_bundle
from jobs.dealing import OTHER, VARIANT
from jobs.sieve import Sieve
from schemas.errors import AlmanacError
from schemas.run import CHAMPION
from validation.parity import Floats

NOTE = "__note"


@dataclass(frozen=True, slots=True)
class Contender:
    """A bundle as it travels to where it scores."""

    id: str
    folder: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Predict:
    """Adds outputs to batches of features: of each row's variant, of the other model that scores it too, where there is
    one; and a note: how the bundles proved themselves, or why one could not.

    Attributes:
        contenders: Variant -> its bundle; the champion's rows need not say so.
        outputs: Of all of them.
        sieve: Of a funnel, where there is one.
    """

    contenders: Mapping[str, Contender]
    outputs: tuple[str, ...]
    sieve: Sieve | None = None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        first = next((batch for batch in batches if batch.num_rows), None)
        if first is None:
            return
        try:
            proven = {variant: proven_bundle(one.folder, one.digest) for variant, one in self.contenders.items()}
            note = json.dumps(
                {
                    "differences": {bundle.id: difference for bundle, difference in proven.values()},
                    "engines": {bundle.id: bundle.engine.name for bundle, _ in proven.values()},
                }
            )
            bundles = {variant: bundle for variant, (bundle, _) in proven.items()}
            for batch in chain([first], batches):
                yield self._with(batch, bundles, note)
        except AlmanacError as err:
            yield self._with(first.slice(0, 1), {}, json.dumps({"problems": err.problems}))

    def _with(self, batch: pa.RecordBatch, bundles: Mapping[str, Bundle], note: str) -> pa.RecordBatch:
        if self.sieve and self.sieve.name in bundles:
            batch = self.sieve.decided(batch, bundles[self.sieve.name])
        added = {self.outputs[0]: pa.array(_scores(batch, bundles, VARIANT))}
        for column in others_in(batch.schema.names):
            scores = _scores(batch, bundles, column)
            added[other_output(column, self.outputs[0])] = pa.array(
                scores, mask=np.asarray(batch.column(column).is_null())
            )
        added[NOTE] = pa.repeat(note, batch.num_rows)
        schema = pa.schema([*batch.schema, *(pa.field(name, array.type) for name, array in added.items())])
        return pa.RecordBatch.from_arrays([*batch.columns, *added.values()], schema=schema)

    def added(self, columns: Sequence[str]) -> list[str]:
        """The numbers that it adds to rows of these columns, in their order; the note comes behind them."""
        others = [other_output(column, output) for column in others_in(columns) for output in self.outputs]
        return [*self.outputs, *others]


def others_in(columns: Sequence[str]) -> list[str]:
    """The columns that name a row's other models, one a challenger."""
    return [name for name in columns if name.startswith(OTHER)]


def other_output(column: str, output: str) -> str:
    """What the other model of that column predicts."""
    return f"__by{column}:{output}"


def _scores(batch: pa.RecordBatch, bundles: Mapping[str, Bundle], column: str) -> Floats:
    """The score of each row by the bundle that its variant names; NaN where it names none."""
    if column not in batch.schema.names:
        champion = bundles.get(CHAMPION)
        return champion.predict(batch) if champion else np.full(batch.num_rows, np.nan)
    variants = batch.column(column).dictionary_encode()
    names = variants.dictionary.to_pylist()
    if len(names) == 1 and not variants.null_count and names[0] in bundles:
        return bundles[names[0]].predict(batch)
    codes = np.asarray(variants.indices.fill_null(-1))
    scores = np.full(batch.num_rows, np.nan)
    for code, name in enumerate(names):
        if name in bundles:
            rows = np.flatnonzero(codes == code)
            scores[rows] = bundles[name].predict(batch.take(pa.array(rows)))
    return scores
