"""The part of the declaration that judges a run: row rules, levels, and what each kind of check is to look at."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.strict import Column, Declared, Name, Share

Measure = Literal["psi", "js", "ks"]
# What may be switched off. Inputs, coverage and parity may not: without them nothing else that is said of a run holds.
Switchable = Literal["quarantine", "entities", "expectations", "drift", "slices", "calibration", "churn"]


class Rule(Declared):
    """A row rule: entities whose row fails it are quarantined, the others go on."""

    name: Name
    check: str = Field(min_length=1, description="A Spark SQL predicate over the columns of that place; NULL fails.")
    on: Literal["inputs", "features", "predictions"] = Field(
        "features",
        description="`inputs`: the entity source's columns, before features.sql sees the row. `features`: key and "
        "features. `predictions`: key, features and outputs.",
    )


class Quarantine(Declared):
    """What readers get for an entity whose row was set aside."""

    serve: Literal["carried", "prior", "nothing"] = Field(
        "prior",
        description="`carried`: its last good prediction, with the time of that one. `prior`: what an unknown entity "
        "gets. `nothing`: `unknown`, whatever priors and defaults there are.",
    )
    carry_hours: float = Field(168, gt=0, description="A carried prediction is at most this old at the logical date.")


class Levels(Declared):
    """Where a measure is watched and where it stops the run."""

    warn: float = Field(ge=0)
    fail: float | None = Field(None, ge=0, description="Left out, the measure never stops a run by itself.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.fail is not None and self.warn > self.fail:
            raise ValueError(f"warn {self.warn} is above fail {self.fail}")
        return self


class LiveDrift(Declared):
    """Levels against the live release."""

    scores: Levels = Levels(warn=0.1, fail=0.25)
    features: Levels = Levels(warn=0.25)


class TrainingDrift(Declared):
    """Levels against the rows that the model was trained on."""

    scores: Levels = Levels(warn=0.25)
    features: Levels = Levels(warn=0.5)


class Drift(Declared):
    """How far predictions and features may move, and how often that may be said of data that did not."""

    measure: Measure = Field("psi", description="Which of the three the levels are of; all are measured.")
    live: LiveDrift = LiveDrift()
    training: TrainingDrift = TrainingDrift()
    false_alarm_rate: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="Chance that any of a baseline's columns is called drifted where none is, over all of them (Holm).",
    )


class Slices(Declared):
    """Groups whose predictions are watched."""

    columns: list[Column] = Field(min_length=1, description="Each a group for each of its values.")
    pairs: list[Annotated[list[Column], Field(min_length=2, max_length=2)]] = Field(
        default=[], description="Two columns: a group for each pair of values."
    )
    min_rows: int = Field(50, ge=1, description="Groups smaller than this are not judged.")
    shift: Levels = Field(Levels(warn=0.15, fail=0.3), description="Absolute change of the mean against live.")
    positive_at: float | None = Field(None, description="From this score on a row counts as positive (selected).")
    min_selection_ratio: Share | None = Field(
        None,
        description="Positive rate of a group over that of the highest one: below it warns; "
        "where its whole interval is below, it fails. 0.8 is the four-fifths rule.",
    )
    confidence: float = Field(0.95, ge=0.5, lt=1, description="Of every interval.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_selection_ratio is not None and self.positive_at is None:
            raise ValueError("min_selection_ratio needs positive_at: the score from which a row is selected")
        groups = [*([column] for column in self.columns), *self.pairs]
        if len({tuple(sorted(group)) for group in groups}) < len(groups) or any(len(set(g)) < len(g) for g in groups):
            raise ValueError("the same group twice")
        return self

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """What is grouped by: each column, then each pair."""
        return [*((column,) for column in self.columns), *(tuple(pair) for pair in self.pairs)]


class Calibration(Declared):
    """Predictions of an earlier release against what came of them, once `training.label` is known."""

    after_days: int = Field(ge=1, description="Days after its logical date from which a release's labels are known.")
    error: Levels = Field(
        Levels(warn=0.05, fail=0.2),
        description="Absolute difference of mean prediction and mean label in a group, beyond the label's interval.",
    )
    min_rows: int = Field(100, ge=10, description="Groups with fewer labels are not judged.")


class Churn(Declared):
    """How much of the live release a run may add, remove or change: shares of its entities."""

    max_added: Share | None = None
    max_removed: Share | None = None
    max_changed: Share | None = Field(None, description="Entities whose first output moves by more than `tolerance`.")
    tolerance: float = Field(0.0, ge=0)


class Off(Declared):
    """A kind of check that is switched off, on purpose."""

    check: Switchable
    reason: str = Field(min_length=1, description="Shown in the manifest and on every report.")


class Entities(Declared):
    """How many entities a run must have."""

    min: int = Field(1, ge=1)
    max_change: float = Field(0.5, gt=0, description="Largest relative change against the live release.")


class Checks(Declared):
    """What a run must pass before it is published."""

    expectations: str = Field("expectations.yaml", description="Great Expectations suites beside this file.")
    max_quarantined: Share = Field(0.05, description="Share of entities above which the whole run fails.")
    entities: Entities = Entities()
    drift: Drift = Drift()
    slices: Slices | None = None
    calibration: Calibration | None = None
    churn: Churn | None = None
    limit_seconds: int = Field(900, ge=1, description="A check that takes longer has failed.")
    off: list[Off] = Field([], description="Kinds of checks that are switched off, each with its reason.")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({off.check for off in self.off}) < len(self.off):
            raise ValueError("the same check switched off twice")
        return self

    @property
    def switched_off(self) -> dict[str, str]:
        """Kind of check -> reason."""
        return {off.check: off.reason for off in self.off}
