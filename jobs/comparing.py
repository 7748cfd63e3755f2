"""Which two runs are compared, and what changed between them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lookup.store import Store
from schemas.checks import Churn
from schemas.declared import load_pipeline
from schemas.diff import Diff
from schemas.errors import DeclarationError, InputError, Problem, RefusedError
from schemas.report import Verdict
from schemas.run import FEATURES, PREDICTIONS, RunManifest
from schemas.settings import Settings
from validation.diff import check_churn, diff_runs
from validation.rundata import RunFiles

_RUN_ID = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Side:
    """A run that is compared; `release` is None where it was not committed."""

    manifest: RunManifest
    release: int | None

    def __str__(self) -> str:
        name = f"run {self.manifest.run_id}" if self.release is None else f"release {self.release}"
        return f"{name} ({self.manifest.date})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs of a pipeline and what changed from the one to the other."""

    before: Side
    after: Side
    diff: Diff


def compare(
    settings: Settings,
    pipeline: str,
    before: str | None = None,
    after: str | None = None,
    *,
    run_id: str | None = None,
    tolerance: float = 0.0,
    top: int = 10,
) -> Comparison:
    """What changed from one release to another, with the slices that the pipeline declares today.

    Args:
        settings: Where things are.
        pipeline: Its name.
        before: Release number or run id; the release that was live before the live one, when left out.
        after: The same; the live one, when left out.
        run_id: A staged run, in place of `after`; `before` is the live release then, when left out.
        tolerance: By how much an output may move and still be unchanged.
        top: How many of the largest movers are named.

    Raises:
        DeclarationError: there is no such pipeline, or `after` and `run_id` are both given.
        RefusedError: there is no such release.
        InputError: a run's files are gone or damaged, or the two have different outputs.
    """
    if after is not None and run_id is not None:
        raise DeclarationError(Problem("DIFF_SIDES", "almanac diff", f"{after} and --run {run_id}", "one of the two"))
    declared, store = load_pipeline(settings, pipeline), Store(settings.store, pipeline)
    named = after if run_id is None else run_id
    new = live_side(store) if named is None else side(store, named)
    left_out = _before_live if run_id is None else live_side
    old = left_out(store) if before is None else side(store, before)
    slices = declared.pipeline.checks.slices
    found = diff_manifests(
        store,
        old.manifest,
        new.manifest,
        tolerance=tolerance,
        top=top,
        groups=slices.groups if slices else (),
    )
    return Comparison(old, new, found)


def diff_manifests(
    store: Store,
    before: RunManifest,
    after: RunManifest,
    *,
    tolerance: float = 0.0,
    top: int = 0,
    groups: Sequence[tuple[str, ...]] = (),
    correlate: bool = True,
) -> Diff:
    """What changed between two staged runs, from their files.

    A group by a column that one of the runs does not have is left out, and said to be.

    Raises:
        InputError: a file is missing or is not the one that was staged, or the outputs differ.
    """
    outputs, others = (run.output_names for run in (after, before))
    if outputs != others:
        where, found = f"run {after.run_id}: outputs", ", ".join(outputs)
        raise InputError(Problem("DIFF_OUTPUTS", where, found, f"{', '.join(others)}, as run {before.run_id} has"))
    old, new = (_files(store, run, with_features=bool(groups)) for run in (before, after))
    known = [group for group in groups if all(old.has(column) and new.has(column) for column in group)]
    diff = diff_runs(old, new, outputs=outputs, tolerance=tolerance, top=top, groups=known, correlate=correlate)
    unknown = {" and ".join(group): "not in both runs" for group in groups if group not in known}
    return diff.model_copy(update={"unsliced": {**diff.unsliced, **unknown}})


def over_limits(diff: Diff, limits: Churn, where: str) -> list[Problem]:
    """Each limit that is exceeded, or that nothing can be said of."""
    results = check_churn(diff, limits, first_release=False)
    return [
        Problem("DIFF_CHURN", f"{where}: {result.name}", result.observed, result.expected)
        for result in results
        if result.verdict is Verdict.FAIL
    ]


def _files(store: Store, run: RunManifest, *, with_features: bool) -> RunFiles:
    folder = store.run_folder(run.run_id)
    parts = [PREDICTIONS, FEATURES] if with_features else [PREDICTIONS]
    problems = []
    for file in (file for part in parts for file in run.files_in(part)):
        size = _size_bytes(folder / file.path)
        if size is None:
            expected = "the run's file: restore it, or score that run again"
            problems.append(Problem("OUT_NOT_FOUND", str(folder / file.path), "no such file", expected))
        elif size != file.size_bytes:
            # Not the digest, which would read every byte once more; pages have checksums of their own.
            problems.append(Problem("OUT_CHECKSUM", str(folder / file.path), f"{size} bytes", f"{file.size_bytes}"))
    if problems:
        raise InputError(*problems)
    found = [tuple(folder / file.path for file in run.files_in(part)) for part in parts]
    return RunFiles(*found)


def _size_bytes(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def side(store: Store, name: str) -> Side:
    """The run of that release number or id.

    Raises:
        RefusedError: there is no such release.
        InputError: there is no such run.
    """
    if re.fullmatch(r"[0-9]{1,9}", name):
        release = store.release(int(name))
        return Side(store.manifest(release.run_id), release.number)
    if not _RUN_ID.fullmatch(name):
        where = f"{store.pipeline}: '{name}'"
        raise RefusedError(Problem("RELEASE_UNKNOWN", where, "neither a release number nor a run id", "one of these"))
    numbers = [release.number for release in store.releases() if release.run_id == name]
    return Side(store.manifest(name), numbers[0] if numbers else None)


def live_side(store: Store) -> Side:
    """The run that is live.

    Raises:
        RefusedError: none ever was.
    """
    live = store.live()
    if live is None:
        where = f"{store.pipeline}: the live release"
        raise RefusedError(Problem("RELEASE_UNKNOWN", where, "nothing was ever live", "a published run"))
    return Side(store.manifest(live.run_id), live.release)


def _before_live(store: Store) -> Side:
    live_side(store)
    number = store.live_before()
    if number is None:
        where = f"{store.pipeline}: the release before the live one"
        raise RefusedError(Problem("RELEASE_UNKNOWN", where, "there is none", "two releases, or one named: A B"))
    return side(store, str(number))
