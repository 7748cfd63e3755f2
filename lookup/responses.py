"""What a lookup is answered: the JSON of its answers, what a client has already, and what is counted of it."""

import time
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from lookup.complaints import RETRY, Complaints
from lookup.exchange import JSON, encode, is_held, lines
from lookup.fallback import WITHHELD
from lookup.follower import Found
from lookup.message import Request, Response
from lookup.metrics import Metrics
from lookup.misses import Misses
from lookup.served import Flagged
from schemas.answer import Answer, LookupResponse, UnknownAnswer
from schemas.head import Head

_FRESH_JSON = JSON + lines(("cache-control", "no-cache"))
_FOUND = ("exact", "carried", "stale")


class Responses:
    """Makes the responses of one server's tables."""

    def __init__(self, metrics: Metrics, misses: Misses | None, complaints: Complaints) -> None:
        self._metrics, self._misses, self._complaints = metrics, misses, complaints

    def one(self, request: Request, table: str, ids: Sequence[str], found: Found | Flagged) -> Response:
        """Of one entity."""
        if isinstance(found, Flagged):
            self._count_flagged(table, found)
            return Response(200, encode(found.answers[0]), _FRESH_JSON + lines(RETRY))
        now = time.time()
        if encoded := found.seen.encoded(ids, found.rows, now):
            body, status = encoded
            self._metrics.lookups(table, status)
            return self._unless_held(request, found.seen.head, status, "", body)
        answer = found.seen.answer(ids[0], found.rows[0], now)
        self._count(table, answer)
        if answer.status == "unknown":
            known = "withholds this entity: its row was set aside" if answer.flag == WITHHELD else "has no such entity"
            message = f"release {answer.release} {known}"
            unknown = UnknownAnswer(**msgspec.structs.asdict(answer), message=message)
            return Response(404, encode(unknown), _FRESH_JSON)
        return self._unless_held(request, found.seen.head, answer.status, answer.flag or "", encode(answer))

    def _unless_held(self, request: Request, head: Head, status: str, flag: str, body: bytes) -> Response:
        """The answer, or word that the client has it already."""
        etag, headers = validator(head, status, flag)
        if (held := request.headers.get("if-none-match")) and is_held(held, etag):
            return Response(304, b"", headers)
        return Response(200, body, headers)

    def many(self, request: Request, table: str, ids: Sequence[str], found: Found | Flagged) -> Response:  # noqa: ARG002  # as `one`
        """Of a batch."""
        if isinstance(found, Flagged):
            self._count_flagged(table, found)
            answers = found.answers
            return Response(200, encode(LookupResponse(table, answers[0].release, answers)), JSON + lines(RETRY))
        now = time.time()
        around = encode(LookupResponse(table, found.seen.head.release, []))
        if encoded := found.seen.encoded(ids, found.rows, now, (around[:-2], around[-2:])):
            body, status = encoded
            self._metrics.lookups(table, status, len(ids))
            return Response(200, body, JSON)
        answers = found.seen.answers(ids, found.rows, now)
        for answer in answers:
            self._count(table, answer)
        return Response(200, encode(LookupResponse(table, answers[0].release, answers)), JSON)

    def _count(self, table: str, answer: Answer) -> None:
        self._metrics.lookups(table, answer.status)
        if self._misses and answer.status not in _FOUND and answer.flag is None:
            self._misses.add(table, answer.id)

    def _count_flagged(self, table: str, found: Flagged) -> None:
        for answer in found.answers:
            self._metrics.lookups(table, answer.status)
        self._complaints.words(found.failure)
        self._metrics.flagged(table, found.flag or "", len(found.answers))


def validator(head: Head, status: str, flag: str = "") -> tuple[str, bytes]:
    """The tag of an answer, and the headers that tell it.

    Of one version, status and flag, an answer changes in nothing but its age; an erasure makes the rows fewer.
    """
    return _validator(head.version, head.token, head.entities, status, flag)


@lru_cache(maxsize=256)
def _validator(version: int, token: int, entities: int, status: str, flag: str) -> tuple[str, bytes]:
    etag = f'W/"{version}.{token}.{entities}.{status}{flag}"'
    return etag, _FRESH_JSON + lines(("etag", etag))
