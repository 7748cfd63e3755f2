"""One request on its way through the read API: begun, answered once, noted."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lookup.exchange import READ, error, route_of
from lookup.http11 import BODY_SECONDS, MAX_BODY_BYTES
from lookup.message import Request, Response, Send

if TYPE_CHECKING:
    from lookup.api import App


class Exchange:
    """One request on its way through the app."""

    __slots__ = ("_app", "_refused", "_send", "_started", "request", "route")

    def __init__(self, app: "App", request: Request, started: float | None = None) -> None:
        """A request; where it has begun in a lane and been counted there, that was at `started`."""
        self._app = app
        self._started = time.perf_counter() if started is None else started
        self.request = request
        self.route = route_of(request.method, request.path)
        self._send: Send | None = None
        if started is None:
            app.metrics.begin()
        is_plain = self.route.name == "entity" and request.method in READ
        self._refused = None if is_plain else app.refusal(self)

    @property
    def keeps_body(self) -> bool:
        return self._refused is None and self.route.name == "batch"

    def tell(self, send: Send, told: Callable[[], None]) -> None:
        """Have it answered by who knows the outcome already."""
        self._send = send
        told()

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
