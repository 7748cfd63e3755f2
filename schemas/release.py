"""The release log: one entry for everything that was committed, made live or rolled back."""

import datetime as dt
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Event(StrEnum):
    """What an entry records. A release is made by `commit`; `live` and `rollback` name the live one."""

    COMMIT = "commit"
    LIVE = "live"
    ROLLBACK = "rollback"


class LogEntry(BaseModel):
    """One file of the append-only log.

    Attributes:
        token: Fencing token of the publication or rollback it belongs to: the sequence of the entry that began it.
            A LIVE entry has its commit's, so that entries compare as their heads in Redis do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    format: Literal[1] = 1
    sequence: Annotated[int, Field(ge=1)]
    token: Annotated[int, Field(ge=1)]
    event: Event
    release: Annotated[int, Field(ge=1)]
    run_id: str
    date: dt.date
    at: dt.datetime
    by: str
    reason: str = ""


class ReleaseState(StrEnum):
    COMMITTED = "COMMITTED"
    LIVE = "LIVE"
    RETIRED = "RETIRED"
    ROLLED_BACK = "ROLLED_BACK"


class Release(BaseModel):
    """A committed run and where it stands now, as the log tells it."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    number: int
    run_id: str
    date: dt.date
    committed_at: dt.datetime
    state: ReleaseState
