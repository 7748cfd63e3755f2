"""The declaration of a pipeline's Great Expectations suites: what `expectations.yaml` may say."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from schemas.strict import Declared

_ORDERED = (("min_value", "max_value"), ("min_length", "max_length"))


class Expectation(Declared):
    """One expectation in Great Expectations' own terms."""

    type: Annotated[str, Field(pattern=r"^expect_[a-z0-9_]+$")]
    kwargs: dict[str, Any] = Field(default={})
    severity: Literal["critical", "warning"] = Field(
        "critical", description="A critical one stops the run; a warning is reported."
    )
    notes: str | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Expectation":
        # Great Expectations takes a range that nothing can be in without a word.
        for low, high in _ORDERED:
            least, most = self.kwargs.get(low), self.kwargs.get(high)
            if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
                raise ValueError(f"{low} {least} is above {high} {most}")
        return self


class Suites(Declared):
    """The two suites of a pipeline. An empty suite would pass anything, so each has at least one."""

    inputs: list[Expectation] = Field(min_length=1, description="Of what features.sql computed.")
    predictions: list[Expectation] = Field(min_length=1, description="Of what the models answered.")
