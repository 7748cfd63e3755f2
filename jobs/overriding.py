"""`almanac override`: an operator lets a blocked run through, with a reason that is kept."""

import datetime as dt
from typing import Annotated

import typer

from jobs.console import Console
from jobs.options import Json, PipelineName
from lookup.log import signature
from lookup.store import Store
from schemas.content import write_atomically
from schemas.declared import load_pipeline
from schemas.errors import DeclarationError, Problem, RefusedError
from schemas.report import NEVER_OVERRIDDEN, Override, Verdict
from schemas.run import OVERRIDE_FILE
from schemas.settings import Settings


def override_run(store: Store, run_id: str, *, checks: tuple[str, ...], reason: str) -> Override:
    """Let a blocked run through its gate, and keep who did so and why beside its report.

    Args:
        store: That has the run.
        run_id: Of the run.
        checks: Names of the checks that failed, as the report has them; all of them.
        reason: Why the predictions are right all the same.

    Raises:
        DeclarationError: there is no reason, or a check is named that did not fail.
        RefusedError: the run is not blocked, a failed check is not named, or one may not be overridden.
    """
    report = store.report(run_id)
    where = f"{store.pipeline} run {run_id}"
    if not reason.strip():
        raise DeclarationError(Problem("OVERRIDE_REASON", "--reason", "is empty", "why the run is right all the same"))
    if report.verdict is not Verdict.FAIL:
        raise RefusedError(Problem("OVERRIDE_NOT_BLOCKED", where, f"its verdict is {report.verdict}", "a blocked run"))
    failed = {check.name: check for check in report.failures}
    if not failed:
        raise RefusedError(Problem("OVERRIDE_REFUSED", where, "a required check gave no result", "a new run"))
    if unknown := [name for name in checks if name not in failed]:
        expected = f"one of {', '.join(failed)}" if failed else "a check that failed"
        raise DeclarationError(Problem("OVERRIDE_CHECK", "--check", f"{unknown[0]!r} did not fail", expected))
    if fixed := [name for name, check in failed.items() if not check.is_overridable]:
        found = f"{fixed[0]!r} failed, and is never overridden ({', '.join(sorted(NEVER_OVERRIDDEN))})"
        raise RefusedError(Problem("OVERRIDE_REFUSED", where, found, "a new run"))
    if missing := [name for name in failed if name not in checks]:
        raise RefusedError(
            Problem("OVERRIDE_CHECK", where, f"{missing[0]!r} failed too", "--check for each that failed")
        )
    made = Override(
        by=signature(),
        at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        reason=reason.strip(),
        content=report.content,
        verified_at=report.verified_at,
        checks=tuple(dict.fromkeys(checks)),
    )
    write_atomically(store.run_folder(run_id) / OVERRIDE_FILE, made.model_dump_json(indent=2) + "\n")
    return made


def override(
    pipeline: PipelineName,
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The blocked run.")],
    check: Annotated[list[str], typer.Option("--check", help="A check that failed, by its name; each of them.")],
    reason: Annotated[str, typer.Option("--reason", help="Why its predictions are right all the same; it is kept.")],
    as_json: Json = False,
) -> None:
    """Let a blocked run through its gate; the next `almanac run` publishes it."""
    from jobs.paging import write_page

    console, settings = Console(as_json=as_json), Settings.from_environment()
    store = Store(settings.store, load_pipeline(settings, pipeline).name)
    with console.step("override") as step:
        made = override_run(store, run_id, checks=tuple(check), reason=reason)
        write_page(store, store.report(run_id))
        step.detail = f"{', '.join(made.checks)} by {made.by}: {made.reason}"
    console.result({"run_id": run_id, **made.model_dump(mode="json")})
