"""The append-only file of a Redis, which keeps what was written until it is written anew."""

import time
from typing import Any

from lookup.connect import Client, redis_errors
from schemas.errors import Problem, UnavailableError

_REWRITE_SECONDS = 300.0


def rewrite_log(client: Client, *, seconds: float = _REWRITE_SECONDS) -> None:
    """Make a Redis write its append-only file anew, from what it holds now, and see that it did.

    Raises:
        UnavailableError: it does not answer, or the file was not written in that time.
    """
    deadline = time.monotonic() + seconds
    with redis_errors("rewriting the append-only file"):
        _wait_for_rewrite(client, deadline)  # one that began before the erasure may have the row
        client.bgrewriteaof()
        state = _wait_for_rewrite(client, deadline)
    if state["aof_last_bgrewrite_status"] != "ok":
        raise _not_rewritten("it failed; see the server's log")


def _wait_for_rewrite(client: Client, deadline: float) -> dict[str, Any]:
    while True:
        state: dict[str, Any] = client.info("persistence")
        if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
            return state
        if time.monotonic() > deadline:
            raise _not_rewritten("it takes too long")
        time.sleep(0.02)


def _not_rewritten(found: str) -> UnavailableError:
    expected = "a file without the erased row; erase again"
    return UnavailableError(Problem("ERASE_LOG", "the store's own Redis: append-only file", found, expected))
