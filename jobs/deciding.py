"""What is decided of a challenger: recorded for all later runs, and brought to what is served at once."""

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from jobs.amending import Judge, Swap, amend
from jobs.amendment import verify_amended
from jobs.bundles import find_bundle
from jobs.decided import standing_declaration
from jobs.lineup import trusted_bundle
from jobs.publishing import publisher, smoke
from jobs.stages import GetSpark, gate, stage_run, whole_run
from lookup.log import signature
from lookup.publisher import Outcome, Published
from lookup.store import Store
from lookup.turns import beside_others
from schemas.content import canonical_json, sha256_text
from schemas.decision import Decision, Kind, challenger_digest
from schemas.declared import DeclaredPipeline, load_pipeline
from schemas.errors import DeclarationError, InputError, Problem, RefusedError
from schemas.release import ReleaseState
from schemas.run import CHAMPION, RUN_FORMAT, SCORED_PARTS, RunManifest
from schemas.settings import Settings


class Decided(NamedTuple):
    """What a decision did.

    Attributes:
        decision: As it is recorded.
        is_new: Whether it was not recorded before.
        run_id: Of the run that is served for it; None where what is served did not have to change.
        published: How that run was.
    """

    decision: Decision
    is_new: bool
    run_id: str | None = None
    published: Published | None = None


def abort(settings: Settings, pipeline: str, challenger: str, *, reason: str, spark: GetSpark) -> Decided:
    """Give every entity that the challenger serves back to the models that serve without it, now and in later runs.

    What they predict for these entities was stored beside what was served, so that nothing is scored. Where this is
    killed, or Redis is away, the same call brings it to its end.

    Args:
        settings: Where things are.
        pipeline: Its name.
        challenger: As declared, or in the live run.
        reason: Why; it is kept.
        spark: Asked for where a run of several files, or rules of predictions, need it.

    Raises:
        DeclarationError: there is no reason, or no such challenger.
        BlockedError: what would be served instead is not sound; what is live stays.
        UnavailableError: Redis does not answer.
    """
    _refuse_no_reason(reason)
    declared = load_pipeline(settings, pipeline)
    store = Store(settings.store, pipeline)
    live = _live(store)
    digest = _digest(declared, store, live, challenger)
    bundle = live.models.get(challenger) if live else None
    made, is_new = _record(store, "abort", challenger, digest, bundle=bundle, reason=reason)
    # Another run may go live meanwhile; planned before this was recorded, it would serve the challenger.
    while live and live.counts.variants.get(challenger):
        models = {variant: id_ for variant, id_ in live.models.items() if variant != challenger}
        swap = Swap(challenger=challenger, leaving=challenger, becomes=None, models=models)
        published = _serve(settings, declared, live, swap, made, spark)
        if published.outcome is not Outcome.ARCHIVED:
            return Decided(made, is_new, published.run_id, published)
        live = _live(store)
    return Decided(made, is_new)


def promote(
    settings: Settings, pipeline: str, challenger: str, *, reason: str, now: bool = False, spark: GetSpark
) -> Decided:
    """Make the challenger's bundle of the live run the champion of later runs, until another is trained or declared.

    Args:
        settings: Where things are.
        pipeline: Its name.
        challenger: As declared.
        reason: Why; it is kept.
        now: Serve its predictions at once, which a shadow of all entities has stored.
        spark: As `abort` has it.

    Raises:
        DeclarationError: there is no reason, or no such challenger.
        RefusedError: it was aborted, the live run does not have it, or not for everybody where `now` asks for that.
        InputError: its bundle cannot be trusted, or is below a floor of the champion's.
    """
    _refuse_no_reason(reason)
    declared, store = load_pipeline(settings, pipeline), Store(settings.store, pipeline)
    where, live = f"{pipeline}: challenger {challenger}", _live(store)
    digest = _digest(declared, store, live, challenger)
    standing = standing_declaration(settings, declared)
    last = _last(store, challenger, digest)
    if last and last.kind == "abort":
        expected = "another declaration of it, such as a new salt"
        raise RefusedError(Problem("CONTEST_ABORTED", where, str(last), expected))
    holding = last if last in standing.decisions else None
    bundle = str(holding.bundle) if holding else _contender(where, live, challenger)
    trusted_bundle(declared, find_bundle(store.bundles, bundle, where=where))
    swap = _promotion(where, live, challenger, bundle) if now and live and challenger in live.models else None
    made, is_new = holding, False
    if made is None:
        before = find_bundle(store.bundles, standing.pipeline.models.champion.bundle, where=where).name
        made, is_new = _record(store, "promote", challenger, digest, bundle=bundle, replaces=before, reason=reason)
    if swap is None or live is None:
        return Decided(made, is_new)
    published = _serve(settings, declared, live, swap, made, spark)
    return Decided(made, is_new, published.run_id, published)


def _contender(where: str, live: RunManifest | None, challenger: str) -> str:
    """The challenger's bundle in the live run: what was seen to be good.

    Raises:
        RefusedError: it is not there.
    """
    if live is None or challenger not in live.models:
        found = f"the live run {live.run_id} does not have it" if live else "nothing is live"
        raise RefusedError(Problem("CONTEST_LIVE", where, found, "a live run that it scored in"))
    return live.models[challenger]


def _promotion(where: str, live: RunManifest, challenger: str, bundle: str) -> Swap:
    """The champion's rows of the live run as the challenger scored them.

    Raises:
        RefusedError: it did not score all of them, or another challenger serves.
    """
    dealt = live.counts.dealt.get(challenger, 0)
    if live.counts.variants.get(challenger) or dealt < live.counts.scored:
        found = f"it scored {dealt:,} of {live.counts.scored:,} entities"
        raise RefusedError(Problem("CONTEST_PARTIAL", f"{where}: --now", found, "a shadow of all, or no --now"))
    if serving := [name for name in live.challengers if live.counts.variants.get(name)]:
        found = f"{serving[0]} serves a share of the entities"
        raise RefusedError(
            Problem("CONTEST_PARTIAL", f"{where}: --now", found, f"abort {serving[0]} first, or no --now")
        )
    models = {variant: id_ for variant, id_ in live.models.items() if variant != challenger} | {CHAMPION: bundle}
    return Swap(challenger=challenger, leaving=CHAMPION, becomes=CHAMPION, models=models)


def _serve(
    settings: Settings, declared: DeclaredPipeline, base: RunManifest, swap: Swap, decision: Decision, spark: GetSpark
) -> Published:
    """Publish the base run with these rows swapped, through the checks and the gate that any run passes."""
    store = Store(settings.store, declared.name)
    content = [RUN_FORMAT, base.run_id, decision.kind, swap.challenger, swap.models]
    run_id = f"{base.date.isoformat()}-{sha256_text(canonical_json(content))[:12]}"
    with beside_others(store.folder):  # an erasure waits: the rows are read from files that it would replace
        manifest = whole_run(store, run_id) or _staged(store, declared, base, swap, run_id, spark)
        report = verify_amended(store, declared, base, manifest, decision, spark)
    gate(report, store.override(run_id))
    # It was rolled back where somebody went back to the challenger since: this is the word against that.
    back = any((one.run_id, one.state) == (run_id, ReleaseState.ROLLED_BACK) for one in store.releases())
    published = publisher(settings, declared).publish(run_id, force=back)
    if published.outcome is not Outcome.ARCHIVED:
        smoke(settings, declared.name, run_id, entities=declared.pipeline.publish.smoke_entities)
    return published


def _staged(
    store: Store, declared: DeclaredPipeline, base: RunManifest, swap: Swap, run_id: str, spark: GetSpark
) -> RunManifest:
    if damaged := store.damage(base, *SCORED_PARTS):
        raise InputError(*damaged)
    source, min_rows = store.run_folder(base.run_id), declared.pipeline.fallback.min_rows
    judge = _judge(declared, spark)
    return stage_run(
        store, run_id, lambda folder: amend(folder, base, source, run_id, swap, min_rows=min_rows, judge=judge)
    )


def _judge(declared: DeclaredPipeline, spark: GetSpark) -> Judge | None:
    """What tells which rules of predictions rows do not meet; None where none is declared."""
    rules = [rule for rule in declared.pipeline.rules if rule.on == "predictions"]
    if not rules:
        return None

    def judge(rows: pa.Table) -> pa.Table:
        from schemas.run import REASONS
        from validation.quarantine import listed, rule_reasons

        frame = spark().createDataFrame(rows)
        found = rule_reasons(frame, rules, where=f"{declared.name}/pipeline.yaml")
        return frame.withColumn(REASONS, listed(found)).toArrow()

    return judge


def _live(store: Store) -> RunManifest | None:
    live = store.live()
    return store.manifest(live.run_id) if live else None


def _refuse_no_reason(reason: str) -> None:
    if not reason.strip():
        raise DeclarationError(Problem("DECISION_REASON", "--reason", "is empty", "why; it is kept"))


def _digest(declared: DeclaredPipeline, store: Store, live: RunManifest | None, challenger: str) -> str:
    """Of the challenger's declaration: in the files, else in the live run, else when it was last decided.

    Raises:
        DeclarationError: there is no such challenger.
    """
    digests = {one.challenger: one.declared for one in store.decisions.entries()}
    digests |= live.challengers if live else {}
    digests |= {each.name: challenger_digest(each) for each in declared.pipeline.models.challengers}
    if challenger not in digests:
        expected = f"one of {', '.join(sorted(digests))}" if digests else "a challenger; none is declared"
        raise DeclarationError(
            Problem("CONTEST_UNKNOWN", f"{declared.name}: challenger '{challenger}'", "no such", expected)
        )
    return digests[challenger]


def _last(store: Store, challenger: str, digest: str) -> Decision | None:
    found = [one for one in store.decisions.entries() if (one.challenger, one.declared) == (challenger, digest)]
    return found[-1] if found else None


def _record(
    store: Store, kind: Kind, challenger: str, digest: str, *, reason: str,
    bundle: str | None, replaces: str | None = None,
) -> tuple[Decision, bool]:  # fmt: skip
    """The decision in the log, and whether it is new: the same one once more is not."""

    def draft(entries: Sequence[Decision], sequence: int) -> Decision | None:
        of = [one for one in entries if (one.challenger, one.declared) == (challenger, digest)]
        if of and (of[-1].kind, of[-1].replaces) == (kind, replaces):
            return None
        return Decision(
            sequence=sequence,
            kind=kind,
            challenger=challenger,
            declared=digest,
            bundle=bundle,
            replaces=replaces,
            at=dt.datetime.now(dt.UTC).replace(microsecond=0),
            by=signature(),
            reason=reason.strip(),
        )

    made = store.decisions.append(draft)
    last = made or _last(store, challenger, digest)
    assert last is not None  # noqa: S101  # it was there, or the draft above made it
    return last, made is not None
