"""What was decided of a challenger: aborted or promoted, by whom and why."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.content import canonical_json, sha256_text
from schemas.models import Challenger

Kind = Literal["abort", "promote"]


class Decision(BaseModel):
    """One file of the append-only log of decisions.

    Attributes:
        declared: Digest of the challenger's declaration: another one is another contest, and decided anew.
        bundle: The challenger's, as it was when this was decided; none where no run had scored with it.
        replaces: Of a promotion, the bundle that was champion until then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    format: Literal[1] = 1
    sequence: Annotated[int, Field(ge=1)]
    kind: Kind
    challenger: str
    declared: str
    bundle: str | None = None
    replaces: str | None = None
    at: dt.datetime
    by: str
    reason: str = Field(min_length=1)

    def __str__(self) -> str:
        did = {"abort": "aborted", "promote": "promoted"}[self.kind]
        return f"{self.challenger} {did} by {self.by} on {self.at:%Y-%m-%d}: {self.reason}"


def challenger_digest(challenger: Challenger) -> str:
    """12 hex digits of all that is declared of a challenger: what decisions about it hold for."""
    return sha256_text(canonical_json(challenger.model_dump(mode="json", exclude_defaults=True)))[:12]
