"""Why a date is to be scored: it has no release yet, or its newest one is of other inputs, model or declaration."""

from typing import NamedTuple

from jobs.stages import Plan
from lookup.log import releases
from schemas.errors import InputError
from schemas.release import Release, ReleaseState
from schemas.run import SCORED_PARTS, RunManifest

UP_TO_DATE = "up to date"
ROLLED_BACK = "rolled back"
MISSING = "missing"


class Standing(NamedTuple):
    """Where a date stands before it is scored.

    Attributes:
        why: It is scored, or not.
        release: The one that the planned run is already.
    """

    why: str
    release: Release | None = None


def standing(plan: Plan) -> Standing:
    """What there is of the planned run's date, and why that is enough or not.

    What was rolled back is left alone: somebody found those predictions wrong, and nothing has changed since.
    """
    known = [release for release in releases(plan.store.log.entries()) if release.date == plan.date]
    own = next((release for release in known if release.run_id == plan.run_id), None)
    if own and own.state is ReleaseState.ROLLED_BACK:
        return Standing(ROLLED_BACK, own)
    if own:
        manifest = _manifest(plan, own)
        if manifest and not plan.store.damage(manifest, *SCORED_PARTS):
            return Standing(UP_TO_DATE, own)
        return Standing("damaged" if manifest else "removed")
    if not known:
        return Standing(MISSING)
    before = _manifest(plan, known[-1])
    return Standing(_difference(plan, before) if before else "removed")


def _manifest(plan: Plan, release: Release) -> RunManifest | None:
    try:
        return plan.store.manifest(release.run_id)
    except InputError:
        return None  # it is damaged, or was removed to make room


def _difference(plan: Plan, before: RunManifest) -> str:
    carried = before.carried_from.run_id if before.carried_from else None
    changed = {
        "source": set(before.sources) != set(plan.snapshot.fingerprints),
        "model": before.models != {variant: bundle.id for variant, bundle in plan.lineup},
        "declaration": before.declaration != plan.declared.digest,
    }
    names = [name for name, is_so in changed.items() if is_so]
    if not names and plan.base and carried != plan.base.run_id:
        names = ["carried predictions"]
    return f"{' and '.join(names) or 'another format'} changed"
