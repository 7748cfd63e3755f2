"""Parameters of a run: declared with the pipeline, given when it runs."""

import datetime as dt
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from schemas.strict import Declared

Value = str | int | float | bool | dt.date
Kind = Literal["string", "int", "float", "bool", "date"]

# Airflow's form for a run by hand has these already; features.sql has `:ds`.
RESERVED = frozenset({"ds", "date", "dry_run", "override_checks", "override_reason"})
MAX_CHARACTERS = 256
_KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str, "int": int, "float": (int, float), "bool": bool, "date": dt.date,
}  # fmt: skip
_INT64 = range(-(2**63), 2**63)


class Parameter(Declared):
    """A value that is given when the pipeline runs; another value is another run."""

    type: Kind = "string"
    default: Value | None = Field(None, description="Where none is given; without one, every run must give it.")
    allowed: list[Value] = Field([], description="The values that it may have; any of its type when left out.")
    description: str = Field("", description="For people: the form of a run by hand shows it.")

    @model_validator(mode="after")
    def _of_its_type(self) -> "Parameter":
        given = [*([] if self.default is None else [self.default]), *self.allowed]
        if wrong := [value for value in given if not self._fits(value)]:
            raise ValueError(f"{wrong[0]!r} is no {self.type}")
        if self.default is not None and self.allowed and self.default not in self.allowed:
            raise ValueError(f"the default {self.default!r} is not among the allowed values")
        return self

    def _fits(self, value: object) -> bool:
        if not isinstance(value, _KINDS[self.type]) or (isinstance(value, bool) and self.type != "bool"):
            return False
        if isinstance(value, str):
            return len(value) <= MAX_CHARACTERS and value.isprintable()
        return not isinstance(value, dt.datetime) and (not isinstance(value, int) or value in _INT64)

    @property
    def expected(self) -> str:
        """What may be given, in words."""
        return f"one of {', '.join(map(str, self.allowed))}" if self.allowed else f"a value of type {self.type}"

    def read(self, given: object) -> Value:
        """The value that is given as text, or as JSON has it.

        Raises:
            ValueError: it is none of this type, or is not allowed.
        """
        value = _PARSERS[self.type](given) if isinstance(given, str) else given
        if value is None or not self._fits(value) or (self.allowed and value not in self.allowed):
            raise ValueError(self.expected)
        return float(value) if self.type == "float" else value  # type: ignore[arg-type,return-value]  # `_fits` saw it


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,19}", text) else None


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _day(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text) if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) else None
    except ValueError:
        return None


_PARSERS: Mapping[str, Any] = {
    "string": str, "int": _whole, "float": _number, "bool": {"true": True, "false": False}.get, "date": _day,
}  # fmt: skip
