"""Bundles of models that another tool trained, proven on rows that their owner gives."""

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from jobs.bundles import Bundle, check_promises, make_latest, open_bundle, proven_bundle, write_bundle
from jobs.fitting import categories_of, profile_of, with_expected
from jobs.flavors.opening import open_model
from jobs.flavors.original import categories_in, predicted_by_library
from jobs.flavors.scorer import Signature, UnloadableError, UnusableError, as_outputs
from jobs.flavors.soundness import check_indices
from jobs.libraries import library_here
from jobs.matrix import feature_columns
from jobs.mlflowmodel import MlflowModel, mlflow_model
from lookup.store import Store
from schemas.bundle import LABEL_COLUMN, BundleManifest, Feature, TrainingRecord, outputs_of
from schemas.declared import DeclaredPipeline
from schemas.errors import BlockedError, DeclarationError, InputError, Problem
from schemas.pipeline import Training
from schemas.run import CHAMPION
from schemas.settings import Settings
from validation.parity import Floats, max_difference, measure, metric_problems


def import_bundle(
    settings: Settings, declared: DeclaredPipeline, source: str, *, holdout: Path, label: str, variant: str = CHAMPION
) -> Bundle:
    """Make a bundle of an MLflow model and name it the latest of its variant.

    The library that made the model predicts the holdout from its rows as they are; our own way must say the same, to
    the last bit, or nothing is written.

    Args:
        settings: Where the store is.
        declared: The pipeline, whose `training` says what the model's numbers mean.
        source: A local MLflow model directory, or `models:/name@alias`.
        holdout: Parquet or CSV: rows that the model did not learn from, with the columns of its signature.
        label: The holdout's column of what came of them.
        variant: Whose bundle it becomes.

    Raises:
        DeclarationError: the pipeline has other features, or no such variant.
        InputError: the model or the holdout cannot be read, or the predictions differ.
        BlockedError: the model is below a declared floor.
    """
    if variant not in declared.pipeline.models.variants:
        expected = f"one of {', '.join(declared.pipeline.models.variants)}"
        raise DeclarationError(Problem("IMPORT_VARIANT", "--variant", variant, expected))
    with mlflow_model(source) as model:
        table = _holdout(holdout, [*model.inputs, label])
        features = _features(declared, model, table)
        bundle = _made(declared, model, features, table, label, Store(settings.store, declared.name).bundles, variant)
    proven_bundle(bundle.folder, bundle.digest)
    check_promises(bundle, {})
    make_latest(bundle.folder, variant)
    return bundle


def _made(
    declared: DeclaredPipeline,
    model: MlflowModel,
    features: tuple[Feature, ...],
    table: pa.Table,
    label: str,
    bundles: Path,
    variant: str,
) -> Bundle:
    training = declared.pipeline.training
    signature = Signature(features, training.objective, tuple(training.classes))
    labels = _labels(training, table.column(label), f"--label {label}")
    predicted = _compared(model, signature, table)
    metrics = measure(training.objective, labels, predicted)
    floors = training.floors_by_name if variant == CHAMPION else {}
    if problems := metric_problems(metrics, {}, floors, model=model.source):
        raise BlockedError(*problems)
    outputs = outputs_of(training.objective, training.classes)
    kept = table.select(signature.names).append_column(LABEL_COLUMN, pa.array(labels))
    kept = with_expected(kept, outputs, predicted)
    record = TrainingRecord(
        pipeline=declared.name, declaration=declared.digest, snapshot="imported", rows=len(labels),
        holdout_rows=len(labels), start=None, end=None, split=f"imported from {model.source}", label=label,
        params={}, rounds=0, seed=0, variant=variant,
    )  # fmt: skip
    manifest = BundleManifest.model_construct(
        format=1, flavor=model.flavor, library=library_here(model.flavor), objective=training.objective,
        features=features, outputs=outputs, metrics=metrics, floors=floors, training=record, files={},
    )  # fmt: skip
    day = dt.datetime.now(dt.UTC).date().isoformat()
    name = day if variant == CHAMPION else f"{variant}-{day}"
    profile = profile_of(features, table, outputs, predicted)  # the rows that it learned from are not known
    return open_bundle(write_bundle(bundles, name, model.raw, kept, profile, manifest))


def _compared(model: MlflowModel, signature: Signature, table: pa.Table) -> Floats:
    """The outputs of the holdout, which the library and our own way give alike."""
    try:
        scorer = open_model(model.flavor, model.raw, signature)
        if (trained := scorer.feature_names) not in (None, signature.names):
            found = f"signature of {', '.join(signature.names)}"
            raise InputError(Problem("IMPORT_SIGNATURE", model.source, found, ", ".join(trained or ())))
        numbers = scorer.library().predict(feature_columns(signature.features, table, model=model.source))
        expected = predicted_by_library(model.flavor, model.raw, signature, table)
    except (UnloadableError, UnusableError) as err:
        raise InputError(Problem("IMPORT_FLAVOR", model.source, str(err), f"a {model.flavor} model")) from err
    max_difference(*(each.reshape(table.num_rows, -1) for each in (expected, numbers)), model=model.source)
    return as_outputs(signature.classes, numbers)


def _features(declared: DeclaredPipeline, model: MlflowModel, table: pa.Table) -> tuple[Feature, ...]:
    where, kinds = f"{declared.name}/pipeline.yaml: features", declared.pipeline.features
    known = {**dict.fromkeys(kinds.numeric, False), **dict.fromkeys(kinds.categorical, True)}
    if wrong := [name for name in model.inputs if known.get(name) != model.inputs[name]]:
        kind = "categorical" if model.inputs[wrong[0]] else "numeric"
        found = f"the model reads {wrong[0]}, which is not declared as {kind}"
        raise DeclarationError(Problem("IMPORT_SIGNATURE", where, found, "all columns of its signature"))
    try:
        if model.flavor == "lightgbm":
            check_indices(model.raw)
        categories = categories_in(model.flavor, model.raw, [name for name, text in model.inputs.items() if text])
    except UnloadableError as err:
        raise InputError(Problem("IMPORT_FLAVOR", model.source, str(err), f"a {model.flavor} model")) from err
    return tuple(
        Feature(name=name, kind="categorical", categories=categories.get(name) or categories_of(table.column(name)))
        if text
        else Feature(name=name, kind="numeric")
        for name, text in model.inputs.items()
    )


def _holdout(path: Path, columns: list[str]) -> pa.Table:
    try:
        table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    except (OSError, pa.ArrowException) as err:
        expected = "a Parquet file, or a CSV file named .csv"
        raise InputError(Problem("IMPORT_HOLDOUT", f"--holdout {path}", str(err).splitlines()[0], expected)) from err
    if missing := [name for name in columns if name not in table.schema.names]:
        found, expected = f"no column {', '.join(missing)}", "the columns of the signature, and the label"
        raise InputError(Problem("IMPORT_HOLDOUT", f"--holdout {path}", found, expected))
    if table.num_rows == 0:
        raise InputError(Problem("IMPORT_HOLDOUT", f"--holdout {path}", "no row", "rows that it did not learn from"))
    return table


def _labels(training: Training, column: pa.ChunkedArray, where: str) -> Floats:
    try:
        if training.classes:
            column = pc.index_in(pc.cast(column, pa.string()), pa.array(training.classes))
        labels = np.asarray(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowException as err:
        raise InputError(Problem("IMPORT_HOLDOUT", where, str(err).splitlines()[0], "numbers")) from err
    is_known = np.isin(labels, (0.0, 1.0)) if training.objective == "binary" else np.isfinite(labels)
    if not is_known.all():
        expected = {"binary": "0 or 1", "multiclass": ", ".join(training.classes)}.get(training.objective, "a number")
        raise InputError(Problem("IMPORT_HOLDOUT", where, f"{int((~is_known).sum())} other values", expected))
    return labels
