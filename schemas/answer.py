"""What a reader gets, and the requests and responses of the read API."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_BATCH = 1000

Status = Literal["exact", "carried", "prior", "default", "unknown", "stale"]


class Answer(BaseModel):
    """One looked-up entity.

    Attributes:
        status: `exact` for a prediction of this release; `unknown` where it has none for the id.
        outputs: By name, for example `{"score": 0.31}`; empty when unknown.
        release: The release that answered; all answers of a batch name the same one.
        model: The bundle that made the prediction, null when unknown.
        scored_at: When it was made, RFC 3339 UTC, null when unknown.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    status: Status
    outputs: dict[str, float | int | str | None]
    release: int
    model: str | None
    variant: str | None
    scored_at: str | None


class UnknownAnswer(Answer):
    """The 404 of one unknown entity: an answer (of which release, with which status) and an error body in one."""

    code: Literal["ENTITY_UNKNOWN"]
    message: str


class LookupRequest(BaseModel):
    """The body of `POST /v1/{table}/lookup`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    ids: Annotated[list[str], Field(min_length=1, max_length=MAX_BATCH)]


class LookupResponse(BaseModel):
    """Answers in the order of the ids asked, all from one release."""

    table: str
    release: int
    answers: list[Answer]


class ErrorBody(BaseModel):
    """Every error the API answers with."""

    code: str
    message: str


class Health(BaseModel):
    """The process is up."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Every table is served; its live release by name."""

    status: Literal["ready"]
    releases: dict[str, int]
