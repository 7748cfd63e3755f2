"""The declaration that holds: what stands in the files, and what was decided of its challengers since."""

from collections.abc import Sequence
from dataclasses import replace

from jobs.bundles import find_bundle
from lookup.store import Store
from schemas.decision import Decision, challenger_digest
from schemas.declared import DeclaredPipeline
from schemas.models import Model
from schemas.settings import Settings


def standing_declaration(settings: Settings, declared: DeclaredPipeline) -> DeclaredPipeline:
    """The declaration with what was decided of its challengers.

    Raises:
        InputError: the champion's bundle is not there, or the log of decisions is damaged.
    """
    store = Store(settings.store, declared.name)
    if not (decisions := store.decisions.entries()):
        return declared
    where = f"{declared.name}/pipeline.yaml: models.champion.bundle"
    champion = find_bundle(store.bundles, declared.pipeline.models.champion.bundle, where=where)
    return as_decided(declared, decisions, champion.name)


def as_decided(declared: DeclaredPipeline, decisions: Sequence[Decision], champion: str) -> DeclaredPipeline:
    """The declaration without the challengers that were decided, and with the bundle that was promoted.

    An abort holds until the challenger is declared otherwise, and takes back the promotion of the same challenger. A
    promotion holds while the champion is the one that it replaced: until another is trained or declared.

    Args:
        declared: As it stands in the files.
        decisions: All of them, oldest first.
        champion: The id of the bundle that the files name.
    """
    models = declared.pipeline.models
    digests = {each.name: challenger_digest(each) for each in models.challengers}
    holding: dict[str, Decision] = {}
    promoted: list[Decision] = []
    for one in decisions:
        of = (one.challenger, one.declared)
        if one.kind == "promote" and one.replaces == (promoted[-1].bundle if promoted else champion):
            promoted.append(one)
            holding[one.challenger] = one
        elif one.kind == "abort":
            if promoted and (promoted[-1].challenger, promoted[-1].declared) == of:
                holding[promoted.pop().challenger] = one
            if of in digests.items():
                holding[one.challenger] = one
    if not holding:
        return declared
    left = [each for each in models.challengers if _is_open(holding.get(each.name), digests[each.name])]
    bundle = (promoted[-1].bundle if promoted else None) or models.champion.bundle
    changed = models.model_copy(update={"challengers": left, "champion": Model(bundle=bundle)})
    pipeline = declared.pipeline.model_copy(update={"models": changed})
    return replace(declared, pipeline=pipeline, decisions=tuple(holding.values()))


def _is_open(decision: Decision | None, digest: str) -> bool:
    return decision is None or decision.declared != digest
