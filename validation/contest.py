"""A challenger against the models that serve: was it dealt its share, and how do its predictions differ."""

from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.models import Challenger
from schemas.report import CheckResult, ContestGroup, ContestMeasure, Verdict
from schemas.run import ENTITY_ID, FEATURES, PREDICTIONS, SHADOW, Counts, DataFile, RunManifest
from validation.ranking import Floats, ranked

# Beyond it a share is off by more than one run in a million would be by chance: dealing is broken, not unlucky.
_LARGEST_Z = 4.9
_GROUPS = 12


def check_sample_ratio(declared: Challenger, counts: Counts) -> CheckResult:
    """Whether the challenger has its share of the scored entities, as far as chance allows."""
    share = 1.0 if declared.share is None else declared.share
    dealt = counts.dealt.get(declared.name, 0)
    reach = _LARGEST_Z * sqrt(counts.scored * share * (1 - share)) + 1
    is_fair = counts.scored > 0 and abs(dealt - counts.scored * share) <= reach
    return CheckResult(
        name=f"sample ratio of {declared.name}",
        family="challenger",
        verdict=Verdict.PASS if is_fair else Verdict.FAIL,
        observed=f"{dealt:,} of {counts.scored:,} entities",
        expected=f"{share:.1%}, give or take {reach:,.0f} entities",
    )


def measure_contest(declared: Challenger, manifest: RunManifest, folder: Path, groups: Sequence[str]) -> ContestMeasure:
    """What both models predict for the rows that both scored.

    Args:
        declared: The challenger.
        manifest: Of the run.
        folder: Of the run.
        groups: Columns to compare in, key columns or features.
    """
    champion, challenger, named = [], [], []
    for files in _files(declared.name, manifest, folder):
        served, other, columns = _paired(*files, manifest.outputs[0].name, groups)
        champion.append(other if declared.serves else served)
        challenger.append(served if declared.serves else other)
        named.append(columns)
    before = np.concatenate(champion) if champion else np.empty(0)
    after = np.concatenate(challenger) if challenger else np.empty(0)
    sound = np.isfinite(before) & np.isfinite(after)
    table = pa.concat_tables(named).filter(pa.array(sound)) if named else None
    before, after = before[sound], after[sound]
    rank = ranked(before, after, correlate=True)
    return ContestMeasure(
        name=declared.name,
        mode=declared.mode,
        model=manifest.models[declared.name],
        rows=int(before.size),
        unsound=int((~sound).sum()),
        champion_mean=rank["mean_before"],
        challenger_mean=rank["mean_after"],
        mean_change=float(np.abs(after - before).mean()) if before.size else None,
        rank_correlation=rank["rank_correlation"],
        top_decile_overlap=rank["top_decile_overlap"],
        groups=tuple(group for name in groups if table for group in _groups(name, table.column(name), before, after)),
    )


def _files(name: str, manifest: RunManifest, folder: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Predictions, features and shadow of the same rows; of shadow, some of them."""
    served, features = (
        {stem(file): folder / file.path for file in manifest.files_in(part)} for part in (PREDICTIONS, FEATURES)
    )
    for file in shadow_files(manifest, name):
        part = stem(file).partition("-")[2]
        yield served[part], features[part], folder / file.path


def shadow_files(manifest: RunManifest, challenger: str) -> list[DataFile]:
    """What is kept of the rows that were dealt to it: what the model predicts for them that does not serve them."""
    return [file for file in manifest.files_in(SHADOW) if stem(file).partition("-")[0] == challenger]


def stem(file: DataFile) -> str:
    """Of a file's name, what an erasure leaves as it was."""
    return Path(file.path).name.partition(".")[0]


def _paired(
    predictions: Path, features: Path, shadow: Path, output: str, groups: Sequence[str]
) -> tuple[Floats, Floats, pa.Table]:
    """Served and other score of the rows that have both, shape (n,), and their group columns."""
    other = pq.read_table(shadow, columns=[ENTITY_ID, output])
    served = pq.read_table(predictions, columns=[ENTITY_ID, output, "status"])
    scored = served.filter(pc.equal(served.column("status"), "scored"))
    columns = pq.read_table(features, columns=[*groups])
    has_both = pc.is_in(scored.column(ENTITY_ID), value_set=other.column(ENTITY_ID).combine_chunks())
    kept = scored.filter(has_both)
    if not kept.column(ENTITY_ID).equals(other.column(ENTITY_ID)):
        raise ValueError(f"{shadow}: rows in another order than the predictions have")
    values = (np.asarray(table.column(output).to_numpy(), dtype=np.float64) for table in (kept, other))
    mine, theirs = values
    return mine, theirs, columns.filter(has_both)


def _groups(name: str, column: pa.ChunkedArray, before: Floats, after: Floats) -> list[ContestGroup]:
    """The largest groups of one column."""
    coded = pc.fill_null(pc.cast(column, pa.string()), "(null)").combine_chunks().dictionary_encode()
    codes = np.asarray(coded.indices)
    rows = np.bincount(codes, minlength=len(coded.dictionary))
    means = [np.bincount(codes, weights=values, minlength=rows.size) / rows for values in (before, after)]
    largest = sorted(range(rows.size), key=lambda code: (-rows[code], coded.dictionary[code].as_py()))[:_GROUPS]
    return [
        ContestGroup(
            column=name,
            value=coded.dictionary[code].as_py(),
            rows=int(rows[code]),
            champion_mean=float(means[0][code]),
            challenger_mean=float(means[1][code]),
        )
        for code in largest
    ]
