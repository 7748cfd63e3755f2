"""The stages behind the gate: publish, roll back, and look whether it is served."""

from lookup.connect import connect
from lookup.embedded import redis_url
from lookup.loader import in_threads
from lookup.publisher import Published, Publisher
from lookup.reader import Reader
from lookup.rows import Row, StoredRows, rows_in
from lookup.store import Store
from lookup.table import RedisTable, Spread
from schemas.declared import DeclaredPipeline
from schemas.errors import InputError, Problem
from schemas.settings import Settings


def lookup_table(settings: Settings, declared: DeclaredPipeline) -> RedisTable:
    """The table of a pipeline, on the configured Redis or this store's own."""
    client = connect(redis_url(settings.store, settings.redis_url))
    return RedisTable(client, declared.name, rows_of=rows_in(Store(settings.store, declared.name)))


def publisher(settings: Settings, declared: DeclaredPipeline, *, spread: Spread = in_threads) -> Publisher:
    """The publisher of a pipeline, on the configured Redis or this store's own."""
    store, publish = Store(settings.store, declared.name), declared.pipeline.publish
    return Publisher(
        store,
        lookup_table(settings, declared),
        keep=publish.keep,
        grace_seconds=publish.grace_seconds,
        replicas=publish.replicas,
        spread=spread,
    )


def smoke(settings: Settings, pipeline: str, run_id: str, *, ids: int = 20) -> int:
    """Look up entities of the live release as a reader does, and compare with the store; how many were.

    Raises:
        InputError: an answer is not what the store holds.
    """
    store = Store(settings.store, pipeline)
    manifest = store.manifest(run_id)
    live = store.live()
    if live is None or live.run_id != run_id:
        raise InputError(
            Problem("SMOKE", f"{pipeline} run {run_id}", f"live is {live.run_id if live else 'nothing'}", "this run")
        )
    expected = _spread_out(StoredRows(store, manifest), ids)
    with connect(redis_url(settings.store, settings.redis_url)) as client:
        head, answers = Reader(client, pipeline).lookup([row.entity for row in expected])
        wrong = RedisTable(client, pipeline).differing(head, expected)
    missing = [answer.id for answer in answers if answer.status == "unknown"]
    if head.run_id != run_id or wrong or missing:
        found = f"release {head.release}, {len(wrong)} rows differ, {len(missing)} missing"
        raise InputError(Problem("SMOKE", f"{pipeline} run {run_id}", found, f"release {live.release} as stored"))
    return len(answers)


def _spread_out(rows: StoredRows, count: int) -> list[Row]:
    """Some rows of the first file, from buckets all over it: so they are on every master of a cluster."""
    chunk = next((chunk for part in rows.parts if len((chunk := part.read()).ids)), None)
    if chunk is None:
        return []
    chosen = range(0, len(chunk.ids), max(1, len(chunk.ids) // count))[:count]
    return [Row(chunk.ids[index].as_py().decode(), chunk.values[index].as_py()) for index in chosen]


def summary(published: Published) -> str:
    """What a publication did, in one line."""
    before = f" (was release {published.previous})" if published.previous not in (None, published.release) else ""
    retired = f", retired {', '.join(map(str, published.retired))}" if published.retired else ""
    return f"release {published.release} {published.outcome}{before}: {published.entities:,} entities{retired}"
