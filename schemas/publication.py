"""How a pipeline's predictions are kept and answered: the part of the declaration behind the gate."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.keys import ENTITIES_PER_BUCKET
from schemas.strict import Column, Declared


class Fallback(Declared):
    """What readers are answered for an entity that has no prediction: a prior, else the default, else `unknown`."""

    segments: list[Annotated[list[Column], Field(min_length=1, max_length=8)]] = Field(
        default=[],
        max_length=8,
        description="Groups of key columns whose mean prediction is a prior, the most specific first.",
    )
    min_rows: int = Field(20, ge=2, description="Smaller groups have no prior.")
    default: dict[Column, float | str] | None = Field(
        None, min_length=1, description="Outputs of an entity without a prediction and a prior."
    )

    @model_validator(mode="after")
    def _distinct(self) -> "Fallback":
        for segment in self.segments:
            if len(set(segment)) < len(segment):
                raise ValueError(f"a column twice in the segment {segment}")
        if len({tuple(sorted(segment)) for segment in self.segments}) < len(self.segments):
            raise ValueError("the same segment twice")
        return self


class Freshness(Declared):
    """How old a prediction may be when it is answered."""

    stale_after_hours: float | None = Field(None, gt=0, description="From this age on it is answered as `stale`.")
    drop_after_hours: float | None = Field(None, gt=0, description="From this age on its fallback is answered instead.")

    @model_validator(mode="after")
    def _ordered(self) -> "Freshness":
        if self.stale_after_hours and self.drop_after_hours and self.stale_after_hours > self.drop_after_hours:
            raise ValueError(f"stale_after_hours {self.stale_after_hours} is more than {self.drop_after_hours}")
        return self


class Publish(Declared):
    """How a release is kept in the lookup table."""

    layout: Literal["bucket", "string"] = Field(
        "bucket",
        description="`bucket` is small; `string` (a key for each entity) reads batches faster, in 3x the memory.",
    )
    entities_per_bucket: int = Field(
        ENTITIES_PER_BUCKET, ge=1, le=128, description="On average; fewer are read faster and take more memory."
    )
    keep: int = Field(3, ge=2, le=100, description="Versions kept in Redis; a rollback to one of them moves no data.")
    grace_seconds: int = Field(300, ge=0, description="A version that is no longer live is kept at least this long.")
    smoke_entities: int = Field(
        20, ge=1, le=1_000_000, description="Rows that are read back behind a publication and compared with the store."
    )
    replicas: int | None = Field(
        None,
        ge=0,
        description="Replicas that must have a version before it goes live; all that are connected, when left out.",
    )
