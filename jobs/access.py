"""The commands about who may do what: keys of the read API, users of Redis, and what was asked for in vain."""

import datetime as dt
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import Console
from jobs.options import Json, PipelineName
from jobs.unexpected import check_store
from schemas.settings import Settings

_SHOWN = 20


def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is, for example shop.")],
    tables: Annotated[str, typer.Option(help="Tables that it reads, with commas; * for every one.")],
    rate: Annotated[float, typer.Option(help="Ids a second that it may ask for.")],
    burst: Annotated[float | None, typer.Option(help="Ids at once; those of one second, when left out.")] = None,
    expires: Annotated[
        dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="From this day (UTC) on it is refused.")
    ] = None,
    add: Annotated[Path | None, typer.Option(metavar="FILE", help="A keys file to add its digest to.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key for the read API: it is shown this once, and only its digest is kept."""
    from jobs.apikeys import add_key, new_key

    made = new_key(
        name,
        tables=[table.strip() for table in tables.split(",")],
        rate=rate,
        burst=burst,
        expires=expires.date() if expires else None,
    )
    if add:
        add_key(add, made)
    if not as_json:
        # On standard output, as it is: it is piped into a secret store, or copied.
        sys.stdout.write(f"{made.key}\n" if add else f"{made.key}\n\n{made.entry}")
    Console(as_json=as_json).result({"name": name, "key": made.key, "entry": made.entry})


def acl(
    table: Annotated[str | None, typer.Option(help="Rights on one pipeline's table; on all, when left out.")] = None,
    redis_6: Annotated[bool, typer.Option("--redis-6", help="For a server before Redis 7.")] = False,
) -> None:
    """Print the commands that make the Redis users of readers and publishers, with the least rights."""
    from lookup.acl import publisher, reader
    from schemas.declared import load_pipeline

    if table:
        load_pipeline(Settings.from_environment(), table)
    for user in (reader(table, redis_6=redis_6), publisher(table)):
        sys.stdout.write(" ".join(user.setuser("PASSWORD")) + "\n")


def misses(
    pipeline: PipelineName,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them as Parquet, for a source.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many ids.")] = None,
    as_json: Json = False,
) -> None:
    """List what clients asked for and no release knew, the most asked first."""
    from jobs.missed import ASKED, miss_table, write_miss_table
    from schemas.declared import load_pipeline

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    columns = load_pipeline(settings, pipeline).pipeline.entity.key
    found = miss_table(settings.store, pipeline, columns, limit=limit)
    rows = found.rows.to_pylist()
    if to:
        write_miss_table(found, to)
        console.say(f"wrote {len(rows):,} ids to {to}")
    else:
        shown = rows[: limit or _SHOWN]
        console.table([*columns, ASKED], [tuple(row.values()) for row in shown])
        if len(rows) > len(shown):
            console.say(f"... and {len(rows) - len(shown):,} more (--limit, --to)")
    if found.unsplit:
        console.say(f"left out: {found.unsplit:,} ids whose parts are not the {len(columns)} of the key")
    if found.dropped:
        console.say(f"not kept: the ids of {found.dropped:,} further misses")
    console.result({"rows": rows, "left_out": found.unsplit, "not_kept": found.dropped})
