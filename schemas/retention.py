"""How long what a pipeline leaves in the store is kept, and what stays known of a run that was removed."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.run import Counts
from schemas.strict import Declared

_Days = Annotated[int, Field(ge=1, le=36_500)]
REMOVED_FOLDER = "removed"


class Retention(Declared):
    """What `almanac maintain` leaves in the store. No prediction depends on it."""

    keep_releases: int = Field(
        60, ge=2, le=100_000, description="The releases that the log named last are kept, however old they are."
    )
    keep_days: int = Field(
        90, ge=0, le=36_500, description="Releases of which the log, or their scoring, is younger are kept too."
    )
    staged_days: _Days = Field(
        14, description="Runs that were never committed, and folders of killed ones, are kept so long."
    )
    quarantine_days: _Days = Field(
        30, description="Rows that a release set aside are kept so long; their counts stay. Not below staged_days."
    )

    @model_validator(mode="after")
    def _in_order(self) -> "Retention":
        # What waits to be verified is proven complete with the rows that were set aside.
        if self.quarantine_days < self.staged_days:
            raise ValueError(f"quarantine_days {self.quarantine_days} is less than staged_days {self.staged_days}")
        return self


class RemovedRun(BaseModel):
    """`removed/<run_id>.json`: what is known of a run whose files were removed; a release stays traceable by it.

    Attributes:
        models: Variant -> bundle id; empty, as what follows is null, where its manifest could not be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    format: Literal[1] = 1
    pipeline: str
    run_id: str
    release: int | None = None
    removed_at: dt.datetime
    by: str
    why: str
    size_bytes: int
    models: dict[str, str] = {}
    content: str | None = None
    counts: Counts | None = None
