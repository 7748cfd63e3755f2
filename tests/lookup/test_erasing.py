"""An erased entity is nowhere: not in the store, not in Redis, not after a rollback or a kill."""

import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from lookup import erasing
from lookup.appendlog import rewrite_log
from lookup.erasing import Erased, erase
from lookup.loader import Loaded
from lookup.misses import Misses
from lookup.publisher import Outcome, Publisher
from lookup.reader import Reader
from lookup.rows import StoredRows, rows_in
from lookup.table import RedisTable
from lookup.turns import alone, beside_others
from lookup.versions import Versions
from lookup.writer import write_rows
from schemas.errors import InputError, Problem, UnavailableError
from schemas.head import Serving
from schemas.keys import priors_key
from schemas.report import Verdict
from schemas.run import MANIFEST_FILE, Counts, RunManifest

MONDAY, TUESDAY, WEDNESDAY = (dt.date(2013, 7, day) for day in (1, 2, 3))
GONE = "UA:66"
FIRST = {f"UA:{number}": 0.25 for number in range(200)}
SECOND = {f"UA:{number}": 0.5 for number in range(200)}

Client = redis.Redis


@pytest.fixture
def runs(staging: Any, publisher: Publisher, layout: str) -> list[str]:
    """Two published runs in that layout, each with its features and one row set aside."""
    made = [_run(staging, date, scores, layout) for date, scores in ((MONDAY, FIRST), (TUESDAY, SECOND))]
    for run_id in made:
        publisher.publish(run_id)
    return made


def _run(staging: Any, date: dt.date, scores: dict[str, float], layout: str) -> str:
    run_id = str(staging.run(date, scores))
    folder = staging.store.run_folder(run_id)
    manifest = staging.store.manifest(run_id)
    ids = pq.read_table(staging.predictions(run_id)).column("entity_id").combine_chunks()
    schema = pa.schema([pa.field("entity_id", pa.string(), nullable=False), pa.field("distance", pa.int64())])
    files = []
    for name, kept in (("features", ids), ("quarantine", pa.array([GONE, GONE, "UA:9"]))):
        batch = pa.RecordBatch.from_arrays([kept, pa.array(range(len(kept)), pa.int64())], schema=schema)
        files.append(write_rows(folder / name, "part-00000.parquet", schema, [batch]))
    changed = manifest.model_copy(update={"layout": layout, "files": (*manifest.files, *files)})
    (folder / MANIFEST_FILE).write_text(changed.model_dump_json())
    return run_id


def _everything(staging: Any, client: Client) -> list[str]:
    """Where the id still is: files of the store, by their bytes and as Parquet, and keys and fields of Redis."""
    found = []
    for path in staging.store.folder.parent.rglob("*"):
        if path.is_file():
            is_parquet = path.suffix == ".parquet"
            ids = pq.read_table(path).column("entity_id").to_pylist() if is_parquet else ()
            if GONE in ids or (not is_parquet and f'"{GONE}"'.encode() in path.read_bytes()):
                found.append(str(path))
    for key in client.scan_iter():
        fields = client.hgetall(key) if client.type(key) == b"hash" else {}
        if key.decode().endswith(f":{GONE}") or GONE.encode() in fields:
            found.append(key.decode())
    return found


def _looked_up(client: Client) -> tuple[str, int]:
    _, answers = Reader(client, "flights").lookup(list(FIRST))
    return answers[66].status, sum(answer.status == "exact" for answer in answers)


def test_an_erased_entity_is_nowhere_and_all_others_are_where_they_were(
    runs: list[str], staging: Any, table: RedisTable, redis_client: Client, publisher: Publisher
) -> None:
    misses = Misses(staging.store.folder.parent)
    misses.add("flights", GONE)
    misses.flush()
    assert len(_everything(staging, redis_client)) == 9

    erased = erase(staging.store, table, GONE, by="ops", reason="request 4711")

    assert erased == Erased(runs=2, rows=8, versions=2, misses=1)
    assert _everything(staging, redis_client) == []
    assert _looked_up(redis_client) == ("unknown", 199)
    for run_id in runs:
        manifest = staging.store.verified(run_id)
        assert (manifest.counts.scored, manifest.counts.erased) == (199, 1)
        assert staging.store.damage(manifest, "predictions", "features", "quarantine") == []
    head = table.head()
    assert head is not None
    assert (head.entities, table.count(head)) == (199, 199)


def test_neither_a_rollback_nor_publishing_again_brings_it_back(
    runs: list[str], staging: Any, table: RedisTable, redis_client: Client, publisher: Publisher
) -> None:
    erase(staging.store, table, GONE, by="ops")

    assert publisher.roll_back().release == 1
    assert _looked_up(redis_client) == ("unknown", 199)
    redis_client.flushall()
    assert publisher.restore().was_whole is False
    publisher.publish(runs[1], force=True)

    assert _looked_up(redis_client) == ("unknown", 199)
    assert _everything(staging, redis_client) == []


def test_the_record_of_an_erasure_has_who_and_why_and_not_which(
    runs: list[str], staging: Any, table: RedisTable
) -> None:
    erase(staging.store, table, GONE, by="ops", reason=f"request {GONE}")

    text = (staging.store.folder / "erasures.jsonl").read_text()
    begun, done = map(json.loads, text.splitlines())
    assert (begun["event"], begun["by"], begun["reason"]) == ("begun", "ops", "request (erased)")
    assert (done["event"], done["by"], done["runs"], done["rows"]) == ("done", "ops", 2, 8)
    assert GONE not in text


def test_an_erasure_that_is_killed_is_on_record(
    runs: list[str], staging: Any, table: RedisTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "_sweep", _dies_at(1, erasing._sweep))

    with pytest.raises(KeyboardInterrupt):
        erase(staging.store, table, GONE, by="ops", reason="request 4711")

    (line,) = (staging.store.folder / "erasures.jsonl").read_text().splitlines()
    assert (json.loads(line)["event"], json.loads(line)["reason"]) == ("begun", "request 4711")


def test_two_erasures_at_once_are_both_done(
    runs: list[str], staging: Any, table: RedisTable, redis_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would wait for the other before it replaces the manifest, if nothing kept them apart."""
    both, real = threading.Barrier(2), erasing.write_atomically

    def meet(*arguments: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        real(*arguments)

    monkeypatch.setattr(erasing, "write_atomically", meet)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda entity: erase(staging.store, table, entity, by="ops"), (GONE, "UA:67")))

    assert [one.runs for one in found] == [2, 2]
    assert _everything(staging, redis_client) == []
    for run_id in runs:
        manifest = staging.store.verified(run_id)
        assert (manifest.counts.scored, manifest.counts.erased) == (198, 2)
        assert staging.store.damage(manifest, "predictions", "features", "quarantine") == []


def test_the_append_only_file_of_a_redis_has_it_no_more(
    staging: Any, own_redis: Callable[..., Any], tmp_path: Path
) -> None:
    entity = "somebody-who-is-nobody-else"
    with redis.Redis.from_url(own_redis().url) as client:
        table = RedisTable(client, "flights", rows_of=rows_in(staging.store))
        Publisher(staging.store, table).publish(staging.run(MONDAY, {entity: 0.5}))
        assert _files_with(entity, tmp_path / "redis-0") != []

        erase(staging.store, table, entity, by="ops")
        rewrite_log(client)

        deadline = time.monotonic() + 10  # Redis removes the files that it has replaced a little later
        while _files_with(entity, tmp_path / "redis-0") and time.monotonic() < deadline:
            time.sleep(0.05)
    assert _files_with(entity, tmp_path / "redis-0") == []


def _files_with(text: str, folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("is_killed", [False, True])
def test_reports_do_not_tell_what_only_it_had(
    runs: list[str], staging: Any, table: RedisTable, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    (page := staging.store.run_folder(runs[0]) / "report.html").write_text(f"<p>for example {GONE}, UA:6</p>")
    if is_killed:
        with monkeypatch.context() as killed:
            killed.setattr(erasing, "redact", _dies_at(1, erasing.redact))
            with pytest.raises(KeyboardInterrupt):
                erase(staging.store, table, GONE, by="ops")

    erase(staging.store, table, GONE, by="ops")

    assert page.read_text() == "<p>for example (erased), UA:6</p>"


def test_what_is_not_there_changes_nothing(
    runs: list[str], staging: Any, table: RedisTable, redis_client: Client
) -> None:
    files = _files(staging)
    keys = {key: redis_client.dump(key) for key in redis_client.scan_iter()}

    assert erase(staging.store, table, "nobody", by="ops") == Erased(0, 0, 0, 0)

    assert _files(staging) == files
    assert {key: redis_client.dump(key) for key in redis_client.scan_iter()} == keys


def _files(staging: Any) -> dict[str, bytes]:
    found = (path for path in staging.store.folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path): path.read_bytes() for path in found}


_STEPS: dict[str, tuple[Any, str, int]] = {
    "before the first new file has its name": (Path, "replace", 1),
    "with one new file": (Path, "replace", 2),
    "before the reports": (erasing, "redact", 1),
    "before the manifest": (erasing, "write_atomically", 1),
    "before the old files go": (erasing, "_sweep", 1),
    "between old files": (Path, "unlink", 3),
    "between two runs": (erasing, "_erase_from_run", 2),
    "before Redis": (RedisTable, "erase", 1),
    "between versions and heads": (Versions, "amend", 1),
    "before the record": (erasing._Record, "end", 1),
}


@pytest.mark.parametrize("step", _STEPS)
def test_an_erasure_that_is_killed_leaves_sound_runs_and_the_next_one_ends_it(
    runs: list[str], staging: Any, table: RedisTable, redis_client: Client, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    where, name, call = _STEPS[step]
    with monkeypatch.context() as killed:
        killed.setattr(where, name, _dies_at(call, getattr(where, name)))
        with pytest.raises(KeyboardInterrupt):
            erase(staging.store, table, GONE, by="ops")
    for run_id in runs:
        manifest = staging.store.verified(run_id)
        assert staging.store.damage(manifest, "predictions", "features", "quarantine") == []
    assert _looked_up(redis_client)[1] in (199, 200)

    erase(staging.store, table, GONE, by="ops")

    assert _everything(staging, redis_client) == []
    head = table.head()
    assert head is not None
    assert (head.entities, table.count(head), _looked_up(redis_client)) == (199, 199, ("unknown", 199))
    assert not [path for path in staging.store.folder.rglob(".*") if path.is_file() and path.suffix != ".lock"]


def _dies_at(call: int, real: Callable[..., Any]) -> Callable[..., Any]:
    calls = 0

    def die(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    return die


def test_readers_are_not_disturbed(runs: list[str], staging: Any, table: RedisTable, redis_client: Client) -> None:
    done = threading.Event()
    seen: set[tuple[str, int]] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(_looked_up(redis_client))

    reading = threading.Thread(target=read)
    reading.start()
    try:
        erase(staging.store, table, GONE, by="ops")
    finally:
        done.set()
        reading.join()

    assert seen <= {("exact", 200), ("unknown", 199)}


class _Held:
    """Loads the parts, then waits to be told to go on: a publication that has read what is to be erased."""

    def __init__(self) -> None:
        self.has_read, self.may_end = threading.Event(), threading.Event()

    def __call__(self, load: Callable[[Any], Loaded], parts: Sequence[Any]) -> list[Loaded]:
        loaded = [load(part) for part in parts]
        self.has_read.set()
        assert self.may_end.wait(20)
        return loaded


def _erase_meanwhile(held: _Held, staging: Any, table: RedisTable, goes_on: Callable[[], object]) -> None:
    """Erase while the publication has read the entity, and let it end only when the erasure is under way."""
    with ThreadPoolExecutor(2) as pool:
        loading = pool.submit(goes_on)
        assert held.has_read.wait(20)
        erasing_it = pool.submit(erase, staging.store, table, GONE, by="ops")
        with suppress(TimeoutError):
            erasing_it.result(0.3)
        held.may_end.set()
        loading.result()
        erasing_it.result()


def test_a_publication_that_had_read_the_entity_already_does_not_leave_it(
    staging: Any, table: RedisTable, redis_client: Client, layout: str
) -> None:
    run_id, held = _run(staging, MONDAY, FIRST, layout), _Held()
    slow = Publisher(staging.store, table, spread=held)

    _erase_meanwhile(held, staging, table, lambda: slow.publish(run_id))

    assert _everything(staging, redis_client) == []
    assert _looked_up(redis_client) == ("unknown", 199)
    assert Publisher(staging.store, table).publish(run_id).outcome is Outcome.ALREADY_LIVE


def test_a_restoration_that_had_read_the_entity_already_does_not_bring_it_back(
    runs: list[str], staging: Any, table: RedisTable, redis_client: Client
) -> None:
    live, held = table.head(), _Held()
    assert live is not None
    (first, *_) = redis_client.scan_iter(f"almanac:flights:{live.version}:*")
    redis_client.delete(first)
    slow = Publisher(staging.store, table, spread=held)

    _erase_meanwhile(held, staging, table, slow.restore)

    assert _everything(staging, redis_client) == []
    assert _looked_up(redis_client) == ("unknown", 199)
    assert slow.restore().was_whole


def test_a_killed_publication_that_had_sent_the_entity_does_not_leave_it(
    staging: Any, table: RedisTable, redis_client: Client, layout: str
) -> None:
    def die(load: Callable[[Any], Loaded], parts: Sequence[Any]) -> list[Loaded]:
        for part in parts:
            load(part)
        raise KeyboardInterrupt

    run_id = _run(staging, MONDAY, FIRST, layout)
    with pytest.raises(KeyboardInterrupt):
        Publisher(staging.store, table, spread=die).publish(run_id)

    erase(staging.store, table, GONE, by="ops")
    Publisher(staging.store, table).publish(run_id)

    assert _everything(staging, redis_client) == []
    assert _looked_up(redis_client) == ("unknown", 199)


def test_an_erasure_that_redis_did_not_answer_is_ended_by_the_next_publication_before_it_removes_a_version(
    runs: list[str], staging: Any, table: RedisTable, redis_client: Client, layout: str
) -> None:
    class Away(RedisTable):
        def erase(self, *_: Any) -> int:
            raise UnavailableError(Problem("STORE_DOWN", "there", "nobody"))

    away = Away(redis_client, "flights", rows_of=rows_in(staging.store))
    with pytest.raises(UnavailableError):
        erase(staging.store, away, GONE, by="ops", reason="request 4711")
    (pending,) = staging.store.folder.glob("erasing.json")
    assert pending.stat().st_mode & 0o077 == 0

    others = {entity: 0.75 for entity in FIRST if entity != GONE}
    published = Publisher(staging.store, table, keep=1, grace_seconds=0).publish(staging.run(WEDNESDAY, others))

    assert len(published.retired) == 2
    assert _everything(staging, redis_client) == []
    lines = [json.loads(line) for line in (staging.store.folder / "erasures.jsonl").read_text().splitlines()]
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("begun", "request 4711"),
        ("done", "request 4711"),
    ]
    assert erase(staging.store, table, GONE, by="ops") == Erased(0, 0, 0, 0)


def test_a_publication_that_does_not_end_is_not_waited_for_without_end(staging: Any, table: RedisTable) -> None:
    with (
        beside_others(staging.store.folder),
        pytest.raises(UnavailableError, match=r"a publication or another erasure goes on for 0 s.*ERASE_BUSY"),
        alone(staging.store.folder, seconds=0),
    ):
        pass


def test_a_damaged_note_of_what_is_pending_is_told(runs: list[str], staging: Any, publisher: Publisher) -> None:
    (staging.store.folder / "erasing.json").write_text('[{"entity": 1')

    with pytest.raises(InputError, match=r"erasing.json: .*; expected what an erasure wrote; .*OUT_FORMAT"):
        publisher.publish(runs[1])


@pytest.mark.parametrize("verdict", [None, Verdict.FAIL])
def test_a_run_that_an_entity_is_erased_from_before_it_passes_is_published_once_it_does(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client, verdict: Verdict | None
) -> None:
    run_id = staging.run(MONDAY, FIRST, verdict=verdict)
    erase(staging.store, table, GONE, by="ops")

    staging.report(run_id, Verdict.PASS)
    publisher.publish(run_id)
    erase(staging.store, table, "UA:67", by="ops")

    assert publisher.publish(run_id).outcome is Outcome.ALREADY_LIVE
    assert _looked_up(redis_client) == ("unknown", 198)


SERVING = Serving(key=("customer", "product"), segments=(("customer",), ("product",)))


def test_a_prior_whose_group_has_nobody_left_goes_with_the_last_of_it_and_others_stay(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client, layout: str
) -> None:
    scores = {"c.1:p1": 0.25, "c.1:p2": 0.25, "c21:p1": 0.5, "cx1:p1": 0.5}
    run_id = staging.run(MONDAY, scores)
    staging.amend(run_id, layout=layout, serving=SERVING)
    staging.priors(run_id, {"0:c.1": 0.25, "0:c21": 0.5, "1:p1": 0.375, "1:p2": 0.25})
    publisher.publish(run_id)

    erase(staging.store, table, "c.1:p1", by="ops")
    assert _answered(redis_client, "c.1:p9", "c.1:p1") == ["prior", "prior"]
    erase(staging.store, table, "c.1:p2", by="ops")

    assert _answered(redis_client, "c.1:p9", "c.1:p1", "c21:p9", "z:p2") == ["unknown", "prior", "prior", "unknown"]
    head = table.head()
    assert head is not None
    assert (head.entities, head.priors, table.is_whole(head)) == (2, 2, True)
    assert redis_client.hkeys(priors_key("flights", head.version)) == [b"0:c21", b"1:p1"]
    manifest = staging.store.verified(run_id)
    assert sorted(StoredRows(staging.store, manifest).priors) == ["0:c21", "1:p1"]
    assert len(list((staging.store.run_folder(run_id) / "priors").iterdir())) == 1
    assert publisher.restore().was_whole


def test_a_key_value_with_a_separator_has_a_group_of_its_own(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client
) -> None:
    run_id = staging.run(MONDAY, {"a\\:b:p1": 0.25, "a:p1": 0.5, "a\\\\:p1": 0.75})
    staging.amend(run_id, serving=SERVING)
    staging.priors(run_id, {"0:a\\:b": 0.25, "0:a": 0.5, "0:a\\\\": 0.75})
    publisher.publish(run_id)

    erase(staging.store, table, "a\\:b:p1", by="ops")

    assert sorted(StoredRows(staging.store, staging.store.manifest(run_id)).priors) == ["0:a", "0:a\\\\"]


def _answered(client: Client, *entities: str) -> list[str]:
    return [answer.status for answer in Reader(client, "flights").lookup(entities)[1]]


def test_a_run_that_is_being_staged_is_told(runs: list[str], staging: Any, table: RedisTable) -> None:
    (staging.store.folder / "runs" / ".staging-2013-07-03-0123-x").mkdir()

    with pytest.raises(UnavailableError, match=r"a run was being staged 0 minutes ago; .*ERASE_STAGING"):
        erase(staging.store, table, GONE, by="ops")


def test_the_only_entity_of_a_run_can_be_erased(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, {GONE: 0.5}, verdict=Verdict.PASS))

    erase(staging.store, table, GONE, by="ops")

    _, (answer,) = Reader(redis_client, "flights").lookup([GONE])
    assert answer.status == "unknown"
    manifest = RunManifest.model_validate_json(next(staging.store.folder.rglob(MANIFEST_FILE)).read_bytes())
    assert (manifest.counts.scored, manifest.counts.erased) == (0, 1)


@pytest.mark.parametrize(
    ("status", "before", "after"),
    [
        ("scored", {"scored": 200}, {"scored": 199}),
        ("carried", {"scored": 199, "carried": 1}, {"scored": 199, "carried": 0}),
        (
            "withheld",
            {"scored": 199, "withheld": 1, "quarantined": 1},
            {"scored": 199, "withheld": 0, "quarantined": 0},
        ),
    ],
)
def test_the_counts_of_a_run_go_on_to_account_for_every_entity(
    staging: Any, table: RedisTable, status: str, before: dict[str, int], after: dict[str, int]
) -> None:
    run_id = _run(staging, MONDAY, FIRST, "bucket")
    path = staging.predictions(run_id)
    rows = pq.read_table(path)
    statuses = [status if entity == GONE else "scored" for entity in rows.column("entity_id").to_pylist()]
    rows = rows.set_column(rows.schema.get_field_index("status"), rows.schema.field("status"), pa.array(statuses))
    pq.write_table(rows, path)
    staging.amend(run_id, counts=Counts(entities=200, collapsed=0, **{"quarantined": 0, **before}))

    erase(staging.store, table, GONE, by="ops")

    expected = Counts(entities=200, collapsed=0, erased=1, **{"quarantined": 0, **after})
    assert staging.store.manifest(run_id).counts == expected
