"""What a reader gets, and the requests and responses of the read API (docs/api.md)."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.head import Value

MAX_BATCH = 1000

Status = Literal["exact", "carried", "prior", "default", "unknown", "stale"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One looked-up entity.

    Attributes:
        status: `exact` for a prediction of this release, `carried` for the last good one of an entity that this release
            could not score, `stale` for one of either kind that is older than declared, `prior` for the mean of the
            entity's segment, `default` for the declared outputs, `unknown` where there is none of these.
        outputs: By name, for example `{"score": 0.31}`; empty when unknown.
        release: The release that answered; all answers of a batch name the same one. Null where none could be read.
        model: The bundle that made the prediction, null where none did.
        scored_at: When it was made, RFC 3339 UTC; where none of the entity answers, when the release was scored. Null
            where no release could be read.
        age_seconds: Since then. Null too where that time cannot be read.
        segment: The key columns whose mean a prior is, joined with `,`; null for all else.
        flag: Why this is less than it could be: `EXPIRED` where predictions are too old to be answered, `WITHHELD`
            where the entity's row was set aside and nothing is served then, else the code of what keeps the table from
            being read. Null when all is well. An `unknown` with a flag may be known.
    """

    id: str
    status: Status
    outputs: dict[str, Value]
    release: int | None
    model: str | None = None
    variant: str | None = None
    scored_at: str | None = None
    age_seconds: float | None = None
    segment: str | None = None
    flag: str | None = None


class UnknownAnswer(Answer, frozen=True, kw_only=True):
    """The 404 of one unknown entity: an answer (of which release, with which status) and an error body in one."""

    code: Literal["ENTITY_UNKNOWN"] = "ENTITY_UNKNOWN"
    message: str


class LookupRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/{table}/lookup`."""

    ids: Annotated[list[str], Meta(min_length=1, max_length=MAX_BATCH)]


class LookupResponse(msgspec.Struct, frozen=True):
    """Answers in the order of the ids asked, all from one release."""

    table: str
    release: int | None
    answers: list[Answer]


class ErrorBody(msgspec.Struct, frozen=True):
    """Every error the API answers with."""

    code: str
    message: str


class Health(msgspec.Struct, frozen=True):
    """The process is up."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """Every table is served; its live release by name."""

    releases: dict[str, int]
    status: Literal["ready"] = "ready"
