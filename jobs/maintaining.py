"""The command `almanac maintain`: what is too old goes, and Redis is what the store says."""

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.console import Console
from jobs.options import Json
from jobs.unexpected import check_store
from schemas.errors import AlmanacError
from schemas.settings import Settings

if TYPE_CHECKING:
    from jobs.upkeep import Upkeep


def maintain(
    pipelines: Annotated[list[str] | None, typer.Argument(metavar="[PIPELINE...]", help="All, when left out.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what is older than `retention` declares, and mend what Redis has that the store does not say."""
    from schemas.declared import declared_names

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    done: list[Upkeep] = []
    errors: list[AlmanacError] = []
    for name in pipelines or declared_names(settings):
        try:
            done.append(upkeep(settings, name, console, dry_run=dry_run))
            errors += done[-1].errors
        except AlmanacError as err:
            errors.append(err)  # told at the end: the others are maintained all the same
    if errors:
        raise worst(errors)
    console.result([document(each) for each in done])


def upkeep(settings: Settings, pipeline: str, console: Console, *, dry_run: bool) -> "Upkeep":
    """Maintain one pipeline, and show what was done, or would be.

    Raises:
        DeclarationError: it is not declared, or wrongly.
    """
    from jobs.upkeep import Upkeeper
    from lookup.capacity import mib

    with console.step(f"maintain {pipeline}") as step:
        done = Upkeeper(settings, pipeline, dry_run=dry_run, now=dt.datetime.now(dt.UTC)).run()
        what = "would be removed" if dry_run else "removed"
        step.detail = f"{len(done.removals)} {what}, {mib(done.size_bytes)}; {len(done.findings)} findings in Redis"
    if rows := _rows(done):
        console.table(["what", "which", "release", "size", "why", "action"], rows)
    for note in done.notes:
        console.say(f"{pipeline}: {note}", style="yellow")
    return done


def worst(errors: Sequence[AlmanacError]) -> AlmanacError:
    """One error with the problems of all, of the kind with the highest exit code."""
    kind = type(max(errors, key=lambda error: error.exit_code))
    return kind(*(problem for error in errors for problem in error.problems))


def document(done: "Upkeep") -> dict[str, Any]:
    """The same for programs."""
    return {
        "pipeline": done.pipeline,
        "findings": [finding._asdict() for finding in done.findings],
        "removals": [removal._asdict() for removal in done.removals],
        "size_bytes": done.size_bytes,
        "notes": list(done.notes),
    }


def _rows(done: "Upkeep") -> list[tuple[object, ...]]:
    from lookup.capacity import mib

    redis = [
        ("version", f"{found.version or ''} {found.run_id}".strip(), None, None, found.found, found.repair)
        for found in done.findings
    ]
    store = [
        (removal.kind, removal.name, removal.release, mib(removal.size_bytes), removal.why, "remove")
        for removal in done.removals
    ]
    return [*redis, *store]
