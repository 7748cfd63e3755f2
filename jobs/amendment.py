"""The checks of a run that a decision made of a live one: what of it is new, against what was verified before."""

import datetime as dt
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.measuring import measure_run, private_columns
from jobs.paging import write_page
from jobs.stages import GetSpark
from jobs.verification import passed_report
from lookup.store import Store
from schemas.content import write_atomically
from schemas.decision import Decision
from schemas.declared import DeclaredPipeline
from schemas.report import CheckResult, Family, Report, Verdict
from schemas.run import ENTITY_ID, PREDICTIONS, PROFILE_FILE, QUARANTINE, REPORT_FILE, SCORED, SCORED_PARTS, RunManifest
from validation.coverage import check_entities, check_finite, check_quarantine, check_workers
from validation.gate import Found, evaluated, judge
from validation.measures import Measures

_Check = tuple[str, Family, Callable[[], Found]]


def verify_amended(
    store: Store,
    declared: DeclaredPipeline,
    base: RunManifest,
    manifest: RunManifest,
    decision: Decision,
    spark: GetSpark,
) -> Report:
    """The report of an amended run, written beside it.

    Inputs, features and each model's proof are the base's, which was verified with them. Drift and slices are not
    judged: a challenger that went wrong is the very thing that they would compare with.

    Args:
        store: Of the pipeline.
        declared: As it stands in the files.
        base: The run that was amended.
        manifest: The amended run.
        decision: Why.
        spark: Asked for where there are several files.
    """
    if passed := passed_report(store, manifest):
        return passed
    folder = store.run_folder(manifest.run_id)
    measures = measure_run(folder, manifest, declared.pipeline, spark)
    results = [
        result
        for name, family, check in _checks(store, declared, base, manifest, decision, measures, spark)
        for result in evaluated(name, family, check, limit_seconds=declared.pipeline.checks.limit_seconds)
    ]
    report = Report(
        pipeline=declared.name,
        run_id=manifest.run_id,
        content=manifest.content,
        verified_at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        compared_with=base.run_id,
        verdict=judge(results, required={"inputs", "coverage", "parity", "challenger", "quarantine"}),
        checks=tuple(results),
        off=manifest.off,
        decisions=(str(decision),),
    )
    write_atomically(folder / PROFILE_FILE, measures.model_dump_json() + "\n")
    write_page(store, report)
    # Last, because publish asks for this file: a report that can be read is one that is complete.
    write_atomically(folder / REPORT_FILE, report.model_dump_json(indent=2) + "\n")
    return report


def _checks(
    store: Store, declared: DeclaredPipeline, base: RunManifest, manifest: RunManifest, decision: Decision,
    measures: Measures, spark: GetSpark,
) -> Sequence[_Check]:  # fmt: skip
    outputs, checks = manifest.output_names, declared.pipeline.checks
    return (
        ("files as they were verified", "inputs", lambda: _check_files(store, base, manifest)),
        ("predictions are finite", "coverage", lambda: check_finite(measures.predictions, outputs)),
        ("every entity accounted for", "coverage", lambda: _check_keys(store, base, manifest)),
        ("enough entities", "entities", lambda: check_entities(manifest.counts, base.counts, checks.entities)),
        ("quarantined share", "quarantine", lambda: check_quarantine(manifest.counts, checks.max_quarantined)),
        ("bundle reproduces its holdout", "parity", lambda: check_workers(manifest.parity)),
        ("expectations", "expectations", lambda: _check_expectations(store, declared, manifest, measures, spark)),
        ("decision", "challenger", lambda: _check_decision(store, manifest, decision)),
    )


def _check_files(store: Store, base: RunManifest, manifest: RunManifest) -> CheckResult:
    store.verified(base.run_id)
    damaged = [*store.damage(base, *SCORED_PARTS), *store.damage(manifest, *SCORED_PARTS)]
    return CheckResult(
        name="files as they were verified",
        family="inputs",
        verdict=Verdict.FAIL if damaged else Verdict.PASS,
        observed=str(damaged[0]) if damaged else f"all files of {base.run_id} and of this run are whole",
        expected="each file with the digest that its manifest has",
    )


def _check_keys(store: Store, base: RunManifest, manifest: RunManifest) -> CheckResult:
    """Whether each entity that was served or set aside is so still, and no other is."""
    before, after = _keys(store, base), _keys(store, manifest)
    served = _keys(store, manifest, PREDICTIONS)
    is_same = before.equals(after) and len(served) == manifest.counts.rows == len(pc.unique(served))
    return CheckResult(
        name="every entity accounted for",
        family="coverage",
        verdict=Verdict.PASS if is_same and len(after) else Verdict.FAIL,
        observed=f"{len(after):,} entities, {len(served):,} of them served; {base.run_id} has {len(before):,}",
        expected="the same entities, each served or set aside",
    )


def _keys(store: Store, run: RunManifest, *parts: str) -> pa.Array:
    files = [file for part in parts or (PREDICTIONS, QUARANTINE) for file in run.files_in(part)]
    folder = store.run_folder(run.run_id)
    tables = [pq.read_table(folder / file.path, columns=[ENTITY_ID]).column(ENTITY_ID) for file in files]
    ids = pa.chunked_array([chunk for one in tables for chunk in one.chunks], pa.string()).combine_chunks()
    kept = ids if parts else pc.unique(ids)
    return kept.take(pc.sort_indices(kept))


def _check_expectations(
    store: Store, declared: DeclaredPipeline, manifest: RunManifest, measures: Measures, spark: GetSpark
) -> list[CheckResult]:
    from validation.expectations import Judged, evaluate
    from validation.known import Known

    folder, files = store.run_folder(manifest.run_id), manifest.files_in(PREDICTIONS)
    paths = [str(folder / file.path) for file in files]
    known = Known(pq.read_schema(paths[0]), measures.predictions, frozenset())
    judged = Judged(
        declared.suites.predictions, lambda: spark().read.parquet(*paths).where(f"status = '{SCORED}'"), known
    )
    found = evaluate({"predictions": judged}, private=private_columns(declared.pipeline), run_name=manifest.run_id)
    return list(found.results["predictions"])


def _check_decision(store: Store, manifest: RunManifest, decision: Decision) -> CheckResult:
    """Whether nobody is served under the challenger's name, and each row by a model that the run names."""
    folder, pairs = store.run_folder(manifest.run_id), set(manifest.models.items())
    wrong = 0
    for file in manifest.files_in(PREDICTIONS):
        table = pq.read_table(folder / file.path, columns=["model", "variant", "status"])
        scored = table.filter(pc.equal(table.column("status"), SCORED))
        wrong += sum(
            each["count_all"]
            for each in scored.group_by(["variant", "model"]).aggregate([([], "count_all")]).to_pylist()
            if (each["variant"], each["model"]) not in pairs
        )
    return CheckResult(
        name=f"{decision.kind} of {decision.challenger}",
        family="challenger",
        verdict=Verdict.FAIL if wrong or decision.challenger in manifest.models else Verdict.PASS,
        observed=f"{wrong:,} rows of other models; {decision}",
        expected=f"rows of {', '.join(sorted(manifest.models))} alone",
    )
