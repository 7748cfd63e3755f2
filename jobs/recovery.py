"""The commands about what is kept: releases listed, an entity erased, a Redis restored, a version's memory told."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.console import Console
from jobs.options import Json, PipelineName
from jobs.unexpected import check_store
from schemas.errors import AlmanacError
from schemas.settings import Settings

if TYPE_CHECKING:
    from lookup.capacity import Plan
    from lookup.table import RedisTable


def releases(pipeline: PipelineName, as_json: Json = False) -> None:
    """List the releases of a pipeline, which one is live, and of which the files were removed."""
    from lookup.store import Store
    from schemas.declared import load_pipeline

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    load_pipeline(settings, pipeline)
    store = Store(settings.store, pipeline)
    found = store.releases()
    removed = {each.run_id: note.removed_at.date() for each in found if (note := store.removed(each.run_id))}
    if not found:
        console.say(f"no release yet: almanac run {pipeline} --date YYYY-MM-DD")
    else:
        rows = [
            (each.number, each.state, each.date, each.run_id, f"{each.committed_at:%Y-%m-%d %H:%M:%S}Z",
             *([removed.get(each.run_id)] if removed else []))
            for each in reversed(found)
        ]  # fmt: skip
        console.table(["release", "state", "date", "run", "committed", *(["removed"] if removed else [])], rows)
    told = [
        {
            **each.model_dump(mode="json"),
            "path": str(store.run_folder(each.run_id)),
            "removed": removed.get(each.run_id),
        }
        for each in found
    ]
    console.result(told)


def erase(
    pipeline: PipelineName,
    entity: Annotated[str, typer.Argument(metavar="ID", help="The entity's id, for example UA:1545:EWR:2013-07-01.")],
    reason: Annotated[str, typer.Option(help="Kept with the record of the erasure; the id is not.")] = "",
    as_json: Json = False,
) -> None:
    """Remove all that is kept of an entity, in the store and in Redis: no rollback brings it back."""
    from jobs.publishing import lookup_table
    from lookup.appendlog import rewrite_log
    from lookup.connect import connect
    from lookup.embedded import running_url
    from lookup.erasing import erase as erase_everywhere
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
    rows: list[dict[str, Any]] = []
    failures: list[AlmanacError] = []
    for name in pipelines or declared_names(settings):
        if not pipelines and Store(settings.store, name).live() is None:
            console.say(f"{name}: nothing was ever live")
            continue
        try:
            with console.step(f"restore {name}") as step:
                found = publisher(settings, load_pipeline(settings, name)).restore()
                did = "was whole" if found.was_whole else "loaded from the store"
                told = f"release {found.release}, {found.entities:,} entities, {did}"
                step.detail = f"{told}; checksum {found.checksum[:12]}"
                rows.append({"pipeline": name, **found._asdict()})
        except AlmanacError as err:
            failures.append(err)  # told at the end: the others are restored all the same
    if failures:
        worst = max(failures, key=lambda failure: failure.exit_code)
        raise type(worst)(*(problem for failure in failures for problem in failure.problems))
    console.result(rows)


def plan(
    pipeline: PipelineName,
    run_id: Annotated[str | None, typer.Option("--run", help="A staged run; the one scored last, if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Tell the memory that publishing a run would take in Redis, and refuse what publishing would, loading nothing."""
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
    there = {**table.unfinished(), **table.versions()}
    # What is there of the run already, whole or from an attempt that was killed, is not needed once more.
    head = next((known for known in there.values() if known.run_id == manifest.run_id), head_to_be(manifest))
    plans, versions = table.plan(head, StoredRows(store, manifest)), len(there)
    console.say(
        f"run {manifest.run_id}: {head.entities:,} entities, layout {head.layout}; "
        f"{versions} versions there, {declared.pipeline.publish.keep} are kept"
    )
    limits = [found.server.limit_bytes for found in plans]
    refusals = _refusals(table, plans, f"publishing {pipeline} run {manifest.run_id}")
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
            "refused": [str(problem) for refusal in refusals for problem in refusal.problems],
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
    for refusal in refusals if not as_json else ():
        console.error(refusal)
    if refusals:
        raise typer.Exit(max(refusal.exit_code for refusal in refusals))


def _refusals(table: "RedisTable", plans: "Sequence[Plan]", where: str) -> list[AlmanacError]:
    """What a publication would be refused with, before it loads anything."""
    from lookup.capacity import refuse_what_does_not_fit

    refused: list[AlmanacError] = []
    checks: list[Callable[[], None]] = [
        table.preflight,
        *(partial(refuse_what_does_not_fit, found, where) for found in plans),
    ]
    for check in checks:
        try:
            check()
        except AlmanacError as err:
            refused.append(err)
    return refused
