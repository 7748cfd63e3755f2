"""The read API: a service that answers from the lookup table and computes nothing."""

import asyncio
import datetime as dt
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import NamedTuple

import msgspec

from lookup.access import AccessLog, trace_of
from lookup.breaker import Breaker
from lookup.cluster import connection_to
from lookup.coalesce import Lookups
from lookup.complaints import RETRY, Complaints
from lookup.connect import Address, address_of
from lookup.exchange import (
    JSON,
    JSON_TYPE,
    READ,
    RequestError,
    Route,
    batch_of,
    check_id,
    encode,
    error,
    is_held,
    lines,
    release_of,
    route_of,
)
from lookup.fallback import WITHHELD, Seen
from lookup.follower import Found
from lookup.http11 import BODY_SECONDS, MAX_BODY_BYTES
from lookup.keyring import Keyring, Refusal
from lookup.message import Request, Response, Send
from lookup.metrics import CONTENT_TYPE, Metrics
from lookup.misses import Misses
from lookup.openapi import document
from lookup.served import Flagged, Outcome, ServedTable
from schemas.answer import Answer, LookupResponse, Readiness, UnknownAnswer
from schemas.errors import AlmanacError, DeclarationError, Problem, bounded
from schemas.head import Head, Serving
from schemas.strict import NAME_PATTERN

logger = logging.getLogger(__name__)

_COUNT_SECONDS = 0.25
_MISSES_SECONDS = 5.0
_FRESH = ("cache-control", "no-cache")
_FRESH_JSON = JSON + lines(_FRESH)
_FOUND = ("exact", "carried", "stale")


@lru_cache(maxsize=256)
def _validator(version: int, token: int, entities: int, status: str, flag: str) -> tuple[str, bytes]:
    """The tag of an answer, and the headers that tell it.

    Of one version, status and flag, an answer changes in nothing but its age; an erasure makes the rows fewer.
    """
    etag = f'W/"{version}.{token}.{entities}.{status}{flag}"'
    return etag, _FRESH_JSON + lines(("etag", etag))


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
    """What one worker answers with."""

    def __init__(self, address: Address, tables: Mapping[str, Serving], options: Options) -> None:
        self._address = address
        self._servings = tables
        self._options = options
        self._tables: dict[str, ServedTable] = {}
        self._openapi = json.dumps(document()).encode()
        self._complaints = Complaints()
        self.metrics = Metrics()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve from this loop from now on."""
        self._loop = loop
        self._lookups = Lookups(connection_to(self._address, loop), loop=loop)
        self._tables = {
            # Each with a breaker of its own: what is wrong with one table's keys or node is not wrong with the others'.
            name: ServedTable(name, serving, self._lookups, Breaker())
            for name, serving in self._servings.items()
        }
        self._tasks: set[asyncio.Task[None]] = {loop.create_task(self._keep_house())}

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._options.misses:
            self._options.misses.flush()
        self._lookups.close()

    def begin(self, request: Request) -> "Exchange":
        """One request, whose body is yet to come."""
        return Exchange(self, request)

    def malformed(self, status: int, message: str) -> Response:
        self.metrics.begin()
        self.metrics.end("none", status, 0.0)
        return error(status, "HTTP", message)

    def refusal(self, exchange: "Exchange") -> Response | None:
        """Why this request is not answered, whatever its body is; None where it may be."""
        try:
            self._permit(exchange.route, exchange.request)
        except Exception as err:  # noqa: BLE001  # an outcome
            return self.failure(exchange, err)
        return None

    def answer(self, exchange: "Exchange", body: bytes) -> None:
        """Answer it, now or later."""
        try:
            match exchange.route.name:
                case "entity":
                    self._ask_one(exchange)
                case "batch":
                    self._ask_many(exchange, body)
                case "ready":
                    self._later(exchange, self._ready())
                case "metrics":
                    self._later(exchange, self._page())
                case name:
                    exchange.respond(Response(200, self._openapi if name == "openapi" else b'{"status":"ok"}', JSON))
        except Exception as err:  # noqa: BLE001  # an outcome
            exchange.respond(self.failure(exchange, err))

    def failure(self, exchange: "Exchange", err: Exception) -> Response:
        """What a client is told: one clear body, never a traceback."""
        if isinstance(err, RequestError):
            return err.response
        if isinstance(err, AlmanacError):
            return self._complaints.response(err)
        logger.error("%s %s failed", exchange.request.method, exchange.route.name, exc_info=err)
        return error(500, "INTERNAL", "a defect of the server; its log has the reason")

    def traced(self, exchange: "Exchange", response: Response, seconds: float) -> Response:
        """The response with the trace that it belongs to; the access log is told."""
        request, route = exchange.request, exchange.route
        trace = trace_of(request.headers.get("traceparent"))
        if log := self._options.access_log:
            keyring = self._options.keyring
            log.write(
                method=request.method,
                route=route.name,
                table=route.table if route.table in self._tables else None,
                key=keyring.name_of(request.headers.get("authorization")) if keyring else None,
                status=response.status,
                seconds=round(seconds, 6),
                trace_id=trace.trace_id if trace else None,
                span_id=trace.span_id if trace else None,
            )
        if trace is None:
            return response
        return response._replace(headers=response.headers + f"traceparent: {trace.parent}\r\n".encode())

    @property
    def logs_access(self) -> bool:
        return self._options.access_log is not None

    def _permit(self, route: Route, request: Request) -> None:
        """Refuse what no body makes right, before any of it is kept.

        Raises:
            RequestError: no such path or method, or this client may not ask this table, or not now.
        """
        if route.name == "none":
            raise RequestError(404, "NOT_FOUND", "no such path; /openapi.json lists what there is")
        if request.method not in route.methods:
            allow = ", ".join(route.methods)
            raise RequestError(405, "METHOD", f"this path takes {allow}", ("allow", allow))
        if route.name == "batch":
            self._admitted(request, route.table, 1)  # whatever it turns out to be, it costs as much as one id
            kind = request.headers.get("content-type", JSON_TYPE).partition(";")[0].strip().lower()
            if kind != JSON_TYPE:
                raise RequestError(415, "BODY_TYPE", f"Content-Type {kind[:80]!r}; expected {JSON_TYPE}")

    def _admitted(self, request: Request, name: str, cost: int, *, paid: int = 0) -> ServedTable:
        """The table, where the request may read it."""
        if keyring := self._options.keyring:
            verdict = keyring.check(request.headers.get("authorization"), name, cost, paid=paid)
            if isinstance(verdict, Refusal):
                raise RequestError(verdict.status, verdict.code, verdict.message, *verdict.headers)
        if table := self._tables.get(name):
            return table
        raise RequestError(404, "TABLE_UNKNOWN", "no such table")

    def _ask_one(self, exchange: "Exchange") -> None:
        request, entity = exchange.request, exchange.route.entity
        table = self._admitted(request, exchange.route.table, 1)
        if "\ufffd" in entity:  # it stands where bytes are not UTF-8
            raise RequestError(400, "ENTITY_ID", "the id is not percent-encoded UTF-8, or has U+FFFD in it")
        release = release_of(request.query)
        check_id("the id", entity)
        ids = (entity,)
        table.ask(ids, partial(self._told, exchange, ids, self._one), release)

    def _ask_many(self, exchange: "Exchange", body: bytes) -> None:
        release = release_of(exchange.request.query)
        ids = batch_of(body).ids
        table = self._admitted(exchange.request, exchange.route.table, len(ids), paid=1)
        table.ask(ids, partial(self._told, exchange, ids, self._many), release)

    def _told(
        self,
        exchange: "Exchange",
        ids: "list[str] | tuple[str, ...]",
        made: "Callable[[Exchange, list[str] | tuple[str, ...], Found | Flagged], Response]",
        outcome: Outcome,
    ) -> None:
        """Respond with what is made of what the table holds."""
        if isinstance(outcome, Exception):
            response = self.failure(exchange, outcome)
        else:
            try:
                response = made(exchange, ids, outcome)
            except Exception as err:  # noqa: BLE001  # an outcome: a damaged row among them
                response = self.failure(exchange, err)
        exchange.respond(response)

    def _one(self, exchange: "Exchange", ids: "list[str] | tuple[str, ...]", found: Found | Flagged) -> Response:
        if isinstance(found, Flagged):
            self._count_flagged(exchange.route.table, found)
            return Response(200, encode(found.answers[0]), _FRESH_JSON + lines(RETRY))
        now, row = time.time(), found.rows[0]
        if row is not None and (encoded := found.seen.encoded_one(ids[0], row, now)):
            body, status = encoded
            self.metrics.lookups(exchange.route.table, status)
            return self._unless_held(exchange, found.seen.head, status, "", body)
        answer = found.seen.answer(ids[0], row, now)
        self._count(exchange.route.table, answer)
        if answer.status == "unknown":
            known = "withholds this entity: its row was set aside" if answer.flag == WITHHELD else "has no such entity"
            message = f"release {answer.release} {known}"
            unknown = UnknownAnswer(**msgspec.structs.asdict(answer), message=message)
            return Response(404, encode(unknown), _FRESH_JSON)
        return self._unless_held(exchange, found.seen.head, answer.status, answer.flag or "", encode(answer))

    def _unless_held(self, exchange: "Exchange", head: Head, status: str, flag: str, body: bytes) -> Response:
        """The answer, or word that the client has it already."""
        etag, headers = _validator(head.version, head.token, head.entities, status, flag)
        if (held := exchange.request.headers.get("if-none-match")) and is_held(held, etag):
            return Response(304, b"", headers)
        return Response(200, body, headers)

    def _many(self, exchange: "Exchange", ids: "list[str] | tuple[str, ...]", found: Found | Flagged) -> Response:
        name = exchange.route.table
        if isinstance(found, Flagged):
            self._count_flagged(name, found)
            answers = found.answers
            return Response(200, encode(LookupResponse(name, answers[0].release, answers)), JSON + lines(RETRY))
        now = time.time()
        if encoded := found.seen.encoded(ids, found.rows, now):
            answered, status = encoded
            self.metrics.lookups(name, status, len(ids))
            around = encode(LookupResponse(name, found.seen.head.release, []))
            return Response(200, b"%b%b]}" % (around[:-2], answered), JSON)
        answers = found.seen.answers(ids, found.rows, now)
        for answer in answers:
            self._count(name, answer)
        return Response(200, encode(LookupResponse(name, answers[0].release, answers)), JSON)

    def _count(self, table: str, answer: Answer) -> None:
        self.metrics.lookups(table, answer.status)
        if self._options.misses and answer.status not in _FOUND and answer.flag is None:
            self._options.misses.add(table, answer.id)

    def _count_flagged(self, table: str, found: Flagged) -> None:
        for answer in found.answers:
            self.metrics.lookups(table, answer.status)
        self._complaints.words(found.failure)
        self.metrics.flagged(table, found.flag or "", len(found.answers))

    def _later(self, exchange: "Exchange", made: Awaitable[Response]) -> None:
        async def respond() -> None:
            try:
                response = await made
            except Exception as err:  # noqa: BLE001  # an outcome
                response = self.failure(exchange, err)
            exchange.respond(response)

        task = self._loop.create_task(respond())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ready(self) -> Response:
        heads = await self._heads()
        told, codes = [], []
        for name, found in heads.items():
            if isinstance(found, AlmanacError):
                told.append(f"table '{name}': {self._complaints.words(found)}")
                codes.append(found.problems[0].code)
            elif Seen(found).is_stale(time.time()):
                told.append(f"table '{name}': release {found.release} was scored {found.scored_at}: it is stale")
                codes.append("STALE")
        if codes:
            return error(503, codes[0], "\n".join(bounded(told)), RETRY)
        releases = {name: head.release for name, head in heads.items() if isinstance(head, Head)}
        return Response(200, encode(Readiness(releases)), JSON)

    async def _page(self) -> Response:
        open_ = {name: table.is_open for name, table in self._tables.items()}
        page = self.metrics.page(await self._heads(), dt.datetime.now(dt.UTC), open_)
        return Response(200, page, lines(("content-type", CONTENT_TYPE)))

    async def _heads(self) -> dict[str, Head | AlmanacError]:
        found = await asyncio.gather(*(table.head() for table in self._tables.values()))
        return dict(zip(self._tables, found, strict=True))

    async def _keep_house(self) -> None:
        """What need not be done while somebody waits."""
        written = time.monotonic()
        while True:
            await asyncio.sleep(_COUNT_SECONDS)
            self.metrics.flush()
            if self._options.misses and time.monotonic() - written > _MISSES_SECONDS:
                written = time.monotonic()
                with suppress(OSError):
                    await asyncio.to_thread(self._options.misses.flush)


class Exchange:
    """One request on its way through the app."""

    __slots__ = ("_app", "_refused", "_send", "_started", "request", "route")

    def __init__(self, app: App, request: Request) -> None:
        self._app = app
        self._started = time.perf_counter()
        self.request = request
        self.route = route_of(request.method, request.path)
        self._send: Send | None = None
        app.metrics.begin()
        is_plain = self.route.name == "entity" and request.method in READ
        self._refused = None if is_plain else app.refusal(self)

    @property
    def keeps_body(self) -> bool:
        return self._refused is None and self.route.name == "batch"

    def answer(self, send: Send, body: bytes = b"") -> None:
        self._send = send
        if self._refused is not None:
            self.respond(self._refused)
        else:
            self._app.answer(self, body)

    def too_large(self, send: Send) -> None:
        self._send = send
        large = error(413, "BODY_TOO_LARGE", f"the body may have {MAX_BODY_BYTES} bytes")
        self.respond(self._refused or large)

    def too_slow(self, send: Send) -> None:
        self._send = send
        slow = error(408, "BODY_SLOW", f"the body did not arrive in {BODY_SECONDS:.0f} s")
        self.respond(self._refused or slow)

    def abandon(self) -> None:
        self._app.metrics.abandon()

    def respond(self, response: Response) -> None:
        """Send the response, and note it."""
        seconds = time.perf_counter() - self._started
        if self._app.logs_access or "traceparent" in self.request.headers:
            response = self._app.traced(self, response, seconds)
        self._app.metrics.end(self.route.name, response.status, seconds)
        if self._send:
            self._send(response)


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
