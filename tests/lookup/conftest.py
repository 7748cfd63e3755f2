"""A staged run, a published table, a server of its own process, and a Redis that a test may kill."""

import datetime as dt
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import redis

from lookup.connect import connect
from lookup.embedded import find_server, free_port, server_command
from lookup.publisher import Publisher
from lookup.rows import rows_in
from lookup.store import Store
from lookup.table import RedisTable
from lookup.writer import write_rows
from schemas.content import canonical_json, sha256_text
from schemas.head import ColumnSpec, Head
from schemas.keys import bucket_count, bucket_key, bucket_of, head_key
from schemas.report import CheckResult, Report, Verdict
from schemas.row import encode_rows
from schemas.run import MANIFEST_FILE, PREDICTIONS, PRIORS, REPORT_FILE, Counts, RunManifest

COLUMNS = (
    ColumnSpec(name="score", type="float64"),
    ColumnSpec(name="model", type="enum", values=("delay-1",)),
    ColumnSpec(name="variant", type="enum", values=("champion",)),
    ColumnSpec(name="status", type="enum", values=("scored",)),
)
_SERVE = """
import json, os, pathlib
from lookup.serve import Extras, Listening, serve
from schemas.head import Serving
given = json.loads(os.environ["SERVE"])
files = {name: pathlib.Path(value) for name, value in given["files"].items()}
tables = {name: Serving(**serving) for name, serving in given["tables"].items()}
listening = Listening(**given["listening"], **{name: file for name, file in files.items() if "tls" in name})
extras = Extras(access_log=given["access_log"], **{name: file for name, file in files.items() if "tls" not in name})
serve(given["redis_url"], tables, listening, extras)
"""

PutVersion = Callable[..., Head]


def _put_version(client: redis.Redis, release: int, scores: Mapping[str, float], table: str = "flights") -> Head:
    version = 10 + release  # of its own, so that no reader takes the one for the other
    head = Head(
        table=table,
        release=release,
        date="2013-07-01",
        version=version,
        token=version,
        buckets=bucket_count(len(scores)),
        entities=len(scores),
        columns=COLUMNS,
        run_id=f"2013-07-01-{release:012x}",
        scored_at="2013-07-01T04:00:00Z",
    )
    count = len(scores)
    rows = encode_rows(COLUMNS, [list(scores.values()), ["delay-1"] * count, ["champion"] * count, ["scored"] * count])
    pipeline = client.pipeline(transaction=False)
    for entity, row in zip(scores, rows, strict=True):
        pipeline.hset(bucket_key(table, version, bucket_of(entity, head.buckets)), entity, row)
    pipeline.set(head_key(table), head.model_dump_json())
    pipeline.execute()
    return head


@pytest.fixture
def put_version() -> PutVersion:
    """Writes the rows of a release, then its head: `put_version(client, 3, {"UA:1": 0.25})` makes version 13."""
    return _put_version


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server(NamedTuple):
    """A running read API."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    def ask(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """The reply to a request whose target is sent as it is written here."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, target, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def lookup(self, body: Any, table: str = "flights") -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", f"/v1/{table}/lookup", raw, {"Content-Type": "application/json"})

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.ask("GET", "/healthz")
            except http.client.HTTPException:
                return  # one that speaks TLS
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"the server did not start: {self.log.read_text()}")


@contextmanager
def running_server(
    folder: Path,
    redis_url: str,
    tables: Iterable[str] | Mapping[str, Mapping[str, Any]],
    workers: int = 1,
    *,
    access_log: bool = False,
    **files: Path,
) -> Iterator[Server]:
    port, log = free_port(), folder / "serve.log"
    servings = dict(tables) if isinstance(tables, Mapping) else {table: {} for table in tables}
    options = json.dumps(
        {
            "redis_url": redis_url,
            "tables": servings,
            "listening": {"port": port, "workers": workers},
            "access_log": access_log,
            "files": {name: str(file) for name, file in files.items()},
        }
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE], stdout=output, stderr=output, env={**os.environ, "SERVE": options}
        )
    try:
        server = Server(process, port, log)
        server.wait_until_up()
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)


RunServer = Callable[..., Any]


@pytest.fixture(scope="session")
def run_server() -> RunServer:
    """The context manager that runs a server, given a folder for its log, a Redis URL and the tables.

    Tables are names, or names with what is declared of them; further options are those of `Extras` and `Listening`.
    """
    return running_server


class OwnRedis:
    """A Redis that a test stops, kills and starts again on the same port, its rows on disk."""

    def __init__(self, folder: Path, *options: str, program: str | None = None) -> None:
        # A cluster node takes the port 10,000 above its own too.
        self.port = next(port for port in iter(free_port, None) if port < 55_536)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        folder.mkdir()
        self._command = [
            *server_command(program or find_server(), folder, self.port),
            "--appendfsync",
            "always",
            *options,
        ]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with connect(self.url) as client:
                try:
                    client.ping()
                except redis.AuthenticationError:
                    return
                except redis.RedisError:
                    time.sleep(0.02)
                else:
                    return
        self.kill()
        raise AssertionError("Redis did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[..., OwnRedis]]:
    """Starts such a Redis with further options: `own_redis("--requirepass", "secret")`."""
    started: list[OwnRedis] = []

    def start(*options: str, program: str | None = None) -> OwnRedis:
        started.append(OwnRedis(tmp_path / f"redis-{len(started)}", *options, program=program))
        return started[-1]

    yield start
    for server in started:
        server.kill()


_SCORED_AT = dt.datetime(2013, 7, 1, 4, tzinfo=dt.UTC)
_SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        *(pa.field(name, pa.string(), nullable=False) for name in ("model", "variant", "status")),
    ]
)
_PRIORS_SCHEMA = pa.schema(
    [
        pa.field("field", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("score", pa.float64()),
    ]
)


class Staging:
    """The store of the pipeline `flights`, and runs in it as scoring and verification leave them."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root, "flights")

    def run(
        self,
        date: dt.date,
        scores: Mapping[str, float],
        *,
        verdict: Verdict | None = Verdict.PASS,
        buckets: int | None = None,
    ) -> str:
        """The id of a new run with these predictions; `verdict=None` leaves it without a report."""
        modulus = buckets or bucket_count(len(scores))
        ordered = sorted(scores, key=lambda entity: (bucket_of(entity, modulus), entity.encode()))
        return self.run_of_rows(
            date, [(entity, scores[entity]) for entity in ordered], verdict=verdict, buckets=modulus
        )

    def run_of_rows(
        self, date: dt.date, rows: Iterable[tuple[str, float]], *, verdict: Verdict | None, buckets: int
    ) -> str:
        """The same, the rows in the order in which they come."""
        ids, scores = zip(*rows, strict=True)
        run_id = f"{date}-{hashlib.sha256(repr((ids, scores)).encode()).hexdigest()[:12]}"
        folder = self.store.run_folder(run_id)
        routed = [[value] * len(ids) for value in ("delay-1", "champion", "scored")]
        batch = pa.RecordBatch.from_arrays([pa.array(column) for column in (ids, scores, *routed)], schema=_SCHEMA)
        file = write_rows(folder / PREDICTIONS, "part-00000.parquet", _SCHEMA, [batch])
        manifest = RunManifest(
            pipeline="flights",
            run_id=run_id,
            date=date,
            scored_at=_SCORED_AT,
            declaration="0" * 64,
            models={"champion": "delay-1"},
            outputs=(ColumnSpec(name="score", type="float64"),),
            buckets=buckets,
            counts=Counts(entities=len(ids), scored=len(ids), quarantined=0, collapsed=0),
            content=sha256_text(canonical_json([file.sha256])),
            files=(file,),
            sources=(),
            parity=(),
        )
        (folder / MANIFEST_FILE).write_text(manifest.model_dump_json())
        if verdict is not None:
            self.report(run_id, verdict)
        return run_id

    def report(self, run_id: str, verdict: Verdict, *, content: str | None = None) -> None:
        """Write the run's report; of other predictions, where `content` says so."""
        check = CheckResult(name="coverage", family="coverage", verdict=verdict, observed="3 rows", expected="3 rows")
        report = Report(
            pipeline="flights",
            run_id=run_id,
            content=content or self.store.manifest(run_id).content,
            verified_at=_SCORED_AT,
            compared_with=None,
            verdict=verdict,
            checks=(check,),
        )
        (self.store.run_folder(run_id) / REPORT_FILE).write_text(report.model_dump_json())

    def amend(self, run_id: str, **changed: Any) -> None:
        """Change fields of the run's manifest."""
        manifest = self.store.manifest(run_id).model_copy(update=changed)
        (self.store.run_folder(run_id) / MANIFEST_FILE).write_text(manifest.model_dump_json())

    def priors(self, run_id: str, means: Mapping[str, float]) -> None:
        """Give the run these priors: field -> score."""
        batch = pa.RecordBatch.from_pydict(
            {"field": list(means), "rows": [2] * len(means), "score": list(means.values())}, schema=_PRIORS_SCHEMA
        )
        folder = self.store.run_folder(run_id) / PRIORS
        file = write_rows(folder, "part-00000.parquet", _PRIORS_SCHEMA, [batch])
        self.amend(run_id, files=(*self.store.manifest(run_id).files, file))

    def predictions(self, run_id: str) -> Path:
        """The one prediction file of a run."""
        return self.store.run_folder(run_id) / PREDICTIONS / "part-00000.parquet"

    def log_files(self) -> dict[str, bytes]:
        """Every file in the log's folder, hidden ones too, with its bytes."""
        return {path.name: path.read_bytes() for path in (self.store.folder / "releases").glob("*")}


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return Staging(tmp_path / "store")


@pytest.fixture(params=["bucket", "string"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def table(redis_client: redis.Redis, staging: Staging) -> RedisTable:
    return RedisTable(redis_client, "flights", rows_of=rows_in(staging.store))


@pytest.fixture
def publisher(staging: Staging, table: RedisTable) -> Publisher:
    return Publisher(staging.store, table)
