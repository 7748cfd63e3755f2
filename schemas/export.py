"""The contracts as JSON Schema, for editors and for readers in other languages."""

import json

from pydantic import BaseModel

from schemas.bundle import BundleManifest
from schemas.expectations import Suites
from schemas.head import Head
from schemas.pipeline import Pipeline
from schemas.release import LogEntry
from schemas.report import Report
from schemas.retention import RemovedRun
from schemas.run import RunManifest

_CONTRACTS: dict[str, type[BaseModel]] = {
    "pipeline": Pipeline,
    "expectations": Suites,
    "bundle": BundleManifest,
    "run": RunManifest,
    "report": Report,
    "log-entry": LogEntry,
    "head": Head,
    "removed-run": RemovedRun,
}


def json_schemas() -> dict[str, str]:
    """Name -> the text of its JSON Schema, as kept in `schemas/json/<name>.schema.json`."""
    return {name: json.dumps(model.model_json_schema(), indent=2) + "\n" for name, model in _CONTRACTS.items()}
