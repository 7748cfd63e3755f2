"""Predicting in the Python workers of Spark: the bundles, each proven once a process, and the rows that each scores."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.bundles import Bundle, proven_bundle
from jobs.dealing import OTHER, VARIANT
from jobs.gathering import Places, gathered
from jobs.isolating import score_each
from jobs.sieve import Sieve
from schemas.errors import AlmanacError
from schemas.run import CHAMPION
from validation.parity import Floats

NOTE = "__note"
ERROR = "__error"  # what the model raised for a row; NULL where it scored it


@dataclass(frozen=True, slots=True)
class Contender:
    """A bundle as it travels to where it scores."""

    id: str
    folder: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Predict:
    """Adds outputs to batches of features: of each row's variant, of the other model that scores it too, where there is
    one; what the model raised, where a row cannot be scored; and a note: how the bundles proved themselves, or why one
    could not.

    Attributes:
        contenders: Variant -> its bundle; the champion's rows need not say so.
        outputs: Of all of them.
        prove: Opens a bundle, and tells its largest difference from its holdout.
        sieve: Of a funnel, where there is one.
    """

    contenders: Mapping[str, Contender]
    outputs: tuple[str, ...]
    prove: Callable[[Path, str], tuple[Bundle, float]] = proven_bundle
    sieve: Sieve | None = None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        first = next((batch for batch in batches if batch.num_rows), None)
        if first is None:
            return
        try:
            proven = {variant: self.prove(one.folder, one.digest) for variant, one in self.contenders.items()}
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
        width = len(self.outputs)
        scores, errors = _scores(batch, bundles, VARIANT, width)
        added = {output: pa.array(scores[:, place]) for place, output in enumerate(self.outputs)}
        for column in others_in(batch.schema.names):
            scores, _ = _scores(batch, bundles, column, width)  # nobody is served them
            is_null = np.asarray(batch.column(column).is_null())
            for place, output in enumerate(self.outputs):
                added[other_output(column, output)] = pa.array(scores[:, place], mask=is_null)
        told = pa.nulls(batch.num_rows, pa.string())
        added[ERROR] = pa.array([errors.get(at) for at in range(batch.num_rows)], pa.string()) if errors else told
        added[NOTE] = pa.repeat(note, batch.num_rows)
        schema = pa.schema([*batch.schema, *(pa.field(name, array.type) for name, array in added.items())])
        return pa.RecordBatch.from_arrays([*batch.columns, *added.values()], schema=schema)

    def added(self, columns: Sequence[str]) -> list[str]:
        """The numbers that it adds to rows of these columns, in their order; ERROR and NOTE come behind them."""
        others = [other_output(column, output) for column in others_in(columns) for output in self.outputs]
        return [*self.outputs, *others]


def others_in(columns: Sequence[str]) -> list[str]:
    """The columns that name a row's other models, one a challenger."""
    return [name for name in columns if name.startswith(OTHER)]


def other_output(column: str, output: str) -> str:
    """What the other model of that column predicts."""
    return f"__by{column}:{output}"


def _scores(
    batch: pa.RecordBatch, bundles: Mapping[str, Bundle], column: str, width: int
) -> tuple[Floats, dict[int, str]]:
    """The outputs of each row by the bundle that its variant names, shape (rows, width), NaN where it names none; and
    what rows raised.
    """
    if column not in batch.schema.names:
        champion = bundles.get(CHAMPION)
        return _by(champion, batch, width) if champion else (np.full((batch.num_rows, width), np.nan), {})
    variants = batch.column(column).dictionary_encode()
    names = variants.dictionary.to_pylist()
    if len(names) == 1 and not variants.null_count and names[0] in bundles:
        return _by(bundles[names[0]], batch, width)
    codes = np.asarray(variants.indices.fill_null(-1))
    scores, errors = np.full((batch.num_rows, width), np.nan), dict[int, str]()
    for code, name in enumerate(names):
        if name in bundles:
            rows = np.flatnonzero(codes == code)
            scores[rows], raised = _by(bundles[name], _some(batch, bundles[name], rows), width)
            errors |= {int(rows[at]): why for at, why in raised.items()}
    return scores, errors


def _some(batch: pa.RecordBatch, bundle: Bundle, rows: Places) -> pa.RecordBatch:
    """The rows at these places, of the columns that the bundle reads."""
    read = {feature.name for feature in bundle.manifest.features}
    return gathered(batch.select([name for name in batch.schema.names if name in read]), rows)


def _by(bundle: Bundle, batch: pa.RecordBatch, width: int) -> tuple[Floats, dict[int, str]]:
    scores, errors = score_each(bundle.predict, batch, model=bundle.id)
    # Where every row raised, nobody knows how many outputs there would have been.
    return (scores if scores.ndim > 1 else np.full((batch.num_rows, width), np.nan)), errors
