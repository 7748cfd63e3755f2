"""The access log of the read API, one JSON line a request, and the trace that each belongs to."""

import datetime as dt
import re
import secrets
import sys
from contextlib import suppress
from typing import Any, NamedTuple, TextIO

import msgspec

# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace, parent, flags; none of them all zeros.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
_ENCODE = msgspec.json.Encoder().encode


class Trace(NamedTuple):
    """The trace of a request, and this server's part of it."""

    trace_id: str
    span_id: str
    flags: str

    @property
    def parent(self) -> str:
        """The `traceparent` that what this server causes belongs to."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def trace_of(traceparent: str | None) -> Trace | None:
    """The trace in a `traceparent` header, with a span of our own; None where there is none, or one that is not valid.

    >>> trace_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").trace_id
    '4bf92f3577b34da6a3ce929d0e0e4736'
    """
    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match is None or ((traceparent or "")[:2] == "00" and match[3]):
        return None
    return Trace(match[1], secrets.token_hex(8), match[2])


class AccessLog:
    """Writes who asked which table when, and what came of it: never an id, a key or a query."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def write(self, **facts: Any) -> None:
        """One line; facts that are None are left out."""
        line = {"time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")}
        line |= {name: value for name, value in facts.items() if value is not None}
        with suppress(OSError, ValueError):  # a full disk, a reader that went away: requests are answered all the same
            self._stream.write(_ENCODE(line).decode() + "\n")
            self._stream.flush()
