"""Reading the lookup table: one round trip, one version, whatever is published meanwhile."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import redis
import redis.asyncio

from lookup.connect import redis_errors
from schemas.answer import Answer, Status
from schemas.errors import InputError, Problem, UnavailableError
from schemas.keys import Head, bucket_key, bucket_of, decode_row, head_key, read_head
from schemas.run import ROUTE_COLUMNS, SCORED

_ATTEMPTS = 5
_UNKNOWN: dict[str, Any] = {"status": "unknown", "outputs": {}, "model": None, "variant": None, "scored_at": None}


class _Seen(NamedTuple):
    raw: bytes
    head: Head


class _Follower:
    """The last head seen, and what to ask Redis next.

    Each request asks for the head and, in the same write, for the rows under the head last seen. Where the
    head has moved, the rows are asked for again under the new one. Redis runs a connection's commands in
    order, so rows that arrive behind an unmoved head are of the live version, all of them.
    """

    def __init__(self, table: str) -> None:
        self.table = table
        self._seen: _Seen | None = None

    def queue(self, pipeline: Any, ids: Sequence[str]) -> _Seen | None:
        """Queue the request, and say under which head: requests of one event loop share the follower."""
        pipeline.get(head_key(self.table))
        if seen := self._seen:
            for entity in ids:
                bucket = bucket_of(entity, seen.head.buckets)
                pipeline.hget(bucket_key(self.table, seen.head.version, bucket), entity)
        return seen

    def settle(self, asked: _Seen | None, replies: Sequence[Any]) -> Head | None:
        """The head these replies belong to, or None where it moved and they must be asked for again.

        Raises:
            UnavailableError: nothing has been published yet, or Redis lost its data.
            InputError: the head is damaged or of a newer format.
        """
        raw = replies[0]
        if raw is None:
            raise UnavailableError(
                Problem("NO_VERSION", f"table '{self.table}'", "no version is published", "a published release")
            )
        if asked and raw == asked.raw:
            return asked.head
        head = read_head(raw, self.table)
        if missing := sorted(set(ROUTE_COLUMNS) - {column.name for column in head.columns}):
            found = f"no column {', '.join(missing)}"
            raise InputError(
                Problem("STORE_POINTER_FORMAT", head_key(self.table), found, "the head that publish writes")
            )
        self._seen = _Seen(raw, head)
        return None

    def moving(self) -> UnavailableError:
        where = head_key(self.table)
        return UnavailableError(
            Problem("STORE_POINTER", where, f"moved {_ATTEMPTS} times in one request", "a steady head")
        )


class Reader:
    """Looks entities up over one Redis connection pool."""

    def __init__(self, client: redis.Redis, table: str) -> None:
        self._client = client
        self._follower = _Follower(table)

    def lookup(self, ids: Sequence[str]) -> tuple[Head, list[Answer]]:
        """The answers in the order of `ids`, all of the version in the head returned beside them.

        Raises:
            UnavailableError: Redis does not answer, or nothing is published.
            InputError: what Redis holds is not a table of this format.
        """
        with redis_errors(f"table '{self._follower.table}'"):
            for _ in range(_ATTEMPTS):
                pipeline = self._client.pipeline(transaction=False)
                asked = self._follower.queue(pipeline, ids)
                replies = pipeline.execute()
                if head := self._follower.settle(asked, replies):
                    return head, answers(head, ids, replies[1:])
        raise self._follower.moving()


class AsyncReader:
    """The same on an event loop."""

    def __init__(self, client: redis.asyncio.Redis, table: str) -> None:
        self._client = client
        self._follower = _Follower(table)

    async def lookup(self, ids: Sequence[str]) -> tuple[Head, list[Answer]]:
        with redis_errors(f"table '{self._follower.table}'"):
            for _ in range(_ATTEMPTS):
                pipeline = self._client.pipeline(transaction=False)
                asked = self._follower.queue(pipeline, ids)
                replies = await pipeline.execute()
                if head := self._follower.settle(asked, replies):
                    return head, answers(head, ids, replies[1:])
        raise self._follower.moving()


def answers(head: Head, ids: Sequence[str], rows: Sequence[bytes | None]) -> list[Answer]:
    """What the rows say, in their order; a missing row is an answer too."""
    return [_answer(head, entity, row) for entity, row in zip(ids, rows, strict=True)]


def _answer(head: Head, entity: str, row: bytes | None) -> Answer:
    if row is None:
        return Answer(id=entity, release=head.release, **_UNKNOWN)
    values = decode_row(head.columns, row)
    status: Status = "exact" if values["status"] == SCORED else "carried"
    return Answer(
        id=entity,
        status=status,
        outputs={name: value for name, value in values.items() if name not in ROUTE_COLUMNS},
        release=head.release,
        model=str(values["model"]),
        variant=str(values["variant"]),
        scored_at=head.scored_at,
    )
