"""The read API: a service that answers from the lookup table and computes nothing."""

import asyncio
import datetime as dt
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from lookup.access import AccessLog, trace_of
from lookup.asked import Exchange
from lookup.breaker import Breaker
from lookup.cluster import connection_to
from lookup.coalesce import Lookups
from lookup.complaints import RETRY, Complaints
from lookup.connect import Address, address_of
from lookup.exchange import (
    JSON,
    JSON_TYPE,
    RequestError,
    Route,
    batch_of,
    check_id,
    encode,
    error,
    lines,
    release_of,
)
from lookup.fallback import Seen
from lookup.follower import Found
from lookup.keyring import Keyring, Refusal
from lookup.lane import Lane, Lanes, Plain
from lookup.message import Request, Response, Take
from lookup.metrics import CONTENT_TYPE, Metrics
from lookup.misses import Misses
from lookup.openapi import document
from lookup.responses import Responses
from lookup.served import Flagged, Outcome, ServedTable
from schemas.answer import Readiness
from schemas.errors import AlmanacError, DeclarationError, Problem, bounded
from schemas.head import Head, Serving
from schemas.strict import NAME_PATTERN

logger = logging.getLogger(__name__)

_COUNT_SECONDS = 0.25
_MISSES_SECONDS = 5.0


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
        self._responses = Responses(self.metrics, options.misses, self._complaints)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve from this loop from now on."""
        self._loop = loop
        self._lookups = Lookups(connection_to(self._address, loop), loop=loop)
        self._tables = {
            # Each with a breaker of its own: what is wrong with one table's keys or node is not wrong with the others'.
            name: ServedTable(name, serving, self._lookups, Breaker())
            for name, serving in self._servings.items()
        }
        lanes = [Lane(table, self._lookups, self.metrics, self._tell_plain) for table in self._tables.values()]
        self._lanes = Lanes(lanes, self._options.keyring)
        self._tasks: set[asyncio.Task[None]] = {loop.create_task(self._keep_house())}

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._options.misses:
            self._options.misses.flush()
        self._lookups.close()

    def begin(self, request: Request) -> Exchange:
        """One request, whose body is yet to come."""
        return Exchange(self, request)

    def lane(self, headers: Mapping[str, str]) -> Take | None:
        """Who takes plain lookups with these headers; what is logged is answered one by one."""
        return None if self.logs_access else self._lanes.taker(headers)

    def _tell_plain(self, table: str, plain: Plain, outcome: Outcome) -> None:
        """Answer a lookup of a lane from what was found."""
        exchange = Exchange(self, Request("GET", f"/v1/{table}/{plain.entity}", "", {}), plain.began)
        exchange.tell(plain.asker.send, partial(self._told, exchange, (plain.entity,), self._responses.one, outcome))

    def malformed(self, status: int, message: str) -> Response:
        self.metrics.begin()
        self.metrics.end("none", status, 0.0)
        return error(status, "HTTP", message)

    def refusal(self, exchange: Exchange) -> Response | None:
        """Why this request is not answered, whatever its body is; None where it may be."""
        try:
            self._permit(exchange.route, exchange.request)
        except Exception as err:  # noqa: BLE001  # an outcome
            return self.failure(exchange, err)
        return None

    def answer(self, exchange: Exchange, body: bytes) -> None:
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

    def failure(self, exchange: Exchange, err: Exception) -> Response:
        """What a client is told: one clear body, never a traceback."""
        if isinstance(err, RequestError):
            return err.response
        if isinstance(err, AlmanacError):
            return self._complaints.response(err)
        logger.error("%s %s failed", exchange.request.method, exchange.route.name, exc_info=err)
        return error(500, "INTERNAL", "a defect of the server; its log has the reason")

    def traced(self, exchange: Exchange, response: Response, seconds: float) -> Response:
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

    def _ask_one(self, exchange: Exchange) -> None:
        request, entity = exchange.request, exchange.route.entity
        table = self._admitted(request, exchange.route.table, 1)
        if "\ufffd" in entity:  # it stands where bytes are not UTF-8
            raise RequestError(400, "ENTITY_ID", "the id is not percent-encoded UTF-8, or has U+FFFD in it")
        release = release_of(request.query)
        check_id("the id", entity)
        ids = (entity,)
        table.ask(ids, partial(self._told, exchange, ids, self._responses.one), release)

    def _ask_many(self, exchange: Exchange, body: bytes) -> None:
        release = release_of(exchange.request.query)
        ids = batch_of(body).ids
        table = self._admitted(exchange.request, exchange.route.table, len(ids), paid=1)
        table.ask(ids, partial(self._told, exchange, ids, self._responses.many), release)

    def _told(
        self,
        exchange: Exchange,
        ids: Sequence[str],
        made: Callable[[Request, str, Sequence[str], Found | Flagged], Response],
        outcome: Outcome,
    ) -> None:
        """Respond with what is made of what the table holds."""
        if isinstance(outcome, Exception):
            response = self.failure(exchange, outcome)
        else:
            try:
                response = made(exchange.request, exchange.route.table, ids, outcome)
            except Exception as err:  # noqa: BLE001  # an outcome: a damaged row among them
                response = self.failure(exchange, err)
        exchange.respond(response)

    def _later(self, exchange: Exchange, made: Awaitable[Response]) -> None:
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
