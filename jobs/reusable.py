"""Which earlier run a run may take outputs from: one whose outputs follow from the features as its own do."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import fingerprints
from jobs.libraries import library_here
from jobs.predicting import Predict
from jobs.reusing import Base, BasePart, Reusing, seed_of
from schemas.content import canonical_json, sha256_text
from schemas.errors import InputError
from schemas.run import FINGERPRINTS, MANIFEST_FILE, PREDICTIONS, RUN_FORMAT, Reused, RunManifest

if TYPE_CHECKING:
    from jobs.scoring import Scored
    from jobs.stages import Plan


@dataclass(frozen=True, slots=True)
class Reuse:
    """What a run may reuse.

    Attributes:
        manifest: Of the base run; None where there is none.
        folder: Of the base run.
        why: Why there is none.
        audit: Share of the reused rows that is scored again.
        run_id: Of the new run.
    """

    manifest: RunManifest | None
    folder: Path
    why: str
    audit: float
    run_id: str

    def record(self, scored: "Scored", buckets: int, files: int) -> Reused:
        """What the manifest tells of it."""
        if self.manifest is None:
            return Reused(why=self.why)
        if _cut(self.manifest, self.folder, buckets, files) is None:
            return Reused(why=f"its rows are cut into other files than those of run {self.manifest.run_id}")
        return Reused(base=self.manifest.run_id, rows=scored.reused, audited=scored.audited)


def reuse_of_plan(plan: "Plan") -> Reuse | None:
    """What a planned run may reuse; None where that is not declared."""
    declared = plan.declared.pipeline.models.reuse
    if declared is None:
        return None
    found = _base(plan)
    manifest = found if isinstance(found, RunManifest) else None
    folder = plan.store.run_folder(manifest.run_id if manifest else plan.run_id)
    return Reuse(manifest, folder, found if isinstance(found, str) else "", declared.audit, plan.run_id)


def scoring_digest(plan: "Plan") -> str:
    """SHA-256 of all that makes outputs of features; the engine is compared where it scores.

    What is given to features.sql when it runs shows in the features.
    """
    pipeline, declared = plan.declared.pipeline, plan.declared
    dumped = pipeline.model_dump(
        mode="json",
        exclude_defaults=True,
        include={"entity", "features", "rules", "models"},
        exclude={"models": {"reuse"}},
    )
    libraries = sorted({library_here(bundle.manifest.flavor) for _, bundle in plan.lineup})
    content = [RUN_FORMAT, fingerprints.VERSION, libraries, dumped, declared.features_sql, plan.lineup.digests]
    return sha256_text(canonical_json(content))


def _base(plan: "Plan") -> RunManifest | str:
    """The run with the same scoring whose date is nearest; or why there is none."""
    if plan.full:
        return "all rows were to be scored (--full)"
    if plan.declared.pipeline.models.challengers:
        return "what challengers predict is not reused"
    if plan.declared.pipeline.models.funnel:
        return "which rows a funnel lets through depends on all of them"
    printed, wanted = [run for run in _staged(plan) if run.files_in(FINGERPRINTS)], scoring_digest(plan)
    if not printed:
        return "no earlier run has fingerprints"
    same = [run for run in printed if run.scoring == wanted]
    if not same:
        return "bundle, SQL, features, rules, routes or library are others than those of any earlier run"
    return min(same, key=lambda run: (abs((run.date - plan.date).days), -run.scored_at.timestamp(), run.run_id))


def _staged(plan: "Plan") -> Iterator[RunManifest]:
    for path in (plan.store.folder / "runs").glob(f"[0-9]*/{MANIFEST_FILE}"):
        with suppress(InputError):  # damaged, or removed meanwhile
            if path.parent.name != plan.run_id:
                yield plan.store.manifest(path.parent.name)


def reuse_of(
    reuse: Reuse | None, predict: Predict, columns: Sequence[str], buckets: int, files: int
) -> Predict | Reusing:
    """What scores the rows of a run that is cut so."""
    if reuse is None:
        return predict
    base = _cut(reuse.manifest, reuse.folder, buckets, files) if reuse.manifest else None
    return Reusing(predict, base, tuple(sorted(columns)), reuse.audit, seed_of(reuse.run_id))


def _cut(manifest: RunManifest, folder: Path, buckets: int, files: int) -> Base | None:
    """The base, where its rows are cut as those of the new run."""
    parts = _parts(manifest)
    if manifest.buckets != buckets or max(parts, default=-1) + 1 != files:
        return None
    engines: Mapping[str, tuple[str, ...]] = {one.model: tuple(one.engines) for one in manifest.parity}
    return Base(run_id=manifest.run_id, folder=folder, parts=parts, engines=engines, buckets=buckets, files=files)


def _parts(manifest: RunManifest) -> dict[int, BasePart]:
    """By number, the parts that have both files."""
    predictions, prints = (
        {int(Path(file.path).name.partition(".")[0].removeprefix("part-")): file for file in manifest.files_in(name)}
        for name in (PREDICTIONS, FINGERPRINTS)
    )
    return {number: BasePart(predictions[number], prints[number]) for number in predictions.keys() & prints.keys()}
