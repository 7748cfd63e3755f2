"""The command `almanac diff`: what changed between two releases, for people and as a gate."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console import Console
from jobs.options import Json, PipelineName
from jobs.unexpected import check_store
from schemas.errors import BlockedError
from schemas.settings import Settings

if TYPE_CHECKING:
    from jobs.comparing import Comparison
    from schemas.diff import Diff

_Share = Annotated[float | None, typer.Option(min=0, max=1, metavar="SHARE", help="As a gate: exit code 3 above it.")]


def diff(
    pipeline: PipelineName,
    before: Annotated[
        str | None,
        typer.Argument(metavar="[A]", help="Release number or run id; the one before the live one, if left out."),
    ] = None,
    after: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Release number or run id; the live one, if left out.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="A staged run in place of B; A is the live one then.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, max=1000, help="Largest movers and shifts to show.")] = 10,
    tolerance: Annotated[float, typer.Option(min=0, help="A prediction that moves by this much is unchanged.")] = 0.0,
    max_added: _Share = None,
    max_removed: _Share = None,
    max_changed: _Share = None,
    as_json: Json = False,
) -> None:
    """Tell what changed from release A to release B: entities, predictions, slices."""
    from jobs.comparing import compare, over_limits
    from schemas.checks import Churn

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    found = compare(settings, pipeline, before, after, run_id=run_id, tolerance=tolerance, top=top)
    limits = Churn(max_added=max_added, max_removed=max_removed, max_changed=max_changed, tolerance=tolerance)
    where = f"{pipeline}: {found.before} to {found.after}"
    over = over_limits(found.diff, limits, where)
    console.say(where, style="bold")
    show(found, console, top=top)
    console.result(
        {
            "pipeline": pipeline,
            **{
                name: {"release": side.release, "run_id": side.manifest.run_id, "date": side.manifest.date}
                for name, side in (("before", found.before), ("after", found.after))
            },
            "diff": found.diff.model_dump(mode="json"),
            "over": [problem._asdict() for problem in over],
        }
    )
    if over and as_json:
        raise typer.Exit(BlockedError.exit_code)  # the document has told why
    if over:
        raise BlockedError(*over)


def show(found: "Comparison", console: Console, *, top: int) -> None:
    """Print a comparison for people: counts, tenths, movers, slices."""
    _counts(found.diff, console)
    _scores(found.diff, console)
    _deciles(found.diff, console)
    _movers(found.diff, console)
    _slices(found.diff, console, top)


def _counts(diff: "Diff", console: Console) -> None:
    def row(name: str, count: int, note: str = "") -> tuple[str, str, str, str]:
        share = f"{count / diff.before:.1%}" if diff.before else ""
        return name, f"{count:>11,}", f"{share:>7}", note

    moved = f"{diff.output} moved by more than {diff.tolerance:g}" if diff.tolerance else f"{diff.output} moved"
    rows = [
        row("before", diff.before),
        row("removed", diff.removed, "no longer there"),
        row("added", diff.added, "not there before"),
        row("after", diff.after),
        row("in both", diff.kept),
        row("unchanged", diff.unchanged),
        row("changed", diff.changed, moved),
        *(row("", count, f"{name} moved") for name, count in diff.changed_outputs.items() if name != diff.output),
    ]
    if diff.model_changes:
        rows.append(row("other model", diff.model_changes, "of those that are in both"))
    if diff.status_changes:
        rows.append(row("other status", diff.status_changes, "of those that are in both"))
    churn = row("churn", diff.added + diff.removed + diff.changed, "added, removed or changed")
    console.table(["", f"{'entities':>11}", f"{'share':>7}", ""], [*rows, churn])


def _scores(diff: "Diff", console: Console) -> None:
    if diff.mean_before is None or diff.mean_after is None:
        console.say(f"no entity has a {diff.output} in both")
        return
    console.say(f"\nmean {diff.output} of those in both: {diff.mean_before:.4f} before, {diff.mean_after:.4f} after")
    parts = []
    if diff.rank_correlation is not None:
        parts.append(f"rank correlation {diff.rank_correlation:.4f}")
    if diff.top_decile_overlap is not None:
        parts.append(f"{diff.top_decile_overlap:.1%} of the top tenth is in it still")
    if parts:
        console.say("; ".join(parts))
    if diff.not_finite:
        console.say(f"{diff.not_finite:,} rows have no finite {diff.output}", style="yellow")


def _deciles(diff: "Diff", console: Console) -> None:
    if not diff.deciles or not diff.changed:
        return
    console.say(f"\nwhere each tenth of the {diff.output}s went, in % (columns: the same tenths, after)")
    edges = [f"{edge:.4g}" for edge in diff.decile_edges]
    bounds = [f"to {edges[0]}", *(f"to {edge}" for edge in edges[1:]), "above"]
    rows = []
    for index, (bound, counts) in enumerate(zip(bounds, diff.deciles, strict=True), start=1):
        total = sum(counts)
        rows.append((index, bound, *(f"{100 * count / total:>4.0f}" if count else "   ." for count in counts)))
    console.table(["tenth", f"{diff.output} before", *(f"{index:>4}" for index in range(1, 11))], rows)


def _movers(diff: "Diff", console: Console) -> None:
    if diff.movers:
        console.say(f"\nmoved most, of {diff.changed:,} that changed" if diff.changed else "\nmoved most")
        rows = [
            (mover.entity_id, mover.before, mover.after, _signed(mover.after - mover.before)) for mover in diff.movers
        ]
        console.table(["id", "before", "after", "move"], rows)


def _slices(diff: "Diff", console: Console, top: int) -> None:
    shifted = sorted(diff.slices, key=lambda one: (-abs(one.shift or 0.0), one.columns, one.values))[:top]
    if shifted:
        console.say(f"\ngroups whose mean {diff.output} moved most, {len(shifted)} of {len(diff.slices)}")
        rows = [
            (
                " and ".join(map("=".join, zip(one.columns, one.values, strict=True))),
                one.rows_before,
                one.rows_after,
                one.added,
                one.removed,
                one.mean_before,
                one.mean_after,
                "" if one.shift is None else _signed(one.shift),
            )
            for one in shifted
        ]
        console.table(["group", "before", "after", "added", "removed", "mean before", "mean after", "move"], rows)
    for name, reason in diff.unsliced.items():
        console.say(f"no groups by {name}: {reason}", style="yellow")


def _signed(move: float) -> str:
    return f"{move:+.4f}"
