"""The stages behind the gate: publish, roll back, and look whether it is served."""

from lookup.connect import connect
from lookup.embedded import redis_url
from lookup.fallback import WITHHELD
from lookup.loader import in_threads
from lookup.publisher import Published, Publisher
from lookup.reader import Reader
from lookup.rows import Row, StoredRows, rows_in
from lookup.store import Store
from lookup.table import RedisTable, Spread
from schemas.declared import DeclaredPipeline
from schemas.errors import InputError, Problem
from schemas.settings import Settings

_ROWS_OF_A_FILE = 1000


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


def smoke(settings: Settings, pipeline: str, run_id: str, *, entities: int = 20) -> int:
    """Look up entities of the live release as a reader does, and compare with the store; how many were.

    They come from buckets all over the run's files.

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
    expected = _spread_out(StoredRows(store, manifest), entities)
    with connect(redis_url(settings.store, settings.redis_url)) as client:
        head, answers = Reader(client, pipeline).lookup([row.entity for row in expected])
        wrong = RedisTable(client, pipeline).differing(head, expected)
    missing = [answer.id for answer in answers if answer.status == "unknown" and answer.flag != WITHHELD]
    if head.run_id != run_id or wrong or missing:
        found = f"release {head.release}, {len(wrong)} rows differ, {len(missing)} missing"
        raise InputError(Problem("SMOKE", f"{pipeline} run {run_id}", found, f"release {live.release} as stored"))
    return len(answers)


def _spread_out(rows: StoredRows, count: int) -> list[Row]:
    """Some rows, from buckets all over one file, or several where they are many: on every master of a cluster."""
    files = max(1, min(len(rows.parts), count // _ROWS_OF_A_FILE))
    found: list[Row] = []
    for part in rows.parts[:: max(1, len(rows.parts) // files)][:files]:
        chunk, wanted = part.read(), -(-count // files)
        chosen = range(0, len(chunk.ids), max(1, len(chunk.ids) // wanted))[:wanted]
        found += [Row(chunk.ids[index].as_py().decode(), chunk.values[index].as_py()) for index in chosen]
    return found[:count]


def summary(published: Published) -> str:
    """What a publication did, in one line."""
    before = f" (was release {published.previous})" if published.previous not in (None, published.release) else ""
    retired = f", retired {', '.join(map(str, published.retired))}" if published.retired else ""
    return f"release {published.release} {published.outcome}{before}: {published.entities:,} entities{retired}"
