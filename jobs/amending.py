"""A run made of another by a decision: what a second model predicted takes the place of what was served."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.predicting import ERROR
from jobs.priors import write_priors
from jobs.tasks import Aside, tally
from lookup.writer import write_rows
from schemas.content import canonical_json, sha256_text
from schemas.errors import InputError, Problem
from schemas.run import (
    CARRIED,
    CHAMPION,
    ENTITY_ID,
    FEATURES,
    PREDICTIONS,
    QUARANTINE,
    SCORED,
    SHADOW,
    Counts,
    DataFile,
    RunManifest,
)

# Adds REASONS to features and outputs of rows: the declared rules of predictions that a row does not meet.
Judge = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Which rows change their model.

    Attributes:
        challenger: In whose shadow files the other model's predictions are. It leaves the run.
        leaving: The variant of the rows that are swapped.
        becomes: What the rows are called then; as the shadow files have it when None.
        models: Of the run then, by variant.
    """

    challenger: str
    leaving: str
    becomes: str | None
    models: dict[str, str]


@dataclass(slots=True)
class _Amended:
    """What was written so far."""

    files: list[DataFile] = field(default_factory=list)
    swapped: int = 0
    aside: int = 0
    uncarried: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    variants: Counter[str] = field(default_factory=Counter)
    dealt: Counter[str] = field(default_factory=Counter)


def amend(
    folder: Path, base: RunManifest, source: Path, run_id: str, swap: Swap, *, min_rows: int, judge: Judge | None
) -> RunManifest:
    """Write the files of the amended run under `folder`, and return its manifest.

    They are what scoring without the challenger would have written, to the byte: no model is asked. A prediction that
    is not sound is set aside with its reasons, as in any run; a last good prediction that the leaving model once made
    is served no more.

    Args:
        folder: Of the new run.
        base: The run that is amended.
        source: Its folder; what does not change is linked.
        run_id: Of the new run.
        swap: What changes.
        min_rows: Of a group that gets a prior.
        judge: Where rules of predictions are declared.

    Raises:
        InputError: the base does not have a second prediction of each row that is to be swapped.
    """
    done = _Amended()
    parts = {part: {_stem(file): file for file in base.files_in(part)} for part in (PREDICTIONS, FEATURES, SHADOW)}
    for stem, file in parts[PREDICTIONS].items():
        other = parts[SHADOW].pop(f"{swap.challenger}-{stem}", None)
        beside = {name: each for name, each in parts[SHADOW].items() if name.endswith(f"-{stem}")}
        _Part(folder, source, base, swap, judge, done).write(stem, file, parts[FEATURES].get(stem), other, beside)
    done.files += [_linked(file, source, folder, _stem(file)) for file in base.files_in(QUARANTINE)]
    done.files.sort(key=lambda file: file.path)
    serving = base.serving
    done.files += write_priors(
        folder, done.files, key=serving.key, segments=serving.segments, outputs=base.outputs, min_rows=min_rows
    )
    content = [file.sha256 for file in done.files if file.path.startswith(f"{PREDICTIONS}/")]
    return base.model_copy(
        update={
            "run_id": run_id,
            "amends": base.run_id,
            "models": swap.models,
            "challengers": {name: of for name, of in base.challengers.items() if name != swap.challenger},
            "counts": _counts(base.counts, done, is_alone=len(swap.models) == 1),
            "content": sha256_text(canonical_json(content)),
            "verified_content": None,
            "files": tuple(done.files),
            "parity": tuple(one for one in base.parity if one.model in swap.models.values()),
            "stages": (),
            "scoring": None,
            "reused": None,
        }
    )


def _counts(counts: Counts, done: _Amended, *, is_alone: bool) -> Counts:
    changed = {
        "scored": counts.scored - done.aside,
        "carried": counts.carried - done.uncarried,
        "quarantined": counts.quarantined + done.aside + done.uncarried,
        "reasons": dict(sorted((Counter(counts.reasons) + done.reasons).items())),
        "variants": {} if is_alone else dict(sorted(done.variants.items())),
        "dealt": dict(sorted(done.dealt.items())),
    }
    return counts.model_copy(update=changed)


@dataclass(frozen=True, slots=True)
class _Part:
    """One file of predictions with those beside it."""

    folder: Path
    source: Path
    base: RunManifest
    swap: Swap
    judge: Judge | None
    done: _Amended

    def write(
        self,
        stem: str,
        served: DataFile,
        features: DataFile | None,
        other: DataFile | None,
        beside: dict[str, DataFile],
    ) -> None:
        table = pq.read_table(self.source / served.path, page_checksum_verification=True)
        is_scored = pc.equal(table.column("status"), SCORED)
        leaving = pc.equal(table.column("variant"), self.swap.leaving)
        mask = pc.and_(is_scored, leaving)
        gone = pa.array([], pa.string())
        if pc.any(mask).as_py():
            table = self._swapped(table, mask, self._others(table.filter(mask), other, stem))
            gone = self._unsound(stem, table.filter(mask), features)
        is_stale = pc.and_(pc.equal(table.column("status"), CARRIED), leaving)
        if self.swap.leaving != CHAMPION and pc.any(is_stale).as_py():
            self.done.uncarried += pc.sum(is_stale).as_py()
            gone = pa.concat_arrays([gone, table.filter(is_stale).column(ENTITY_ID).combine_chunks()])
        left = _without(table, gone)
        self.done.variants.update(tally(left.filter(pc.equal(left.column("status"), SCORED)).column("variant")))
        if len(gone) or pc.any(mask).as_py():
            self._keep(PREDICTIONS, stem, left)
        else:
            self._link(served, stem)
        for name, file in [(stem, features), *beside.items()]:
            if file is not None:
                self._rest(name, file, gone)

    def _rest(self, name: str, file: DataFile, gone: pa.Array) -> None:
        """A file beside the predictions, without the rows that have left them."""
        part, rows = Path(file.path).parent.name, file.rows
        if len(gone):
            left = _without(pq.read_table(self.source / file.path, page_checksum_verification=True), gone)
            self._keep(part, name, left)
            rows = left.num_rows
        else:
            self._link(file, name)
        if part == SHADOW:
            self.done.dealt[name.partition("-")[0]] += rows

    def _keep(self, part: str, name: str, rows: pa.Table) -> None:
        if rows.num_rows:
            written = write_rows(self.folder / part, f"{name}.parquet", rows.schema, rows.to_batches())
            self.done.files.append(written)

    def _link(self, file: DataFile, name: str) -> None:
        self.done.files.append(_linked(file, self.source, self.folder, name))

    def _others(self, leaving: pa.Table, other: DataFile | None, stem: str) -> pa.Table:
        """The second prediction of each of these rows, in their order."""
        ids = leaving.column(ENTITY_ID)
        if other is not None:
            rows = pq.read_table(self.source / other.path, page_checksum_verification=True)
            rows = rows.filter(pc.is_in(rows.column(ENTITY_ID), value_set=ids.combine_chunks()))
            if rows.column(ENTITY_ID).equals(ids):
                return rows
        where, found = f"{self.base.pipeline} run {self.base.run_id}: {stem}", "rows without a second prediction"
        raise InputError(Problem("CONTEST_ROWS", where, found, f"one of each of {len(ids):,} in its shadow files"))

    def _swapped(self, table: pa.Table, mask: pa.ChunkedArray, others: pa.Table) -> pa.Table:
        """The table with the other predictions where the mask says so."""
        self.done.swapped += others.num_rows
        flags = mask.combine_chunks()
        for name in (*self.base.output_names, "model", "variant"):
            new = others.column(name).combine_chunks()
            if name == "variant" and self.swap.becomes:
                new = pa.repeat(self.swap.becomes, len(new))
            index = table.schema.get_field_index(name)
            old = table.column(name).combine_chunks()
            table = table.set_column(index, table.schema.field(index), pc.replace_with_mask(old, flags, new))
        return table

    def _unsound(self, stem: str, rows: pa.Table, features: DataFile | None) -> pa.Array:
        """The ids of swapped rows that are set aside; their rows are in the quarantine then."""
        if features is None:
            raise InputError(
                Problem("OUT_ORDER", f"{self.base.run_id}: {stem}", "no features", "the same rows in both")
            )
        known = pq.read_table(self.source / features.path, page_checksum_verification=True)
        known = known.filter(pc.is_in(known.column(ENTITY_ID), value_set=rows.column(ENTITY_ID).combine_chunks()))
        outputs = self.base.output_names
        seen = known.schema
        for name in outputs:
            known = known.append_column(name, rows.column(name))
        known = known.append_column(ERROR, pa.nulls(known.num_rows, pa.string()))
        if self.judge:
            known = self.judge(known)
        aside = Aside(self.folder, f"part-amended-{stem}.parquet", seen, outputs)
        good = [aside.split(batch) for batch in known.combine_chunks().to_batches()]
        self.done.files += aside.finish()
        self.done.aside += aside.rows
        self.done.reasons.update(aside.reasons)
        sound = pa.concat_arrays([batch.column(ENTITY_ID) for batch in good])
        ids = rows.column(ENTITY_ID).combine_chunks()
        return ids.filter(pc.invert(pc.is_in(ids, value_set=sound)))


def _without(table: pa.Table, ids: pa.Array) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table.column(ENTITY_ID), value_set=ids))) if len(ids) else table


def _stem(file: DataFile) -> str:
    """Of a file's name, what an erasure leaves as it was."""
    return Path(file.path).name.partition(".")[0]


def _linked(file: DataFile, source: Path, folder: Path, name: str) -> DataFile:
    """The same file in the other folder, under that name: nobody changes one that is there."""
    path = f"{Path(file.path).parent.name}/{name}.parquet"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    os.link(source / file.path, folder / path)
    return file.model_copy(update={"path": path})
