"""The commands about what is kept: an entity is erased, a lost Redis restored, the memory of a version told."""

from typing import Annotated

import typer

from jobs.console import Console
from jobs.options import Json, PipelineName
from jobs.unexpected import check_store
from schemas.settings import Settings


def erase(
    pipeline: PipelineName,
    entity: Annotated[str, typer.Argument(metavar="ID", help="The entity's id, for example UA:1545:EWR:2013-07-01.")],
    reason: Annotated[str, typer.Option(help="Kept with the record of the erasure; the id is not.")] = "",
    as_json: Json = False,
) -> None:
    """Remove all that is kept of an entity, in the store and in Redis: no rollback brings it back."""
    from jobs.publishing import lookup_table
    from lookup.connect import connect
    from lookup.embedded import running_url
    from lookup.erasing import erase as erase_everywhere
    from lookup.erasing import rewrite_log
    from lookup.log import signature
    from lookup.store import Store
    from schemas.declared import load_pipeline

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    declared = load_pipeline(settings, pipeline)
    with console.step("erase") as step:
        store = Store(settings.store, pipeline)
        erased = erase_everywhere(store, lookup_table(settings, declared), entity, by=signature(), reason=reason)
        if settings.redis_url is None and (url := running_url(settings.store)):
            with connect(url) as client:
                rewrite_log(client)  # the own server's file still has the row as it was written
        places = f"{erased.rows} rows of {erased.runs} runs, {erased.versions} versions in Redis"
        step.detail = f"{places}, {erased.misses} misses" if any(erased) else "nothing was kept of it"
    console.result(erased._asdict())


def restore(
    pipelines: Annotated[list[str] | None, typer.Argument(metavar="[PIPELINE...]", help="All, when left out.")] = None,
    as_json: Json = False,
) -> None:
    """Make Redis hold the live releases again, whole, from the store."""
    from jobs.publishing import publisher
    from lookup.store import Store
    from schemas.declared import declared_names, load_pipeline

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    rows = []
    for name in pipelines or declared_names(settings):
        declared = load_pipeline(settings, name)
        with console.step(f"restore {name}") as step:
            if not pipelines and Store(settings.store, name).live() is None:
                step.detail = "nothing was ever live"
                continue
            found = publisher(settings, declared).restore()
            did = "was whole" if found.was_whole else "loaded from the store"
            step.detail = f"release {found.release}, {found.entities:,} entities, {did}; checksum {found.checksum[:12]}"
            rows.append({"pipeline": name, **found._asdict()})
    console.result(rows)


def plan(
    pipeline: PipelineName,
    run_id: Annotated[str | None, typer.Option("--run", help="A staged run; the one scored last, if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Tell the memory that publishing a run would take in Redis, before anything is loaded."""
    from jobs.publishing import lookup_table
    from lookup.capacity import mib
    from lookup.heads import head_to_be
    from lookup.rows import StoredRows
    from lookup.store import Store
    from schemas.declared import load_pipeline

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    declared = load_pipeline(settings, pipeline)
    store, table = Store(settings.store, pipeline), lookup_table(settings, declared)
    manifest = store.manifest(run_id) if run_id else store.latest_run()
    head = head_to_be(manifest)
    plans, versions = table.plan(head, StoredRows(store, manifest)), len(table.versions())
    console.say(
        f"run {manifest.run_id}: {head.entities:,} entities, layout {head.layout}; "
        f"{versions} versions there, {declared.pipeline.publish.keep} are kept"
    )
    limits = [found.server.limit_bytes for found in plans]
    console.table(
        ["in use", "this version", "with it", "maxmemory", "fits"],
        [
            (
                mib(found.server.used_bytes),
                mib(found.version_bytes),
                mib(found.peak_bytes),
                mib(limit) if limit else "none",
                "yes" if found.fits else "no",
            )
            for found, limit in zip(plans, limits, strict=True)
        ],
    )
    console.result(
        {
            "run_id": manifest.run_id,
            "entities": head.entities,
            "versions": versions,
            "servers": [
                {
                    "used_bytes": found.server.used_bytes,
                    "version_bytes": found.version_bytes,
                    "peak_bytes": found.peak_bytes,
                    "limit_bytes": limit,
                    "fits": found.fits,
                }
                for found, limit in zip(plans, limits, strict=True)
            ],
        }
    )
    if not all(found.fits for found in plans):
        raise typer.Exit(1)
