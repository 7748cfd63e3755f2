"""What a staged run leaves in the store: its manifest, and the columns of its Parquet files."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from schemas.head import ColumnSpec, Layout, Serving

RUN_FORMAT = 2  # of the files' bytes too: what one run id stands for is always the same
MANIFEST_FILE = "manifest.json"
PROFILE_FILE = "profile.json"
REPORT_FILE = "report.json"
REPORT_PAGE = "report.html"
OVERRIDE_FILE = "override.json"
DATA_DOCS = "data_docs"
PREDICTIONS = "predictions"
FEATURES = "features"
QUARANTINE = "quarantine"
PRIORS = "priors"
# What the model that does not serve a row predicts for it, `<challenger>-part-…`: no reader can reach it.
SHADOW = "shadow"
# What moved the predictions that are to be explained; no reader can reach it either.
EXPLANATIONS = "explanations"
# By which a later run knows rows again that did not change, `part-…` as the features; where `models.reuse` is declared.
FINGERPRINTS = "fingerprints"

# What scoring leaves, all of which has to be whole for a run to be scored.
SCORED_PARTS = (PREDICTIONS, FEATURES, QUARANTINE, PRIORS, SHADOW, EXPLANATIONS, FINGERPRINTS)

ENTITY_ID = "entity_id"
REASONS = "reasons"
ROUTE_COLUMNS = ("model", "variant", "status")
SCORED_AT = "scored_at"  # a column only where rows were carried over: their own time, in seconds since 1970, else nil
CHAMPION = "champion"
SCORED, CARRIED, WITHHELD = "scored", "carried", "withheld"
# Columns of a quarantine file, beside key, features and outputs, where the row came that far.
STAGE = "stage"
INPUT_ROW = "input_row"  # the source's row as JSON, of what input rules set aside


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class DataFile(_Record):
    """A Parquet file of the run, relative to the run's folder."""

    path: str
    rows: Annotated[int, Field(ge=0)]
    sha256: str
    size_bytes: int


class SourceFile(_Record):
    """A file that the run read, with its fingerprint."""

    source: str
    path: str
    size_bytes: int
    sha256: str


class Counts(_Record):
    """Every entity is accounted for: entities = scored + carried + quarantined + erased."""

    entities: int
    scored: int
    quarantined: int = Field(description="Set aside, and not served.")
    collapsed: int = Field(description="Identical duplicate rows that were kept once.")
    superseded: int = Field(0, description="Rows of the entity source that a newer row of their key corrected.")
    carried: int = Field(0, description="Set aside, and served their last good prediction.")
    withheld: int = Field(0, description="Of the quarantined, those with a row that says so to readers.")
    reasons: dict[str, int] = Field({}, description="Reason -> rows that were set aside for it.")
    variants: dict[str, int] = Field({}, description="Variant -> rows that it scored, where there are several.")
    dealt: dict[str, int] = Field(
        {}, description="Challenger -> rows that it and what would serve without it scored; funnel -> its audit."
    )
    erased: int = 0

    @property
    def rows(self) -> int:
        """Of the prediction files."""
        return self.scored + self.carried + self.withheld

    @property
    def set_aside(self) -> int:
        return self.carried + self.quarantined


class CarriedFrom(_Record):
    """Where the last good predictions of a run's quarantined entities are from.

    Attributes:
        models: Bundles that made them, beside those of the run.
        variants: Their variants.
    """

    run_id: str
    models: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


class Parity(_Record):
    """What each worker found when it scored the bundle's holdout before anything else."""

    model: str
    rows: int
    max_abs_difference: float
    workers: int
    engines: dict[str, int] = Field(
        {}, description="What scored -> tasks: the tree kernel and its vectors, or the library and why."
    )


class Way(_Record):
    """How the rows came from the source to the predictions: with pyarrow alone, or through Spark; with equal bytes."""

    name: Literal["short", "long"]
    why: str = Field("", description="Why not the short one.")


class Reused(_Record):
    """How many of the scored rows were given the outputs of an earlier run, as they had not changed."""

    base: str | None = Field(None, description="That run.")
    why: str = Field("", description="Why none of its rows is reused, where there is no base.")
    rows: int = 0
    audited: int = Field(0, description="Of the reused rows, scored again, and found equal bit for bit.")


class Stage(_Record):
    """A part of the run: how long it took, and how many rows went in and came out."""

    name: str
    seconds: FiniteFloat | None = None
    rows_in: int | None = None
    rows_out: int | None = None


class RunManifest(_Record):
    """`manifest.json` of a run. Its time and timings are not part of its identity."""

    format: Literal[1] = 1
    pipeline: str
    run_id: str
    date: dt.date
    scored_at: dt.datetime
    declaration: str
    models: dict[str, str] = Field(description="Variant -> bundle id.")
    challengers: dict[str, str] = Field({}, description="Challenger -> digest of its declaration.")
    parameters: dict[str, str] = Field({}, description="What was given, or its default, by name.")
    amends: str | None = Field(None, description="The run whose predictions these are, but for a decision.")
    outputs: tuple[ColumnSpec, ...]
    buckets: int
    counts: Counts
    content: str = Field(description="SHA-256 over the prediction files' digests: equal runs have equal content.")
    verified_content: str | None = Field(None, description="What was verified, before entities were erased.")
    layout: Layout = "bucket"
    serving: Serving = Serving()
    carried_from: CarriedFrom | None = None
    quarantine_removed: dt.date | None = Field(None, description="When the rows set aside were removed, by their age.")
    off: dict[str, str] = Field({}, description="Kinds of checks that are switched off, each with its reason.")
    files: tuple[DataFile, ...]
    sources: tuple[SourceFile, ...]
    parity: tuple[Parity, ...]
    stages: tuple[Stage, ...] = ()
    way: Way | None = None
    scoring: str | None = Field(
        None, description="SHA-256 of all that makes outputs of features, where they are reused."
    )
    reused: Reused | None = None

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.outputs)

    def files_in(self, folder: str) -> list[DataFile]:
        return [file for file in self.files if file.path.startswith(f"{folder}/")]


def columns_of(manifest: RunManifest) -> tuple[ColumnSpec, ...]:
    """The columns of a published row: the outputs, how the entity was routed, and its own time where some have one."""
    before = manifest.carried_from or CarriedFrom(run_id="")
    models = {*manifest.models.values(), *before.models}
    return (
        *manifest.outputs,
        ColumnSpec(name="model", type="enum", values=tuple(sorted(models))),
        ColumnSpec(name="variant", type="enum", values=tuple(sorted({*manifest.models, *before.variants}))),
        ColumnSpec(
            name="status",
            type="enum",
            values=(SCORED, CARRIED, WITHHELD) if manifest.counts.withheld else (SCORED, CARRIED),
        ),
        *([ColumnSpec(name=SCORED_AT, type="int64")] if manifest.counts.carried else []),
    )
