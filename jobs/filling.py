"""The command `almanac backfill`: its progress, its table at the end, and its exit code."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from jobs.arguments import parse_date
from jobs.console import Console
from jobs.options import Json, Param, PipelineName
from jobs.session import SPARK_LOG
from jobs.unexpected import check_store, explained
from schemas.binding import given_as_text
from schemas.errors import AlmanacError, BlockedError, DeclarationError, InputError, Problem, UnavailableError
from schemas.settings import Settings

if TYPE_CHECKING:
    from jobs.backfilling import Backfill, Filled, Wanted
    from lookup.publisher import Published

_AT_WORK = 0.5  # seconds from which a date has a row of its own
_COUNTED = {"nothing": "left as they are"}
MODEL_HELP = "declared, as-of (of each date, the newest that was trained before it), or a bundle: its id, or a path."


def backfill(
    pipeline: PipelineName,
    start: Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="The first logical date.")],
    end: Annotated[str, typer.Option("--to", metavar="YYYY-MM-DD", help="The last one.")],
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help=MODEL_HELP)] = "declared",
    publish_latest: Annotated[
        bool, typer.Option("--publish-latest", help="Make the newest of these dates live; else none is.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be scored, and why.")] = False,
    param: Param = None,
    as_json: Json = False,
) -> None:
    """Score, verify and archive past dates that are missing or changed, many in one Spark session."""
    from jobs.backfilling import Wanted

    first, last = date_range(start, end)
    wanted = Wanted(
        pipeline=pipeline,
        start=first,
        end=last,
        model=model,
        publish_latest=publish_latest,
        dry_run=dry_run,
        parameters=given_as_text(param or ()),
    )
    settings = check_store(Settings.from_environment())
    console = Console(as_json=as_json)
    ended = fill(settings, wanted, console, log=settings.store / SPARK_LOG)
    console.result(ended.document)
    if ended.exit_code:
        raise typer.Exit(ended.exit_code)


def date_range(start: str, end: str) -> tuple[dt.date, dt.date]:
    """The dates given with `--from` and `--to`.

    Raises:
        DeclarationError: one is no day or in the future, or they are the wrong way round.
    """
    first, last = parse_date(start, option="--from"), parse_date(end, option="--to")
    if first > last:
        raise DeclarationError(Problem("CLI_RANGE", "--from", f"{first} is after --to {last}", "the earlier one first"))
    return first, last


class Ended(NamedTuple):
    """How a backfill ended: for the shell, and for a program.

    Attributes:
        exit_code: 1 where a retry may help with something, else 2 where something failed, else 3 where a gate said no,
            else 0.
    """

    exit_code: int
    document: dict[str, Any]


def fill(settings: Settings, wanted: "Wanted", console: Console, *, log: Path | None = None) -> Ended:
    """Fill in the dates and tell of each.

    Raises:
        AlmanacError: nothing could be begun.
    """
    from jobs.backfilling import Backfill

    work = Backfill(settings, wanted, log=log)
    found: list[Filled] = []
    published: Published | None = None
    stopped: AlmanacError | None = None
    try:
        published = _fill(work, wanted, console, found)
    except (AlmanacError, OSError) as err:
        stopped = explained(err, settings)
    finally:
        _summary(found, wanted, console)
    errors = [one.error for one in found if one.error] + ([stopped] if stopped else [])
    code = _exit_code(errors)
    if errors and not console.as_json:
        console.error(_told_together(found, stopped))
    return Ended(code, _document(found, published, stopped, code))


def _fill(work: "Backfill", wanted: "Wanted", console: Console, found: list["Filled"]) -> "Published | None":
    with console.bar("backfill", len(wanted.dates)) as bar:
        for one in work.dates():
            found.append(one)
            if one.error or (one.run_id and one.seconds and not console.rich.is_terminal):
                console.say(_line(one), style="red" if one.error else "")
            bar.advance(f"{one.date} {one.done}")
    if not wanted.publish_latest or wanted.dry_run:
        return None
    with console.step("publish") as step:
        published = work.publish_newest(found)
        step.detail = _publication(published)
    return published


def _publication(published: "Published | None") -> str:
    from jobs.publishing import summary
    from lookup.publisher import Outcome

    if published is None:
        return "no date has a release: what is live stays so"
    older = "; what is live is newer, and stays so" if published.outcome is Outcome.ARCHIVED else ""
    return summary(published) + older


def _line(one: "Filled") -> str:
    what = [one.why, one.done if one.release is None else f"{one.done} as release {one.release}"]
    counted = [f"{one.verdict}, {one.rows:,} rows"] if one.verdict and one.rows is not None else []
    return f"{one.date}  {', '.join([*filter(None, what), *_codes(one), *counted])}  {one.seconds:.1f} s"


def _summary(found: Sequence["Filled"], wanted: "Wanted", console: Console) -> None:
    """A row a date; dates in a row that nothing was done about share one."""
    rows: list[tuple[object, ...]] = []
    for (done, why, is_one), group in groupby(found, key=lambda one: (one.done, _why(one), one.seconds >= _AT_WORK)):
        dates = list(group)
        if is_one or len(dates) == 1:
            rows += [_row(one) for one in dates]
        else:
            rows.append((f"{dates[0].date} to {dates[-1].date}", f"{len(dates)} dates", why, done, None, None, None))
    console.table(["date", "run", "why", "done", "verdict", f"{'rows':>9}", "seconds"], rows)
    if len(found) > 1:
        counts = Counter(one.done for one in found)
        console.say(
            f"{len(found)} dates: {', '.join(f'{count} {_COUNTED.get(done, done)}' for done, count in counts.items())}"
        )
    if left := len(wanted.dates) - len(found):
        console.say(f"not reached: {left} dates; the same command goes on with them", style="yellow")
    if seen := [one for one in found if one.has_seen]:
        console.say(
            f"{len(seen)} dates lie in the days that their model was trained or measured on: its predictions for them "
            "look better than it is (--model as-of takes one that was there then)",
            style="yellow",
        )
    if found and not (wanted.publish_latest or wanted.dry_run):
        console.say("what is live was left alone")


def _codes(one: "Filled") -> list[str]:
    """Why it failed; of a gate the word says it already."""
    if one.error is None or isinstance(one.error, BlockedError):
        return []
    return list(dict.fromkeys(problem.code for problem in one.error.problems))


def _why(one: "Filled") -> str:
    return ", ".join([*filter(None, [one.why]), *_codes(one)])


def _row(one: "Filled") -> tuple[object, ...]:
    done = one.done if one.release is None else f"{one.done}, release {one.release}"
    rows = None if one.rows is None else f"{one.rows:>9,}"
    seconds = f"{one.seconds:>7.1f}" if one.seconds else None
    return one.date, one.run_id, _why(one), done, one.verdict, rows, seconds


def _exit_code(errors: Sequence[AlmanacError]) -> int:
    codes = {error.exit_code for error in errors}
    return next(
        (code for code in (UnavailableError.exit_code, InputError.exit_code) if code in codes), max(codes, default=0)
    )


def _told_together(found: Sequence["Filled"], stopped: AlmanacError | None) -> AlmanacError:
    """Every problem as one error; what is wrong with many dates alike is told of the first."""
    alike: dict[tuple[str, str], list[tuple[dt.date, Problem]]] = {}
    for one in found:
        for problem in one.error.problems if one.error else ():
            plain = problem.where.replace(one.run_id or "", "").replace(str(one.date), "")
            alike.setdefault((problem.code, plain), []).append((one.date, problem))
    problems = list(stopped.problems) if stopped else []
    for (date, first), *others in alike.values():
        where = first.where if str(date) in first.where else f"{date}: {first.where}"
        further = {each for each, _ in others} - {date}
        more = f" (and on {len(further)} more dates)" if further else ""
        problems.append(first._replace(where=where, found=first.found + more))
    return BlockedError(*problems)


def _document(
    found: Sequence["Filled"], published: "Published | None", stopped: AlmanacError | None, code: int
) -> dict[str, Any]:
    return {
        "dates": [
            {
                "date": one.date,
                "run_id": one.run_id,
                "why": one.why,
                "done": one.done,
                "release": one.release,
                "verdict": one.verdict,
                "rows": one.rows,
                "seconds": round(one.seconds, 3),
                "problems": [problem._asdict() for problem in one.error.problems] if one.error else [],
            }
            for one in found
        ],
        "published": published._asdict() if published else None,
        "stopped": [problem._asdict() for problem in stopped.problems] if stopped else [],
        "exit_code": code,
    }
