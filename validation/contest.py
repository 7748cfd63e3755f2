"""A challenger against the models that serve: was it dealt its share, and how do its predictions differ."""

from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.models import Challenger
from schemas.report import CheckResult, ContestGroup, ContestMeasure, Verdict
from schemas.run import ENTITY_ID, FEATURES, PREDICTIONS, SHADOW, Counts, DataFile, RunManifest
from validation.grouping import GroupRows, largest_groups
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


def measure_contest(
    declared: Challenger, manifest: RunManifest, folder: Path, by: Sequence[tuple[str, ...]] = (), min_rows: int = 1
) -> ContestMeasure:
    """What both models predict for the rows that both scored.

    Args:
        declared: The challenger.
        manifest: Of the run.
        folder: Of the run.
        by: What to compare in: columns, or pairs of them, key columns or features (`Slices.groups`).
        min_rows: Groups of fewer have means only.

    Raises:
        InputError: a column, or a pair, has more than 1,000 groups.
    """
    names = list(dict.fromkeys(name for columns in by for name in columns))
    champion, challenger, named = [], [], []
    for files in _files(declared.name, manifest, folder):
        served, other, columns = _paired(*files, manifest.outputs[0].name, names)
        champion.append(other if declared.serves else served)
        challenger.append(served if declared.serves else other)
        named.append(columns)
    before = np.concatenate(champion) if champion else np.empty(0)
    after = np.concatenate(challenger) if challenger else np.empty(0)
    sound = np.isfinite(before) & np.isfinite(after)
    table = pa.concat_tables(named).filter(pa.array(sound)) if named else None
    before, after = before[sound], after[sound]
    groups = largest_groups(table, by, least=1, most=_GROUPS) if table else ()
    return ContestMeasure(
        name=declared.name,
        mode=declared.mode,
        model=manifest.models[declared.name],
        rows=int(before.size),
        unsound=int((~sound).sum()),
        mean_change=float(np.abs(after - before).mean()) if before.size else None,
        groups=tuple(_group(group, before[group.places], after[group.places], min_rows) for group in groups),
        **_compared(before, after),
    )


def _compared(before: Floats, after: Floats) -> dict[str, Any]:
    rank = ranked(before, after, correlate=True)
    kept = {name: rank[name] for name in ("rank_correlation", "top_decile_overlap")}
    return {"champion_mean": rank["mean_before"], "challenger_mean": rank["mean_after"], **kept}


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


def _group(group: GroupRows, before: Floats, after: Floats, min_rows: int) -> ContestGroup:
    compared = _compared(before, after)
    if before.size < min_rows:  # the order of a few says nothing
        compared |= {"rank_correlation": None, "top_decile_overlap": None}
    column, value = ", ".join(group.columns), ", ".join(group.values)
    return ContestGroup(column=column, value=value, rows=int(before.size), **compared)
