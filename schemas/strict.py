"""What every part of a declaration is built from: strict types, and errors that know their key."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
COLUMN_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,126}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Column = Annotated[str, Field(pattern=COLUMN_PATTERN)]
Share = Annotated[float, Field(ge=0, le=1)]


class Declared(BaseModel):
    """A part of the declaration: frozen, strictly typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        # Before the fields are read, so that a misspelt key is not also reported as a missing one.
        if isinstance(data, dict) and (unknown := [key for key in data if key not in cls.model_fields]):
            raise PydanticCustomError("unknown_keys", "unknown keys", {"keys": unknown, "known": [*cls.model_fields]})
        return data


def invalid(message: str, *at: str) -> PydanticCustomError:
    """An error of the key `at`, below the part that is being checked, so that its line can be shown."""
    return PydanticCustomError("invalid", "{message}", {"message": message, "at": at})
