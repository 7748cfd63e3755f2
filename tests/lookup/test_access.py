"""The trace that a request belongs to, and the line that is logged of it."""

import io
import json

import pytest

from lookup.access import AccessLog, trace_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"cc-{TRACE}-{SPAN}-01", "01"),
        (f"cc-{TRACE}-{SPAN}-01-what a later version adds", "01"),
    ],
)
def test_a_valid_trace_is_taken_up_with_a_span_of_our_own(traceparent: str, flags: str) -> None:
    trace = trace_of(traceparent)

    assert trace is not None
    assert trace.parent == f"00-{TRACE}-{trace.span_id}-{flags}"
    assert trace.span_id != SPAN
    assert len(trace.span_id) == 16


@pytest.mark.parametrize(
    "traceparent",
    [
        None, "", "00", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-01\n", f" 00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-0g",
    ],
)  # fmt: skip
def test_a_trace_that_is_not_valid_is_ignored(traceparent: str | None) -> None:
    assert trace_of(traceparent) is None


def test_a_line_is_one_json_object_without_what_is_not_known() -> None:
    stream = io.StringIO()

    AccessLog(stream).write(method="GET", table=None, status=200)

    line, rest = stream.getvalue().split("\n")
    facts = json.loads(line)
    assert (list(facts), facts["status"], rest) == (["time", "method", "status"], 200, "")
