"""What a funnel loses: the recall of its survivors, estimated from an audit of those that it rejected."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.models import Funnel
from schemas.report import CheckResult, FunnelMeasure, Interval, Verdict
from schemas.run import CHAMPION, ENTITY_ID, PREDICTIONS, SCORED, RunManifest
from validation.contest import shadow_files, stem
from validation.intervals import exact_share_interval


def measure_funnel(declared: Funnel, manifest: RunManifest, folder: Path) -> FunnelMeasure:
    """How many rows each stage decided, and how many of them the champion calls positive, as far as it saw them.

    Args:
        declared: The funnel.
        manifest: Of the run.
        folder: Of the run.
    """
    output = manifest.outputs[0].name
    audits = {stem(file).partition("-")[2]: folder / file.path for file in shadow_files(manifest, declared.name)}
    survivors = rejected = audited = positives = found = 0
    for file in manifest.files_in(PREDICTIONS):
        table = pq.read_table(folder / file.path, columns=[ENTITY_ID, output, "variant", "status"])
        table = table.filter(pc.equal(table.column("status"), SCORED))
        champions, cheap = (
            table.filter(pc.equal(table.column("variant"), variant)) for variant in (CHAMPION, declared.name)
        )
        survivors, rejected = survivors + champions.num_rows, rejected + cheap.num_rows
        positives += _positives(champions.column(output), declared)
        if audit := audits.get(stem(file)):
            # A challenger may serve some of the audited: it is dealt its own at random, so the others are random too.
            scores = _of(pq.read_table(audit, columns=[ENTITY_ID, output]), cheap).column(output)
            audited, found = audited + len(scores), found + _positives(scores, declared)
    return FunnelMeasure(
        name=declared.name,
        survivors=survivors,
        rejected=rejected,
        audited=audited,
        positives=positives,
        audited_positives=found,
        recall=recall_interval(positives, rejected, audited, found, declared.confidence),
    )


def _of(audit: pa.Table, rejected: pa.Table) -> pa.Table:
    return audit.filter(pc.is_in(audit.column(ENTITY_ID), value_set=rejected.column(ENTITY_ID).combine_chunks()))


def _positives(scores: pa.ChunkedArray, declared: Funnel) -> int:
    return int(np.count_nonzero(np.asarray(scores.to_numpy()) >= declared.positive_at))


def recall_interval(positives: int, rejected: int, audited: int, audited_positives: int, confidence: float) -> Interval:
    """Around the share of all positives that survived.

    The positives among the survivors are known. Those among the rejected lie in the exact interval of their rate in the
    audit, and are no fewer than it found, nor more than it left possible; recall falls as they grow.

    Args:
        positives: Survivors from `positive_at` on.
        rejected: Rows that do not survive.
        audited: Of these, drawn at random.
        audited_positives: Of these, from `positive_at` on.
        confidence: In (0, 1).

    >>> found = recall_interval(90, 1000, 100, 1, 0.95)
    >>> round(found.low, 2), found.value, round(found.high, 2)
    (0.62, 0.9, 0.99)
    """
    rate = exact_share_interval(audited_positives, audited, confidence)
    most = rejected - (audited - audited_positives)
    low, value, high = (
        float(min(max(rejected * share, audited_positives), most)) for share in (rate.low, rate.value, rate.high)
    )
    return Interval(value=_recall(positives, value), low=_recall(positives, high), high=_recall(positives, low))


def _recall(found: int, lost: float) -> float:
    """Where there is nothing to find, nothing is lost."""
    return found / (found + lost) if lost else 1.0


def check_recall(declared: Funnel, measure: FunnelMeasure) -> CheckResult:
    """Whether the funnel lets enough through, by the lower end of the interval."""
    levels, recall = declared.min_recall, measure.recall
    verdict = Verdict.PASS
    if levels and recall.low < levels.warn:
        verdict = Verdict.FAIL if levels.fail is not None and recall.low < levels.fail else Verdict.WARN
    wanted = "no level declared: told only"
    if levels:
        fails = "" if levels.fail is None else f", {levels.fail:.1%} or it stops"
        wanted = f"at least {levels.warn:.1%}{fails}, by the lower end"
    return CheckResult(
        name=f"recall of {declared.name}",
        family="funnel",
        verdict=verdict,
        observed=f"{recall.value:.1%} ({recall.low:.1%} to {recall.high:.1%}): {measure.positives:,} positives among "
        f"{measure.survivors:,} survivors, {measure.audited_positives:,} among {measure.audited:,} audited of "
        f"{measure.rejected:,} rejected",
        expected=wanted,
    )
