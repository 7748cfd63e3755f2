"""Prometheus metrics of runs: a job that ends cannot be scraped, so it leaves a file, or tells a Pushgateway.

Each stage has a file and a group of its own, because each may be a process of its own. What a stage does not tell this
time, such as when it last succeeded, stays as it was told.
"""

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.facts import Facts
from schemas.content import write_atomically
from schemas.report import Verdict

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

PUSH_SECONDS = 5.0
_JOB = "almanac"


def tell_metrics(facts: Facts) -> None:
    """Leave the metrics of a stage that ended where they were asked for.

    Raises:
        OSError: the folder cannot be written, or the Pushgateway does not answer.
        ModuleNotFoundError: the extra `watch` is not installed.
    """
    settings = facts.settings
    registry = stage_metrics(facts)
    if settings.metrics_folder:
        _write(settings.metrics_folder / f"{_JOB}_{facts.pipeline}_{facts.stage}.prom", registry)
    if settings.pushgateway:
        from prometheus_client import pushadd_to_gateway

        group = {"pipeline": facts.pipeline, "stage": facts.stage}
        pushadd_to_gateway(settings.pushgateway, job=_JOB, registry=registry, grouping_key=group, timeout=PUSH_SECONDS)


def stage_metrics(facts: Facts) -> "CollectorRegistry":
    """The metrics of one stage that ended."""
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float, **labels: str) -> None:
        """A metric of this pipeline, with one more value where it has labels."""
        known = metrics.get(name) or Gauge(name, text, ("pipeline", *labels), registry=registry)
        metrics[name] = known
        known.labels(facts.pipeline, *labels.values()).set(value)

    metrics: dict[str, Gauge] = {}
    stage, ended = facts.stage, facts.started.timestamp() + facts.seconds
    gauge("almanac_stage_duration_seconds", "What the stage took.", facts.seconds, stage=stage)
    gauge("almanac_stage_success", "1 where it came to its end.", facts.error is None, stage=stage)
    gauge("almanac_stage_end_timestamp_seconds", "When it ended, well or not.", ended, stage=stage)
    if facts.error is None:
        gauge("almanac_stage_last_success_timestamp_seconds", "When it last came to its end.", ended, stage=stage)
    if facts.manifest and stage == "score":
        counts = facts.manifest.counts
        for kind in ("scored", "carried", "quarantined", "withheld"):
            gauge("almanac_run_entities", "Entities of the run.", getattr(counts, kind), kind=kind)
    if facts.report:
        for verdict in Verdict:
            is_it = facts.report.verdict is verdict
            gauge("almanac_run_verdict", "1 for the verdict of the run.", is_it, verdict=verdict)
            tally = sum(check.verdict is verdict for check in facts.report.checks)
            gauge("almanac_run_checks", "Checks of the run that ended so.", tally, verdict=verdict)
    if facts.published and (live := facts.store.live()):
        manifest = facts.store.manifest(live.run_id)
        scored, limit = manifest.scored_at.timestamp(), manifest.serving.stale_after_seconds
        gauge("almanac_release_number", "The live release.", live.release)
        gauge("almanac_release_entities", "Its rows.", manifest.counts.rows)
        gauge("almanac_release_scored_timestamp_seconds", "When it was scored.", scored)
        if limit:
            gauge("almanac_release_stale_after_seconds", "The age from which it is stale.", limit)
    return registry


class _Kept:
    """What a file told before, to be told again."""

    def __init__(self, families: "list[Metric]") -> None:
        self._families = families

    def collect(self) -> "Iterable[Metric]":
        return self._families


def _write(path: Path, registry: "CollectorRegistry") -> None:
    """Replace the file in one step, keeping what is not told anew; node_exporter never sees half of it.

    Raises:
        NotADirectoryError: the folder is not there; made here, it would be one that nobody reads.
    """
    from prometheus_client import generate_latest

    if not path.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "no such folder", str(path.parent))
    told = {family.name for family in registry.collect()}
    registry.register(_Kept([family for family in _families(path) if family.name not in told]))
    write_atomically(path, generate_latest(registry).decode())


def _families(path: Path) -> "list[Metric]":
    from prometheus_client.parser import text_string_to_metric_families

    try:
        return list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):  # none yet, or damaged: it is written anew
        return []
