"""What a pipeline may ask to be told of its predictions beside their values."""

from pydantic import Field

from schemas.strict import Declared


class Explain(Declared):
    """The features that moved each prediction most, stored beside it."""

    top: int = Field(3, ge=1, le=100, description="Features that are named, those that moved it most first.")
    share: float = Field(1.0, gt=0, le=1, description="Of the entities, drawn by salt and id.")
    salt: str | None = Field(None, min_length=1, max_length=63, description="Another one draws other entities.")
