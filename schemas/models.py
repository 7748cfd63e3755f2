"""Which models score the rows of a pipeline: a champion, models with rows of their own, and a challenger."""

from typing import Literal

from pydantic import Field, model_validator

from schemas.run import CANARY, CHALLENGER, CHAMPION
from schemas.strict import Declared, Name

_TAKEN = (CHAMPION, CHALLENGER, CANARY)


class Model(Declared):
    """The bundle that a variant is scored with."""

    bundle: str = Field(
        "latest", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$", description="A bundle id, or `latest` trained."
    )


class Tuned(Model):
    """A model that may be trained in another way than the champion."""

    params: dict[str, str | int | float | bool] = Field(
        default={}, description="LightGBM parameters, over those of `training`."
    )
    rounds: int | None = Field(None, ge=1, le=10_000, description="Trees to grow; as `training` says, when left out.")


class Route(Tuned):
    """Rows that have a model of their own."""

    name: Name = Field(description="The variant of these rows.")
    where: str = Field(
        min_length=1, description="A Spark SQL predicate over key columns and features; the first that holds decides."
    )


class Challenger(Tuned):
    """A model that is tried beside those that serve."""

    mode: Literal["shadow", "canary", "ab"] = Field(
        description="shadow: scores, and is never served. canary and ab: serves its share of the entities."
    )
    share: float | None = Field(
        None, gt=0, lt=1, description="Of the entities; all when left out, which only shadow may."
    )
    salt: str | None = Field(None, min_length=1, max_length=63, description="Another one deals the entities out anew.")

    @model_validator(mode="after")
    def _shared(self) -> "Challenger":
        if self.mode != "shadow" and self.share is None:
            raise ValueError(f"{self.mode} serves a share of the entities: declare it, for example share: 0.1")
        return self

    @property
    def variant(self) -> str:
        """Of the rows that it serves."""
        return CANARY if self.mode == "canary" else CHALLENGER


class Models(Declared):
    champion: Model = Model()
    routes: list[Route] = Field([], max_length=16)
    otherwise: Literal["champion", "quarantine"] = Field(
        "champion", description="What becomes of rows that no route takes."
    )
    challenger: Challenger | None = None

    @model_validator(mode="after")
    def _told_apart(self) -> "Models":
        names = [route.name for route in self.routes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"routes: declared twice: {', '.join(twice)}")
        if taken := [name for name in names if name in _TAKEN]:
            raise ValueError(f"routes: {', '.join(taken)} is a variant already; call the route otherwise")
        if self.otherwise == "quarantine" and not self.routes:
            raise ValueError("otherwise: quarantine would set every row aside: there is no route")
        return self

    @property
    def variants(self) -> dict[str, Model]:
        """Every model that a run needs, by variant; the champion first."""
        found: dict[str, Model] = {CHAMPION: self.champion}
        found |= {route.name: route for route in self.routes}
        if self.challenger:
            found[self.challenger.variant] = self.challenger
        return found
