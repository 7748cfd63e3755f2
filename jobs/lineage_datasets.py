"""What a stage reads and writes, as OpenLineage's datasets: sources, bundle, predictions, features, the lookup table.

A dataset has one name over all runs; which run's it is, is its version. Imported only where events are told.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from openlineage.client import facet_v2 as facets
from openlineage.client.event_v2 import InputDataset, OutputDataset

from jobs.facts import Facts
from jobs.snapshot import SourceSnapshot
from schemas.head import ColumnSpec
from schemas.report import Report, Verdict
from schemas.run import FEATURES, PREDICTIONS, PROFILE_FILE, QUARANTINE, RunManifest, columns_of
from validation.measures import Measures
from validation.profile import NumericProfile, Profile

_FILES = "file"  # the namespace of paths, as OpenLineage names it


def read_by(facts: Facts) -> list[InputDataset]:
    """What the stage reads, as far as it is known by now."""
    if facts.stage in ("check_inputs", "score"):
        return _sources(facts)
    if facts.stage == "smoke":
        return [InputDataset(*_table(facts), facets=_table_facets(facts))]
    manifest = facts.staged
    if manifest is None:
        return []
    parts = (PREDICTIONS, FEATURES) if facts.stage == "verify" else (PREDICTIONS,)
    return [_staged_input(facts, manifest, part) for part in parts if manifest.files_in(part)]


def written_by(facts: Facts) -> list[OutputDataset]:
    """What the stage wrote; nothing while it runs or where it failed."""
    if facts.error is None and facts.stage == "score" and (manifest := facts.manifest):
        return [
            _staged_output(facts, manifest, part)
            for part in (PREDICTIONS, FEATURES, QUARANTINE)
            if manifest.files_in(part)
        ]
    if facts.published:
        return [OutputDataset(*_table(facts), facets=_table_facets(facts))]
    return []


def _sources(facts: Facts) -> list[InputDataset]:
    if facts.plan is None:
        return []
    found = [_source(source) for source in facts.plan.snapshot.sources.values()]
    bundle = facts.plan.bundle
    model = facets.dataset_version_dataset.DatasetVersionDatasetFacet(bundle.id)
    return [*found, InputDataset(_FILES, str(bundle.folder.parent), facets={"version": model})]


def _source(source: SourceSnapshot) -> InputDataset:
    read = facets.input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
        size=sum(file.size_bytes for file in source.fingerprints), fileCount=len(source.fingerprints)
    )
    told: dict[str, Any] = {"schema": _schema(source.schema)}
    return InputDataset(_FILES, str(source.root), facets=told, inputFacets={"inputStatistics": read})


def _staged_input(facts: Facts, manifest: RunManifest, part: str) -> InputDataset:
    told = facets.input_statistics_input_dataset.InputStatisticsInputDatasetFacet(**_size(manifest, part))
    inputs: dict[str, Any] = {"inputStatistics": told}
    if facts.stage == "verify" and facts.report:
        profile = facts.store.run_folder(manifest.run_id) / PROFILE_FILE
        if profile.is_file():
            measures = Measures.model_validate_json(profile.read_bytes())
            inputs["dataQualityMetrics"] = _metrics(getattr(measures, part))
        if part == PREDICTIONS:
            inputs["dataQualityAssertions"] = _assertions(facts.report)
    return InputDataset(_FILES, _name(facts, part), facets=_staged_facets(facts, manifest, part), inputFacets=inputs)


def _staged_output(facts: Facts, manifest: RunManifest, part: str) -> OutputDataset:
    wrote = facets.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(**_size(manifest, part))
    return OutputDataset(
        _FILES,
        _name(facts, part),
        facets=_staged_facets(facts, manifest, part),
        outputFacets={"outputStatistics": wrote},
    )


def _staged_facets(facts: Facts, manifest: RunManifest, part: str) -> dict[str, Any]:
    file: Path = facts.store.run_folder(manifest.run_id) / manifest.files_in(part)[0].path
    version = facets.dataset_version_dataset.DatasetVersionDatasetFacet(manifest.run_id)
    return {"schema": _schema(pq.read_schema(file)), "version": version}


def _name(facts: Facts, part: str) -> str:
    return str(facts.settings.store / facts.pipeline / part)


def _size(manifest: RunManifest, part: str) -> dict[str, Any]:
    files = manifest.files_in(part)
    size = sum(file.size_bytes for file in files)
    return {"rowCount": sum(file.rows for file in files), "size": size, "fileCount": len(files)}


def _table(facts: Facts) -> tuple[str, str]:
    """Namespace and name of the table in Redis; no user and no password."""
    url = facts.settings.redis_url
    if url is None:
        return f"redis:{facts.settings.store}", facts.pipeline
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
    return f"redis://{place}", facts.pipeline


def _table_facets(facts: Facts) -> dict[str, Any]:
    live = facts.store.live()
    if live is None:
        return {}
    columns = columns_of(facts.store.manifest(live.run_id))
    version = facets.dataset_version_dataset.DatasetVersionDatasetFacet(str(live.release))
    return {"schema": _schema(columns), "version": version}


def _schema(columns: Iterable[pa.Field | ColumnSpec]) -> facets.schema_dataset.SchemaDatasetFacet:
    field = facets.schema_dataset.SchemaDatasetFacetFields
    return facets.schema_dataset.SchemaDatasetFacet([field(each.name, str(each.type)) for each in columns])


def _metrics(profile: Profile) -> facets.data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet:
    of = facets.data_quality_metrics_input_dataset
    columns = {
        name: of.ColumnMetrics(
            nullCount=column.nulls,
            count=column.count,
            min=column.min if isinstance(column, NumericProfile) else None,
            max=column.max if isinstance(column, NumericProfile) else None,
        )
        for name, column in profile.columns.items()
    }
    return of.DataQualityMetricsInputDatasetFacet(columns, rowCount=profile.rows)


def _assertions(report: Report) -> facets.data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet:
    of = facets.data_quality_assertions_dataset
    return of.DataQualityAssertionsDatasetFacet(
        [
            of.Assertion(
                assertion=check.family,
                name=check.name,
                success=check.verdict is Verdict.PASS,
                severity="warn" if check.verdict is Verdict.WARN else "error",
                expected=check.expected,
                actual=check.observed,
            )
            for check in report.checks
        ]
    )
