"""`almanac abort`, `promote` and `decisions`: an operator ends a contest, and it is kept who did and why."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console import Console
from jobs.options import Json, PipelineName
from jobs.unexpected import check_store
from schemas.settings import Settings

if TYPE_CHECKING:
    from jobs.deciding import Decided
    from jobs.stages import GetSpark

ChallengerName = Annotated[str, typer.Argument(metavar="CHALLENGER", help="Its name, as declared.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with your name.")]


def abort(pipeline: PipelineName, challenger: ChallengerName, reason: Reason, as_json: Json = False) -> None:
    """Give every entity that a challenger serves the champion again, at once and in later runs."""
    from jobs.deciding import abort as abort_challenger
    from jobs.watching import watched

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    with console.step("abort") as step, watched(settings, pipeline, "abort") as watch:
        done = abort_challenger(settings, pipeline, challenger, reason=reason, spark=_session(settings, pipeline))
        watch.facts.published = done.published
        step.detail = _told(done)
    _result(console, done)


def promote(
    pipeline: PipelineName,
    challenger: ChallengerName,
    reason: Reason,
    now: Annotated[
        bool, typer.Option("--now", help="Serve its stored predictions at once; of a shadow of all.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a challenger's bundle the champion of later runs, until another is trained or declared."""
    from jobs.deciding import promote as promote_challenger
    from jobs.watching import watched

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    with console.step("promote") as step, watched(settings, pipeline, "promote") as watch:
        spark = _session(settings, pipeline)
        done = promote_challenger(settings, pipeline, challenger, reason=reason, now=now, spark=spark)
        watch.facts.published = done.published
        step.detail = _told(done)
    _result(console, done)


def decisions(pipeline: PipelineName, as_json: Json = False) -> None:
    """List what was decided of a pipeline's challengers, and whether it still holds."""
    from jobs.decided import standing_declaration
    from lookup.store import Store
    from schemas.declared import load_pipeline

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    declared = load_pipeline(settings, pipeline)
    entries = Store(settings.store, pipeline).decisions.entries()
    holding = standing_declaration(settings, declared).decisions
    if not entries:
        console.say("nothing was decided yet")
    else:
        rows = [
            (
                e.sequence,
                e.kind,
                e.challenger,
                e.bundle,
                "yes" if e in holding else "no",
                f"{e.at:%Y-%m-%d}",
                e.by,
                e.reason,
            )
            for e in reversed(entries)
        ]
        console.table(["decision", "kind", "challenger", "bundle", "holds", "at", "by", "reason"], rows)
    console.result([{**entry.model_dump(mode="json"), "holds": entry in holding} for entry in entries])


def _session(settings: Settings, pipeline: str) -> "GetSpark":
    from functools import cache

    from jobs.session import SPARK_LOG, spark_session

    return cache(lambda: spark_session(f"almanac decide {pipeline}", log=settings.store / SPARK_LOG))


def _told(done: "Decided") -> str:
    from jobs.publishing import summary

    served = summary(done.published) if done.published else "what is served did not have to change"
    return f"{done.decision}{'' if done.is_new else ' (recorded before)'}; {served}"


def _result(console: Console, done: "Decided") -> None:
    published = done.published._asdict() if done.published else None
    found = {**done.decision.model_dump(mode="json"), "is_new": done.is_new, "run_id": done.run_id}
    console.result({**found, "published": published})
