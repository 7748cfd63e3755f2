"""The read API: an RSGI application that answers from the lookup table and computes nothing."""

import asyncio
import datetime as dt
import json
import logging
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from lookup.access import AccessLog, trace_of
from lookup.breaker import Breaker
from lookup.cluster import connection_to
from lookup.coalesce import Lookups
from lookup.complaints import RETRY, Complaints
from lookup.connect import Address, address_of
from lookup.exchange import (
    JSON,
    READ,
    Headers,
    RequestError,
    Response,
    Route,
    batch_of,
    check_id,
    drop_body,
    encode,
    error,
    is_held,
    read_body,
    release_of,
    route_of,
)
from lookup.fallback import WITHHELD, Seen
from lookup.keyring import Keyring, Refusal
from lookup.metrics import CONTENT_TYPE, Metrics
from lookup.misses import Misses
from lookup.openapi import document
from lookup.served import Answered, ServedTable
from schemas.answer import LookupResponse, Readiness, UnknownAnswer
from schemas.errors import AlmanacError, DeclarationError, Problem, bounded
from schemas.head import Head, Serving
from schemas.strict import NAME_PATTERN

if TYPE_CHECKING:
    from granian._granian import RSGIHTTPProtocol as HTTPProtocol
    from granian.rsgi import Scope

logger = logging.getLogger(__name__)

_COUNT_SECONDS = 0.25
_MISSES_SECONDS = 5.0
_FRESH = ("cache-control", "no-cache")
_FOUND = ("exact", "carried", "stale")


class Options(NamedTuple):
    """What else a server is told.

    Attributes:
        keyring: Who may read what; None where everybody may.
        misses: Where to count what was asked for and is not known; None where it is not counted.
        access_log: Where each request is told; None where only failures are.
    """

    keyring: Keyring | None = None
    misses: Misses | None = None
    access_log: AccessLog | None = None


class App:
    """The application that one worker serves; `__rsgi__` is what the server calls for each request."""

    def __init__(self, address: Address, tables: Mapping[str, Serving], options: Options) -> None:
        self._address = address
        self._servings = tables
        self._options = options
        self._tables: dict[str, ServedTable] = {}
        self._metrics = Metrics()
        self._openapi = json.dumps(document()).encode()
        self._complaints = Complaints()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._lookups = Lookups(connection_to(self._address, loop), loop=loop)
        self._tables = {
            # Each with a breaker of its own: what is wrong with one table's keys or node is not wrong with the others'.
            name: ServedTable(name, serving, self._lookups, Breaker())
            for name, serving in self._servings.items()
        }
        self._housekeeping = loop.create_task(self._keep_house())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._housekeeping.cancel()
        if self._options.misses:
            self._options.misses.flush()
        self._lookups.close()

    async def __rsgi__(self, scope: "Scope", proto: "HTTPProtocol") -> None:
        started = time.perf_counter()
        method, headers = scope.method, scope.headers  # each is made anew whenever it is asked for
        route = route_of(method, scope.path)
        self._metrics.begin()
        try:
            if route.name == "entity" and method in READ:  # the hot path
                response = await self._entity(route, scope, headers.get("if-none-match"))
            else:
                response = await self._respond(route, scope, proto)
        except RequestError as err:
            response = err.response
        except AlmanacError as err:
            response = self._complaints.response(err)
        except Exception:  # the outermost handler: a client gets one clear body, never a traceback
            logger.exception("%s %s failed", method, route.name)
            response = error(500, "INTERNAL", "a defect of the server; its log has the reason")
        seconds = time.perf_counter() - started
        if self._options.access_log or headers.get("traceparent"):
            response = self._traced(scope, route, response, seconds)
        proto.response_bytes(response.status, response.headers, response.body)
        self._metrics.end(route.name, response.status, seconds)

    async def _respond(self, route: Route, scope: "Scope", proto: "HTTPProtocol") -> Response:
        try:
            self._permit(route, scope)
        except RequestError:
            if scope.method not in READ:
                await drop_body(proto)
            raise
        if route.name == "batch":
            return await self._batch(route.table, scope, proto)
        if route.name == "ready":
            return await self._ready()
        if route.name == "metrics":
            open_ = {name: table.is_open for name, table in self._tables.items()}
            page = self._metrics.page(await self._heads(), dt.datetime.now(dt.UTC), open_)
            return Response(200, page, [("content-type", CONTENT_TYPE)])
        return Response(200, self._openapi if route.name == "openapi" else b'{"status":"ok"}')

    def _permit(self, route: Route, scope: "Scope") -> None:
        """Refuse what no body makes right, before any of it is kept.

        Raises:
            RequestError: no such path or method, or this client may not ask this table, or not now.
        """
        if route.name == "none":
            raise RequestError(404, "NOT_FOUND", "no such path; /openapi.json lists what there is")
        if scope.method not in route.methods:
            allow = ", ".join(route.methods)
            raise RequestError(405, "METHOD", f"this path takes {allow}", ("allow", allow))
        if route.name == "batch":
            self._admitted(scope, route.table, 1)  # whatever it turns out to be, it costs as much as one id
            kind = scope.headers.get("content-type", JSON[0][1]).partition(";")[0].strip().lower()
            if kind != JSON[0][1]:
                raise RequestError(415, "BODY_TYPE", f"Content-Type {kind[:80]!r}; expected {JSON[0][1]}")

    async def _entity(self, route: Route, scope: "Scope", if_none_match: str | None) -> Response:
        table = self._admitted(scope, route.table, 1)
        entity = route.entity
        if "\ufffd" in entity:  # the server's decoding puts it where bytes are not UTF-8
            raise RequestError(400, "ENTITY_ID", "the id is not percent-encoded UTF-8, or has U+FFFD in it")
        release = release_of(scope.query_string)
        check_id("the id", entity)
        found = await (table.lookup((entity,)) if release is None else table.pinned((entity,), release))
        answer = found.answers[0]
        self._count(table.name, found)
        if found.head is None:
            return Response(200, encode(answer), [*JSON, *self._flagged(table.name, found), _FRESH])
        if answer.status == "unknown":
            known = "withholds this entity: its row was set aside" if answer.flag == WITHHELD else "has no such entity"
            message = f"release {answer.release} {known}"
            unknown = UnknownAnswer(**msgspec.structs.asdict(answer), message=message)
            return Response(404, encode(unknown), [*JSON, _FRESH])
        # Of one version, status and flag, an answer changes in nothing but its age; an erasure makes the rows fewer.
        version = f"{found.head.version}.{found.head.token}.{found.head.entities}"
        etag = f'W/"{version}.{answer.status}{answer.flag or ""}"'
        headers = [*JSON, ("etag", etag), _FRESH]
        if if_none_match is not None and is_held(if_none_match, etag):
            return Response(304, b"", headers)
        return Response(200, encode(answer), headers)

    async def _batch(self, name: str, scope: "Scope", proto: "HTTPProtocol") -> Response:
        body = await read_body(proto)
        release = release_of(scope.query_string)
        ids = batch_of(body).ids
        table = self._admitted(scope, name, len(ids), paid=1)
        found = await (table.lookup(ids) if release is None else table.pinned(ids, release))
        self._count(name, found)
        response = encode(LookupResponse(name, found.answers[0].release, found.answers))
        return Response(200, response, JSON if found.head else [*JSON, *self._flagged(name, found)])

    def _admitted(self, scope: "Scope", name: str, cost: int, *, paid: int = 0) -> ServedTable:
        """The table, where the request may read it."""
        if keyring := self._options.keyring:
            verdict = keyring.check(scope.headers.get("authorization"), name, cost, paid=paid)
            if isinstance(verdict, Refusal):
                raise RequestError(verdict.status, verdict.code, verdict.message, *verdict.headers)
        return self._table(name)

    def _table(self, name: str) -> ServedTable:
        if table := self._tables.get(name):
            return table
        raise RequestError(404, "TABLE_UNKNOWN", "no such table")

    def _count(self, table: str, found: Answered) -> None:
        self._metrics.lookups(table, found.answers)
        misses = self._options.misses
        if misses and found.head is not None:
            for answer in found.answers:
                if answer.status not in _FOUND and answer.flag is None:
                    misses.add(table, answer.id)

    def _flagged(self, table: str, found: Answered) -> Headers:
        if found.failure:
            self._complaints.words(found.failure)
            self._metrics.flagged(table, found.flag or "", len(found.answers))
        return RETRY

    async def _ready(self) -> Response:
        heads = await self._heads()
        lines, codes = [], []
        for name, found in heads.items():
            if isinstance(found, AlmanacError):
                lines.append(f"table '{name}': {self._complaints.words(found)}")
                codes.append(found.problems[0].code)
            elif Seen(found).is_stale(time.time()):
                lines.append(f"table '{name}': release {found.release} was scored {found.scored_at}: it is stale")
                codes.append("STALE")
        if codes:
            return error(503, codes[0], "\n".join(bounded(lines)), *RETRY)
        releases = {name: head.release for name, head in heads.items() if isinstance(head, Head)}
        return Response(200, encode(Readiness(releases)))

    async def _heads(self) -> dict[str, Head | AlmanacError]:
        found = await asyncio.gather(*(self._head(table) for table in self._tables.values()))
        return dict(zip(self._tables, found, strict=True))

    async def _head(self, table: ServedTable) -> Head | AlmanacError:
        try:
            found = await table.lookup(())
        except AlmanacError as err:
            return err
        return found.failure or found.head or AlmanacError(Problem("NO_VERSION", table.name, "no head"))

    def _traced(self, scope: "Scope", route: Route, response: Response, seconds: float) -> Response:
        """The response with the trace that it belongs to; the access log is told."""
        trace = trace_of(scope.headers.get("traceparent"))
        if log := self._options.access_log:
            keyring = self._options.keyring
            log.write(
                method=scope.method,
                route=route.name,
                table=route.table if route.table in self._tables else None,
                key=keyring.name_of(scope.headers.get("authorization")) if keyring else None,
                status=response.status,
                seconds=round(seconds, 6),
                trace_id=trace.trace_id if trace else None,
                span_id=trace.span_id if trace else None,
            )
        if trace is None:
            return response
        return response._replace(headers=[*response.headers, ("traceparent", trace.parent)])

    async def _keep_house(self) -> None:
        """What need not be done while somebody waits."""
        written = time.monotonic()
        while True:
            await asyncio.sleep(_COUNT_SECONDS)
            self._metrics.flush()
            if self._options.misses and time.monotonic() - written > _MISSES_SECONDS:
                written = time.monotonic()
                with suppress(OSError):
                    await asyncio.to_thread(self._options.misses.flush)


def create_app(redis_url: str, tables: Mapping[str, Serving], options: Options = Options()) -> App:  # noqa: B008  # frozen
    """The application that serves these tables from that Redis; it connects at the first request.

    Args:
        redis_url: Where the tables are.
        tables: Name -> what is answered while no head can be read.
        options: What else it is told.

    Raises:
        DeclarationError: the URL is not one of a Redis, there is no table, or a name is none.
    """
    if wrong := [name for name in tables if not re.fullmatch(NAME_PATTERN, name)]:
        # With a ':' in it, a name would reach keys of another table.
        raise DeclarationError(Problem("CFG_TABLES", "serve", f"{wrong[0]!r} is no table's name", NAME_PATTERN))
    if not tables:
        raise DeclarationError(Problem("CFG_TABLES", "serve", "no table to serve", "at least one declared pipeline"))
    return App(address_of(redis_url), tables, options)
