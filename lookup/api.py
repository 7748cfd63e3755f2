"""The read API: an RSGI application that answers from the lookup table and computes nothing."""

import asyncio
import datetime as dt
import json
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from lookup.connect import connect_async
from lookup.metrics import CONTENT_TYPE, Metrics
from lookup.openapi import document
from lookup.reader import AsyncReader
from schemas.answer import MAX_BATCH, Answer, ErrorBody, LookupRequest, Readiness, UnknownAnswer
from schemas.errors import AlmanacError, DeclarationError, InputError, Problem, UnavailableError, bounded
from schemas.keys import Head, id_problem

if TYPE_CHECKING:
    from granian._granian import RSGIHTTPProtocol as HTTPProtocol
    from granian.rsgi import Scope

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20
_DROPPED_BYTES = 16 << 20
BODY_SECONDS = 5.0
# One worker's share of Redis connections: redis-py's own pool fails a request where it has none left.
_CONNECTIONS = 32
_QUEUE_SECONDS = 0.5
_RETRY_SECONDS = 1
_COMPLAINT_SECONDS = 10.0

_Headers = list[tuple[str, str]]
_JSON: _Headers = [("content-type", "application/json")]
_READ = ("GET", "HEAD")
_FIXED_ROUTES = {"/healthz": "health", "/readyz": "ready", "/metrics": "metrics", "/openapi.json": "openapi"}
_ANSWERS = TypeAdapter(list[Answer])


class Response(NamedTuple):
    status: int
    body: bytes
    headers: _Headers = _JSON


class _RequestError(Exception):
    """A request that gets an error body instead of an answer."""

    def __init__(self, status: int, code: str, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(status, code, message, *headers)
        self.response = _error(status, code, message, *headers)


class Route(NamedTuple):
    """What a path asks for: a route's name, and the table and id that stand in the path."""

    name: str
    table: str = ""
    entity: str = ""
    methods: tuple[str, ...] = _READ


def route_of(method: str, path: str) -> Route:
    """The route of a percent-decoded path: all that follows the table is the id, slashes too.

    >>> route_of("GET", "/v1/flights/UA:1:a/b").entity
    'UA:1:a/b'
    """
    if path.startswith("/v1/"):
        table, slash, entity = path[4:].partition("/")
        if table and slash:
            if entity != "lookup":
                return Route("entity", table, entity)
            return Route("batch" if method == "POST" else "entity", table, entity, (*_READ, "POST"))
    return Route(_FIXED_ROUTES.get(path, "none"))


class App:
    """The application that one worker serves; `__rsgi__` is what the server calls for each request."""

    def __init__(self, redis_url: str, tables: Sequence[str]) -> None:
        self._client = connect_async(redis_url)
        self._readers = {table: AsyncReader(self._client, table) for table in tables}
        self._free = asyncio.Semaphore(_CONNECTIONS)
        self._metrics = Metrics()
        self._openapi = json.dumps(document()).encode()
        self._complained: dict[str, float] = {}

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._client.aclose())

    async def __rsgi__(self, scope: "Scope", proto: "HTTPProtocol") -> None:
        started = time.perf_counter()
        route = route_of(scope.method, scope.path)
        try:
            response = await self._respond(route, scope, proto)
        except _RequestError as err:
            response = err.response
        except AlmanacError as err:
            response = self._store_error(err)
        except Exception:  # the outermost handler: a client gets one clear body, never a traceback
            logger.exception("%s %s failed", scope.method, route.name)
            response = _error(500, "INTERNAL", "a defect of the server; its log has the reason")
        proto.response_bytes(response.status, response.headers, response.body)
        self._metrics.request(route.name, response.status, time.perf_counter() - started)

    async def _respond(self, route: Route, scope: "Scope", proto: "HTTPProtocol") -> Response:
        body = b"" if scope.method in _READ else await _body(proto)
        if route.name == "none":
            raise _RequestError(404, "NOT_FOUND", "no such path; /openapi.json lists what there is")
        if route.name == "batch":
            return await self._batch(route.table, scope, body)
        if scope.method not in route.methods:
            allow = ", ".join(route.methods)
            raise _RequestError(405, "METHOD", f"this path takes {allow}", ("allow", allow))
        if route.name == "entity":
            return await self._entity(route, scope)
        if route.name == "ready":
            return await self._ready()
        if route.name == "metrics":
            heads = {
                table: found if isinstance(found, Head) else None for table, found in (await self._heads()).items()
            }
            return Response(200, self._metrics.page(heads, dt.datetime.now(dt.UTC)), [("content-type", CONTENT_TYPE)])
        return Response(200, self._openapi if route.name == "openapi" else b'{"status":"ok"}')

    async def _entity(self, route: Route, scope: "Scope") -> Response:
        reader = self._reader(route.table)
        if scope.query_string:
            raise _RequestError(400, "QUERY", "this path takes no query; a ? in an id is written %3F")
        if "\ufffd" in route.entity:  # the server's decoding puts it where bytes are not UTF-8
            raise _RequestError(400, "ENTITY_ID", "the id is not percent-encoded UTF-8, or has U+FFFD in it")
        _check_id("the id", route.entity)
        _, (answer,) = await self._lookup(reader, [route.entity])
        self._metrics.lookups(route.table, (answer,))
        if answer.status != "unknown":
            return Response(200, answer.model_dump_json().encode())
        message = f"release {answer.release} has no such entity"
        unknown = UnknownAnswer(**answer.model_dump(), code="ENTITY_UNKNOWN", message=message)
        return Response(404, unknown.model_dump_json().encode())

    async def _batch(self, table: str, scope: "Scope", body: bytes) -> Response:
        reader = self._reader(table)
        kind = scope.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise _RequestError(415, "BODY_TYPE", f"Content-Type {kind[:80]!r}; expected application/json")
        request = _request(body)
        for position, entity in enumerate(request.ids):
            _check_id(f"ids[{position}]", entity)
        head, answers = await self._lookup(reader, request.ids)
        self._metrics.lookups(table, answers)
        # The parts of a LookupResponse, joined: the answers are not validated a second time.
        start = f'{{"table":{json.dumps(table)},"release":{head.release},"answers":'
        return Response(200, start.encode() + _ANSWERS.dump_json(answers) + b"}")

    async def _ready(self) -> Response:
        heads = await self._heads()
        errors = {table: found for table, found in heads.items() if isinstance(found, AlmanacError)}
        if errors:
            lines = [f"table '{table}': {self._told(err)}" for table, err in errors.items()]
            code = next(iter(errors.values())).problems[0].code
            return _error(503, code, "\n".join(bounded(lines)), *_retry())
        releases = {table: head.release for table, head in heads.items() if isinstance(head, Head)}
        return Response(200, Readiness(status="ready", releases=releases).model_dump_json().encode())

    async def _heads(self) -> dict[str, Head | AlmanacError]:
        found = await asyncio.gather(*(self._head(reader) for reader in self._readers.values()))
        return dict(zip(self._readers, found, strict=True))

    async def _head(self, reader: AsyncReader) -> Head | AlmanacError:
        try:
            head, _ = await self._lookup(reader, [])
        except AlmanacError as err:
            return err
        return head

    async def _lookup(self, reader: AsyncReader, ids: Sequence[str]) -> tuple[Head, list[Answer]]:
        try:
            async with asyncio.timeout(_QUEUE_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            found = f"{_CONNECTIONS} lookups in flight, none ended in {_QUEUE_SECONDS} s"
            raise UnavailableError(Problem("STORE_TIMEOUT", "Redis", found, "an answer in time")) from None
        try:
            return await reader.lookup(ids)
        finally:
            self._free.release()

    def _reader(self, table: str) -> AsyncReader:
        if reader := self._readers.get(table):
            return reader
        raise _RequestError(404, "TABLE_UNKNOWN", "no such table")

    def _store_error(self, err: AlmanacError) -> Response:
        code, message = err.problems[0].code, self._told(err)
        if isinstance(err, InputError) and code != "NO_VERSION":
            return _error(500, code, message)
        return _error(503, code, message, *_retry())

    def _told(self, err: AlmanacError) -> str:
        """What a client is told; where Redis is and what it said is for the log."""
        code = err.problems[0].code
        now = time.monotonic()
        if now - self._complained.get(code, -_COMPLAINT_SECONDS) >= _COMPLAINT_SECONDS:  # not once a request
            self._complained[code] = now
            logger.error("cannot answer: %s", err)
        if code == "NO_VERSION":
            return "nothing is published in this table yet"
        if isinstance(err, InputError):
            return "what is published cannot be read; the server's log has the reason"
        return "the store cannot be read now; try again"


def create_app(redis_url: str, tables: Sequence[str]) -> App:
    """The application that serves these tables from that Redis; it connects at the first request.

    Raises:
        DeclarationError: the URL is not one of a Redis, or there is no table.
    """
    if not tables:
        raise DeclarationError(Problem("CFG_TABLES", "serve", "no table to serve", "at least one declared pipeline"))
    return App(redis_url, tables)


async def _body(proto: "HTTPProtocol") -> bytes:
    """The request's body.

    What is over the limit is read too, and dropped: a connection closed on unread bytes is reset, and its client
    would lose the answer. Past `_DROPPED_BYTES` that is the client's loss.
    """
    body = bytearray()
    size_bytes = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in proto:
                size_bytes += len(chunk)
                if size_bytes <= MAX_BODY_BYTES:
                    body += chunk
                elif size_bytes > _DROPPED_BYTES:
                    break
    except TimeoutError:
        raise _RequestError(408, "BODY_SLOW", f"the body did not arrive in {BODY_SECONDS:.0f} s") from None
    if size_bytes > MAX_BODY_BYTES:
        raise _RequestError(413, "BODY_TOO_LARGE", f"the body may have {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _request(body: bytes) -> LookupRequest:
    try:
        return LookupRequest.model_validate_json(body)
    except ValidationError as err:
        first: Any = err.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        raise _RequestError(400, "BODY_JSON", f"the body is not JSON: {first['ctx']['error']}")
    if first["type"] == "too_long":
        raise _RequestError(413, "BATCH_TOO_LARGE", f"more than {MAX_BATCH} ids; ask in several requests")
    where = ".".join(str(part)[:80] for part in first["loc"]) or "the body"
    raise _RequestError(422, "BODY_SHAPE", f'{where}: {first["msg"]}; expected {{"ids": ["...", ...]}}')


def _check_id(where: str, entity: str) -> None:
    if why := id_problem(entity):
        raise _RequestError(400, "ENTITY_ID", f"{where} {why}")


def _error(status: int, code: str, message: str, *headers: tuple[str, str]) -> Response:
    return Response(status, ErrorBody(code=code, message=message).model_dump_json().encode(), [*_JSON, *headers])


def _retry() -> _Headers:
    return [("retry-after", str(_RETRY_SECONDS))]
