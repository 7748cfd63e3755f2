"""The declaration of a pipeline: what `pipeline.yaml` may say."""

import datetime as dt
import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from schemas.bundle import MAX_OUTPUTS, Objective
from schemas.checks import Checks, Quarantine, Rule
from schemas.explain import Explain
from schemas.models import Models
from schemas.parameters import RESERVED, Parameter
from schemas.publication import Fallback, Freshness, Publish
from schemas.retention import Retention
from schemas.scheduling import Airflow
from schemas.strict import Column, Declared, Name, invalid

# The DAG `almanac_<name>` is not a pipeline's.
MAINTENANCE = "maintenance"

ColumnType = Literal["string", "int32", "int64", "float32", "float64", "bool", "date", "timestamp"]


class Corrections(Declared):
    """Which of several rows of one thing counts: the newest. A feed that only appends corrects itself so."""

    by: Column = Field(description="The column that tells: the row with its largest value is read, the others are not.")
    key: list[Column] | None = Field(
        None, min_length=1, max_length=8, description="The columns that name the thing; entity.key, when left out."
    )


class Source(Declared):
    """A table that features.sql may read under its declared name."""

    path: str = Field(
        min_length=1, description="A file or folder, relative to the folder that holds dags/; ${VARIABLES} allowed."
    )
    format: Literal["parquet", "csv"] = "parquet"
    delimiter: str = Field(",", min_length=1, max_length=1, description="Of a CSV file.")
    partition_by: Column | None = Field(
        None, description="The date column of the layout `<path>/<column>=YYYY-MM-DD/`."
    )
    days: int = Field(
        1, ge=1, le=366, description="Partitions that a run reads: the logical date and the days after it."
    )
    required_days: int | None = Field(None, ge=1, description="How many of these must be there; all, when left out.")
    columns: dict[Column, ColumnType] = Field(
        default={}, description="The schema contract: columns that must be there, with their types."
    )
    min_rows: int | None = Field(None, ge=1, description="Rows that must be there, in all files of a run together.")
    max_age_days: int | None = Field(
        None, ge=1, description="The newest file was written at most this many days before the logical date."
    )
    forbidden: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="Columns that features.sql may not see: they leak the outcome."
    )

    corrections: Corrections | None = Field(None, description="Several rows of one key are versions of one row.")

    @model_validator(mode="after")
    def _consistent(self) -> "Source":
        if self.format == "csv" and self.partition_by:
            raise ValueError("a CSV source is one file: partition_by is for Parquet")
        if self.required_days is not None and self.required_days > self.days:
            raise ValueError(f"required_days {self.required_days} is more than days {self.days}")
        if self.format == "csv" and (typed := [name for name, kind in self.columns.items() if kind != "string"]):
            raise ValueError(f"{', '.join(typed)}: CSV columns are read as string; cast them in features.sql")
        return self

    @property
    def days_required(self) -> int:
        return self.days if self.required_days is None else self.required_days


class Entity(Declared):
    """What is scored: the rows of one source, named by their key columns."""

    source: Name = Field(description="The source that lists every known entity.")
    key: list[Column] = Field(min_length=1, max_length=8, description="The columns that name an entity, in order.")


class Features(Declared):
    """The columns that features.sql computes and the models read."""

    sql: str = Field("features.sql", description="A Spark SQL query beside this file; `:ds` is the logical date.")
    numeric: list[Column] = Field([])
    categorical: list[Column] = Field([])

    @property
    def columns(self) -> list[str]:
        return [*self.numeric, *self.categorical]

    @model_validator(mode="after")
    def _some_and_distinct(self) -> "Features":
        if not self.columns:
            raise ValueError("no feature is declared: name at least one under numeric or categorical")
        if twice := _twice(self.columns):
            raise ValueError(f"declared twice: {', '.join(twice)}")
        return self


class Split(Declared):
    """What is trained on and what is held out: by time, or at random by entity."""

    by: str | None = Field(None, description="A Spark SQL date or timestamp expression over the entity source.")
    at: dt.date | None = Field(None, description="Rows before this day are trained on; from it on they are held out.")
    holdout_share: float | None = Field(None, gt=0, lt=1, description="Held out at random, by a hash of the entity id.")

    @model_validator(mode="after")
    def _one_kind(self) -> "Split":
        if (self.by is None) != (self.at is None) or (self.by is None) == (self.holdout_share is None):
            raise ValueError("declare either `by` and `at` (by time), or `holdout_share` (at random)")
        return self


_FLOORS: dict[Objective, tuple[str, ...]] = {
    "binary": ("auc",),
    "regression": ("r2",),
    "multiclass": ("accuracy",),
    "ranking": ("spearman", "ndcg"),
}


class Training(Declared):
    """How the bundle is made."""

    label: str = Field(
        min_length=1, description="A Spark SQL expression over the entity source; NULL rows are left out."
    )
    objective: Objective = "binary"
    classes: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,40}$")]] = Field(
        [], max_length=MAX_OUTPUTS - 1, description="Of multiclass: the values of the label, in the order of outputs."
    )
    group: str | None = Field(
        None,
        min_length=1,
        description="Of ranking: a Spark SQL expression; rows where it is equal are ranked together.",
    )
    flavor: Literal["lightgbm", "sklearn", "linear"] = Field("lightgbm", description="What kind of model is trained.")
    estimator: Literal["hist_gradient_boosting", "random_forest", "logistic_regression"] | None = Field(
        None, description="Of flavor sklearn: which of its estimators."
    )
    start: dt.date | None = Field(
        None, description="First partition day; needed when the entity source is partitioned."
    )
    end: dt.date | None = Field(None, description="Last partition day.")
    window_days: int | None = Field(
        None,
        ge=1,
        description="Days that features.sql reads at once in training; as many as a run when left out. "
        "More is faster, and right where the query looks at each day by itself.",
    )
    split: Split
    params: dict[str, str | int | float | bool] = Field(
        default={}, description="Parameters of LightGBM, or of the estimator."
    )
    rounds: int = Field(200, ge=1, le=10_000, description="Trees to grow.")
    seed: int = Field(7, ge=0, lt=2**31)
    floors: dict[Literal["auc", "r2", "accuracy", "spearman", "ndcg"], float] = Field(
        default={}, description="Holdout metrics below which no bundle is made or used."
    )

    @field_validator("params", mode="before")
    @classmethod
    def _plain_values(cls, params: Any) -> Any:
        # Here, because a union reports each of its four types in turn.
        for name, value in params.items() if isinstance(params, dict) else ():
            if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
                raise invalid(f"found {value!r}; expected text, a number, true or false", str(name))
        return params

    @model_validator(mode="after")
    def _ordered(self) -> "Training":
        if (self.start is None) != (self.end is None):
            raise ValueError("declare both start and end, or neither")
        if self.start and self.end and self.start > self.end:
            raise ValueError(f"start {self.start} is after end {self.end}")
        wrong = set(self.floors) - set(_FLOORS[self.objective])
        if wrong:
            raise ValueError(f"a {self.objective} model has no metric {', '.join(sorted(wrong))}")
        return self

    @property
    def floors_by_name(self) -> dict[str, float]:
        """The floors as a bundle keeps them."""
        return {str(name): floor for name, floor in self.floors.items()}

    @model_validator(mode="after")
    def _fitting(self) -> "Training":
        if (self.objective == "multiclass") != bool(self.classes):
            raise ValueError("declare classes for multiclass, and for nothing else")
        if self.classes and (len(self.classes) < 3 or _twice(self.classes)):  # two are binary
            raise ValueError(f"classes {', '.join(self.classes)}: expected three or more, told apart in lower case")
        if (self.objective == "ranking") != (self.group is not None):
            raise ValueError("declare group for ranking, and for nothing else")
        if (self.flavor == "sklearn") != (self.estimator is not None):
            raise ValueError("declare estimator for flavor sklearn, and for no other")
        if self.objective == "ranking" and self.flavor != "lightgbm":
            raise ValueError(f"flavor {self.flavor} does not rank: leave it at lightgbm")
        if self.objective == "regression" and self.estimator == "logistic_regression":
            raise ValueError("logistic_regression predicts no number: take another estimator, or flavor linear")
        return self


class Pipeline(Declared):
    """One declared pipeline."""

    pipeline: Name
    description: str = Field(min_length=1)
    owner: str = Field(min_length=1)
    schedule: str | None = Field("@daily", description="Cron or preset of Airflow; null for manual runs only.")
    start: dt.date = Field(description="The first logical date.")
    tags: list[str] = Field([])
    entity: Entity
    sources: dict[Name, Source] = Field(min_length=1)
    parameters: dict[Name, Parameter] = Field({}, description="Values that are given when it runs, by name.")
    features: Features
    rules: list[Rule] = Field([])
    quarantine: Quarantine = Quarantine()
    models: Models = Models()
    explain: Explain | None = Field(None, description="What moved each prediction is stored beside it.")
    training: Training
    checks: Checks = Checks()
    fallback: Fallback = Fallback()
    freshness: Freshness = Freshness()
    publish: Publish = Publish()
    retention: Retention = Retention()
    airflow: Airflow = Airflow()

    @model_validator(mode="after")
    def _references(self) -> "Pipeline":
        source = self.sources.get(self.entity.source)
        if source is None:
            known = ", ".join(self.sources)
            raise invalid(f"'{self.entity.source}' is not declared under sources: {known}", "entity", "source")
        forbidden = {column.lower() for column in source.forbidden}
        if hidden := [column for column in self.entity.key if column.lower() in forbidden]:
            raise invalid(f"key columns may not be forbidden: {', '.join(hidden)}", "entity", "key")
        if taken := sorted(RESERVED & set(self.parameters)):
            raise invalid("is a name that every run has already: another one", "parameters", taken[0])
        if twice := _twice(self.entity.key):
            raise invalid(f"declared twice: {', '.join(twice)}", "entity", "key")
        if source.columns and (
            missing := [k for k in self.entity.key if k not in source.columns and k != source.partition_by]
        ):
            found = f"{', '.join(missing)} is not a column of source '{self.entity.source}'"
            raise invalid(found, "entity", "key")
        for name, other in self.sources.items():
            if name != self.entity.source and other.corrections and other.corrections.key is None:
                raise invalid(
                    "is missing: only the entity source has one by itself", "sources", name, "corrections", "key"
                )
        if self.checks.slices:
            columns = {*self.features.columns, *self.entity.key}
            slices = self.checks.slices
            for place, named in (
                ("columns", slices.columns),
                ("pairs", [name for pair in slices.pairs for name in pair]),
            ):
                if unknown := [column for column in named if column not in columns]:
                    found = f"{', '.join(unknown)} is neither a feature nor a key column"
                    raise invalid(found, "checks", "slices", place)
        funnel = self.models.funnel
        if funnel and (unknown := [name for name in funnel.features or () if name not in self.features.columns]):
            raise invalid(f"{', '.join(unknown)} is not a declared feature", "models", "funnel", "features")
        for position, segment in enumerate(self.fallback.segments):
            if unknown := [column for column in segment if column not in self.entity.key]:
                found = f"{', '.join(unknown)} is not a key column: {', '.join(self.entity.key)}"
                raise invalid(found, "fallback", "segments", str(position))
        if bool(source.partition_by) != bool(self.training.start):
            raise invalid("start and end go with a partitioned entity source, and it with them", "training", "start")
        if twice := _twice([rule.name for rule in self.rules]):
            raise invalid(f"declared twice: {', '.join(twice)}", "rules")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+\.sql", self.features.sql):
            raise invalid(f"{self.features.sql!r} must be the name of a .sql file beside this one", "features", "sql")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+\.ya?ml", self.checks.expectations):
            found = f"{self.checks.expectations!r} must be the name of a .yaml file beside this one"
            raise invalid(found, "checks", "expectations")
        return self

    def corrected_by(self, name: str) -> tuple[str, list[str]] | None:
        """The column by which a source's rows correct one another, and their key; None where they do not."""
        corrections = self.sources[name].corrections
        return (corrections.by, corrections.key or self.entity.key) if corrections else None

    @model_validator(mode="after")
    def _of_one_number(self) -> "Pipeline":
        training, combining = self.training, [name for name, model in self.models.variants.items() if model.combine]
        is_one_number = training.objective in ("binary", "regression")
        if combining and not (training.flavor == "lightgbm" and is_one_number):
            found = f"{training.flavor}, {training.objective}: a combination is of LightGBM models of one number"
            raise invalid(found, "models", combining[0], "combine")
        if self.checks.calibration and not is_one_number:
            raise invalid(
                f"{training.objective}: only a number can be compared with what came", "checks", "calibration"
            )
        return self

    @model_validator(mode="after")
    def _scheduled(self) -> "Pipeline":
        if self.pipeline == MAINTENANCE:
            raise invalid(f"'{MAINTENANCE}' is the name of the DAG that maintains all pipelines", "pipeline")
        if unknown := [name for name in self.airflow.assets if name not in self.sources]:
            known = ", ".join(self.sources)
            raise invalid(f"'{unknown[0]}' is not declared under sources: {known}", "airflow", "assets", unknown[0])
        if self.pipeline in self.airflow.after:
            raise invalid("a pipeline cannot wait for its own release", "airflow", "after")
        if twice := _twice(self.airflow.after):
            raise invalid(f"declared twice: {', '.join(twice)}", "airflow", "after")
        if self.airflow.end_date and self.airflow.end_date < self.start:
            raise invalid(f"end_date {self.airflow.end_date} is before start {self.start}", "airflow", "end_date")
        return self


def _twice(names: list[str]) -> list[str]:
    """Names that stand there more than once; Spark does not tell upper from lower case."""
    folded = [name.lower() for name in names]
    return sorted({name for name in folded if folded.count(name) > 1})
