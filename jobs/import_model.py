"""`almanac import-model`: a bundle of a model that another tool trained."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import Console
from jobs.options import Json, PipelineName
from jobs.unexpected import check_store
from schemas.declared import load_pipeline
from schemas.run import CHAMPION
from schemas.settings import Settings


def import_model(
    pipeline: PipelineName,
    source: Annotated[str, typer.Argument(metavar="MODEL", help="An MLflow model directory, or models:/name@alias.")],
    holdout: Annotated[Path, typer.Option("--holdout", help="Parquet or CSV: rows that it did not learn from.")],
    label: Annotated[str, typer.Option("--label", help="The column of the holdout that says what came of them.")],
    variant: Annotated[str, typer.Option("--variant", help="Whose bundle it becomes.")] = CHAMPION,
    as_json: Json = False,
) -> None:
    """Make a bundle of a model that another tool trained, and make it the latest."""
    from jobs.importing import import_bundle  # it loads the libraries of models

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    with console.step("import") as step:
        declared = load_pipeline(settings, pipeline)
        bundle = import_bundle(settings, declared, source, holdout=holdout, label=label, variant=variant)
        step.detail = f"bundle {bundle.id}: {bundle.manifest.training.rows:,} rows reproduced to the last bit"
    console.table(["metric", "on the holdout"], list(bundle.manifest.metrics.items()))
    console.result({"bundle": bundle.id, "folder": str(bundle.folder), "metrics": bundle.manifest.metrics})
