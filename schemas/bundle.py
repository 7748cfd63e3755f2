"""The manifest of a model bundle: all that is needed to trust it, and nothing that can run."""

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

MANIFEST_FILE = "manifest.json"
HOLDOUT_FILE = "holdout.parquet"
PROFILE_FILE = "profile.json"
LABEL_COLUMN = "__label"
GROUP_COLUMN = "__group"
EXPECTED_COLUMN = "__expected"

Flavor = Literal["lightgbm", "sklearn", "onnx", "linear", "ensemble"]
Objective = Literal["binary", "regression", "multiclass", "ranking"]

# How each flavor keeps its model. None of these files can hold code that is run when it is read.
MODEL_FILES: dict[Flavor, str] = {
    "lightgbm": "model.txt",
    "sklearn": "model.skops",
    "onnx": "model.onnx",
    "linear": "model.json",
    "ensemble": "ensemble.json",
}
SCORE = "score"
CLASS = "class"
MAX_OUTPUTS = 11  # a published row has 15 columns, four of which say how the entity was routed and when


class Contract(BaseModel):
    """What the files of a bundle are read as: nothing unknown in them, and no number that is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Feature(Contract):
    """One input column of the model, in the order it was trained with.

    Attributes:
        kind: A numeric column is read as float64, a categorical one as string.
        categories: Values seen in training, sorted; the index is the model's code. A value that is not
            among them, or null, is missing to the model: it can neither crash nor shift a code.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    categories: tuple[str, ...] = ()


class Output(Contract):
    """One number that the model predicts for a row.

    Attributes:
        values: Names of the numbers 0, 1, ...: readers are answered the name. None, where the number speaks for itself.
    """

    name: str
    type: Literal["float64"] = "float64"
    values: tuple[str, ...] = ()


def outputs_of(objective: Objective, classes: Sequence[str] = ()) -> tuple[Output, ...]:
    """What a model of this objective predicts: a score; or the probability of each class, and the likeliest of them.

    The probability of the first class is the output that slices, drift of groups and comparisons of two runs look at.
    """
    if objective != "multiclass":
        return (Output(name=SCORE),)
    return (*(Output(name=f"p_{name}") for name in classes), Output(name=CLASS, values=tuple(classes)))


def expected_columns(outputs: Sequence[Output]) -> list[str]:
    """Columns of the holdout that hold what was predicted for it, one an output."""
    return [EXPECTED_COLUMN, *(f"{EXPECTED_COLUMN}_{output.name}" for output in outputs[1:])]


class BundleFile(Contract):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=1)]


class TrainingRecord(Contract):
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
    estimator: str | None = None
    params: dict[str, str | int | float | bool]
    rounds: int
    seed: int
    variant: str = "champion"


class BundleManifest(Contract):
    """`manifest.json` of a bundle."""

    format: Literal[1] = 1
    flavor: Flavor = "lightgbm"
    library: str = Field(description="The library's version at training, for example `lightgbm 4.7.0`.")
    objective: Objective
    features: tuple[Feature, ...] = Field(min_length=1)
    outputs: tuple[Output, ...] = Field(min_length=1, max_length=MAX_OUTPUTS)
    metrics: dict[str, float]
    floors: dict[str, float]
    training: TrainingRecord
    files: dict[str, BundleFile]

    @field_validator("files")
    @classmethod
    def _exactly(cls, files: dict[str, BundleFile], info: ValidationInfo) -> dict[str, BundleFile]:
        expected = {MODEL_FILES[info.data.get("flavor", "lightgbm")], HOLDOUT_FILE, PROFILE_FILE}
        if set(files) != expected:
            # A bundle from before there was a profile leaves nothing to compare a run with.
            wanted, found = (", ".join(sorted(map(str, names))) for names in (expected, files))
            raise ValueError(f"must be exactly {wanted}; found {found or 'none'}: train the model again")
        return files

    @property
    def model_file(self) -> str:
        return MODEL_FILES[self.flavor]

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.outputs)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of a multiclass model's classes, in the order of its probabilities."""
        return self.outputs[-1].values

    @model_validator(mode="after")
    def _complete(self) -> "BundleManifest":
        if self.outputs != outputs_of(self.objective, self.classes):
            raise ValueError(f"outputs are not those of a {self.objective} model")
        if unmeasured := set(self.floors) - set(self.metrics):
            raise ValueError(f"a floor without its metric: {', '.join(sorted(unmeasured))}")
        return self
