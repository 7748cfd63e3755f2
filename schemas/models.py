"""Which models score the rows of a pipeline: a champion, models with rows of their own, and challengers."""

from typing import Literal

from pydantic import Field, model_validator

from schemas.run import CHAMPION
from schemas.strict import Column, Declared, Name, Share


class Tuned(Declared):
    """How a model is trained, where that is another way than `training` says."""

    params: dict[str, str | int | float | bool] = Field(
        default={}, description="LightGBM parameters, over those of `training`."
    )
    rounds: int | None = Field(None, ge=1, le=10_000, description="Trees to grow; as `training` says, when left out.")


class Member(Tuned):
    """A model of a combination."""

    name: Name
    seed: int | None = Field(None, ge=0, lt=2**31, description="As `training` says, when left out.")
    weight: float | None = Field(None, gt=0, description="Of a weighted mean.")


class Combine(Declared):
    """Several models that score a row together."""

    how: Literal["mean", "weighted_mean", "max", "stack"] = Field(
        description="stack: a small linear or logistic model over the members' outputs."
    )
    members: list[Member] = Field(min_length=2, max_length=8)

    @model_validator(mode="after")
    def _consistent(self) -> "Combine":
        names = [member.name for member in self.members]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)}: each member needs a name of its own")
        weighted = [member.name for member in self.members if member.weight is not None]
        if weighted and self.how != "weighted_mean":
            raise ValueError(f"{weighted[0]} has a weight: that is for how: weighted_mean")
        if self.how == "weighted_mean" and (missing := [name for name in names if name not in weighted]):
            raise ValueError(f"{missing[0]} has no weight: a weighted mean needs one of each member")
        return self


class Model(Declared):
    """The bundle that a variant is scored with."""

    bundle: str = Field(
        "latest", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$", description="A bundle id, or `latest` trained."
    )
    combine: Combine | None = Field(None, description="Train several models, whose outputs are put together.")


class Named(Model, Tuned):
    """A model beside the champion, which may be trained in another way."""

    name: Name = Field(description="The variant of the rows that it scores; readers of those that it serves see it.")


class Route(Named):
    """Rows that have a model of their own."""

    where: str = Field(
        min_length=1, description="A Spark SQL predicate over key columns and features; the first that holds decides."
    )


class Challenger(Named):
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
        if self.serves and self.share is None:
            raise ValueError(f"{self.mode} serves a share of the entities: declare it, for example share: 0.1")
        return self

    @property
    def serves(self) -> bool:
        return self.mode != "shadow"


class RecallLevels(Declared):
    """How much of what the champion would have found a funnel must let through."""

    warn: Share = Field(description="Below it the run is marked.")
    fail: Share | None = Field(None, description="Below it the run stops; never by itself, when left out.")

    @model_validator(mode="after")
    def _ordered(self) -> "RecallLevels":
        if self.fail is not None and self.fail > self.warn:
            raise ValueError(f"warn {self.warn} is below fail {self.fail}")
        return self


class Funnel(Named):
    """A cheap model before the champion: it scores every row, and the champion those of them that rank highest."""

    name: Name = Field("cheap", description="The variant of the rows that the cheap model decides.")
    features: list[Column] | None = Field(None, min_length=1, description="That it learns from; all when left out.")
    threshold: float | None = Field(None, description="The champion scores rows from this cheap score on.")
    share: float | None = Field(None, gt=0, lt=1, description="The champion scores this share, the highest.")
    budget: int | None = Field(None, ge=1, description="The champion scores so many rows, the highest.")
    audit: float = Field(gt=0, le=1, description="Share of the rejected that the champion scores too, drawn at random.")
    salt: str | None = Field(None, min_length=1, max_length=63, description="Another one draws another audit.")
    positive_at: float = Field(description="From this score of the champion on, a row is what the funnel looks for.")
    min_recall: RecallLevels | None = Field(
        None, description="Levels of the lower end of the recall's interval; told only, when left out."
    )
    confidence: float = Field(0.95, ge=0.5, lt=1, description="Of that interval.")

    @model_validator(mode="after")
    def _cut_in_one_way(self) -> "Funnel":
        ways = [name for name in ("threshold", "share", "budget") if getattr(self, name) is not None]
        if len(ways) != 1:
            raise ValueError(f"{' and '.join(ways) or 'nothing'} to cut by: declare one of threshold, share and budget")
        return self


class Reuse(Declared):
    """Rows that did not change are given the outputs of an earlier run; the bytes are those of scoring all."""

    audit: float = Field(0.01, gt=0, le=1, description="Of the reused rows, that are scored again to compare.")


class Models(Declared):
    champion: Model = Model()
    funnel: Funnel | None = Field(None, description="A cheap model that spares the champion most rows.")
    routes: list[Route] = Field([], max_length=16)
    otherwise: Literal["champion", "quarantine"] = Field(
        "champion", description="What becomes of rows that no route takes."
    )
    challengers: list[Challenger] = Field([], max_length=4)
    reuse: Reuse | None = Field(None, description="Score only rows that changed; all when left out.")

    @model_validator(mode="after")
    def _told_apart(self) -> "Models":
        names = [CHAMPION, *(model.name for model in self._named)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)}: each route and challenger needs a name of its own")
        if self.otherwise == "quarantine" and not self.routes:
            raise ValueError("otherwise: quarantine would set every row aside: there is no route")
        if self.otherwise == "quarantine" and self.funnel:
            raise ValueError("otherwise: quarantine leaves no row to the champion, and none to its funnel")
        if len(serving := [each.name for each in self.challengers if each.serves]) > 1:
            raise ValueError(f"{', '.join(serving)}: one challenger may serve at a time, the others in the shadow")
        return self

    @property
    def variants(self) -> dict[str, Model]:
        """Every model that a run needs, by variant; the champion first."""
        others: dict[str, Model] = {model.name: model for model in self._named}
        return {CHAMPION: self.champion, **others}

    @property
    def _named(self) -> list[Named]:
        """The models beside the champion."""
        return [*([self.funnel] if self.funnel else []), *self.routes, *self.challengers]
