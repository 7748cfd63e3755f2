"""What a staged run leaves in the store: its manifest, and the columns of its Parquet files."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.head import ColumnSpec, Layout, Serving

RUN_FORMAT = 1
MANIFEST_FILE = "manifest.json"
PROFILE_FILE = "profile.json"
REPORT_FILE = "report.json"
REPORT_PAGE = "report.html"
PREDICTIONS = "predictions"
FEATURES = "features"
QUARANTINE = "quarantine"
PRIORS = "priors"

ENTITY_ID = "entity_id"
REASONS = "reasons"
ROUTE_COLUMNS = ("model", "variant", "status")
SCORED_AT = "scored_at"  # a column only where rows were carried over: their own time, in seconds since 1970, else nil
CHAMPION = "champion"
SCORED, CARRIED = "scored", "carried"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
    """Every entity is accounted for: entities = scored + quarantined + erased."""

    entities: int
    scored: int
    quarantined: int
    collapsed: int = Field(description="Identical duplicate rows that were kept once.")
    reasons: dict[str, int] = {}
    erased: int = 0


class Parity(_Record):
    """What each worker found when it scored the bundle's holdout before anything else."""

    model: str
    rows: int
    max_abs_difference: float
    workers: int


class RunManifest(_Record):
    """`manifest.json` of a run. Its time and timings are not part of its identity."""

    format: Literal[1] = 1
    pipeline: str
    run_id: str
    date: dt.date
    scored_at: dt.datetime
    declaration: str
    models: dict[str, str] = Field(description="Variant -> bundle id.")
    outputs: tuple[ColumnSpec, ...]
    buckets: int
    counts: Counts
    content: str = Field(description="SHA-256 over the prediction files' digests: equal runs have equal content.")
    verified_content: str | None = Field(None, description="What was verified, before entities were erased.")
    layout: Layout = "bucket"
    serving: Serving = Serving()
    files: tuple[DataFile, ...]
    sources: tuple[SourceFile, ...]
    parity: tuple[Parity, ...]
    seconds: dict[str, float] = {}

    def files_in(self, folder: str) -> list[DataFile]:
        return [file for file in self.files if file.path.startswith(f"{folder}/")]


def columns_of(manifest: RunManifest) -> tuple[ColumnSpec, ...]:
    """The columns of a published row: the outputs, then how the entity was routed."""
    return (
        *manifest.outputs,
        ColumnSpec(name="model", type="enum", values=tuple(sorted(set(manifest.models.values())))),
        ColumnSpec(name="variant", type="enum", values=tuple(sorted(manifest.models))),
        ColumnSpec(name="status", type="enum", values=(SCORED, CARRIED)),
    )
