"""The manifest of a model bundle: all that is needed to trust it, and nothing that can run."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.txt"
HOLDOUT_FILE = "holdout.parquet"
PROFILE_FILE = "profile.json"
LABEL_COLUMN = "__label"
EXPECTED_COLUMN = "__expected"


class _Contract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Feature(_Contract):
    """One input column of the model, in the order it was trained with.

    Attributes:
        kind: A numeric column is read as float64, a categorical one as string.
        categories: Values seen in training, sorted; the index is the model's code. A value that is not
            among them, or null, is missing to the model: it can neither crash nor shift a code.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    categories: tuple[str, ...] = ()


class Output(_Contract):
    name: str
    type: Literal["float64"] = "float64"


class BundleFile(_Contract):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=1)]


class TrainingRecord(_Contract):
    """How the bundle came to be, so that it can be traced and made again."""

    pipeline: str
    declaration: str
    snapshot: str
    rows: int
    holdout_rows: int
    start: dt.date | None
    end: dt.date | None
    split: str
    label: str
    params: dict[str, str | int | float | bool]
    rounds: int
    seed: int
    variant: str = "champion"


class BundleManifest(_Contract):
    """`manifest.json` of a bundle."""

    format: Literal[1] = 1
    flavor: Literal["lightgbm", "ensemble"] = "lightgbm"
    library: str = Field(description="The library's version at training, for example `lightgbm 4.7.0`.")
    objective: Literal["binary", "regression"]
    features: tuple[Feature, ...] = Field(min_length=1)
    outputs: tuple[Output, ...] = Field(min_length=1, max_length=1)
    metrics: dict[str, float]
    floors: dict[str, float]
    training: TrainingRecord
    files: dict[str, BundleFile]

    @field_validator("files")
    @classmethod
    def _exactly(cls, files: dict[str, BundleFile]) -> dict[str, BundleFile]:
        if set(files) != {MODEL_FILE, HOLDOUT_FILE, PROFILE_FILE}:
            # A bundle from before there was a profile leaves nothing to compare a run with.
            wanted, found = (", ".join(sorted(names)) for names in ((MODEL_FILE, HOLDOUT_FILE, PROFILE_FILE), files))
            raise ValueError(f"must be exactly {wanted}; found {found or 'none'}: train the model again")
        return files

    @model_validator(mode="after")
    def _complete(self) -> "BundleManifest":
        if unmeasured := set(self.floors) - set(self.metrics):
            raise ValueError(f"a floor without its metric: {', '.join(sorted(unmeasured))}")
        return self
