"""What is known of a stage while it runs and when it ended: what its watchers tell others."""

import datetime as dt
from dataclasses import dataclass, field

from jobs.stages import Plan
from lookup.publisher import Published
from lookup.store import Store
from schemas.report import Report
from schemas.run import RunManifest
from schemas.settings import Settings


@dataclass(slots=True, kw_only=True)
class Facts:
    """A stage, and what it has found by now.

    Attributes:
        stage: Its name: check_inputs, score, verify, gate, publish, smoke or rollback.
        date: The logical date; None where the stage is not of one.
        error: What ended it; None while it runs, and where it came to its end.
        seconds: What it took, once it has ended.
    """

    settings: Settings
    pipeline: str
    stage: str
    date: dt.date | None = None
    run_id: str | None = None
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    plan: Plan | None = None
    manifest: RunManifest | None = None
    report: Report | None = None
    published: Published | None = None
    error: BaseException | None = None
    seconds: float = 0.0

    @property
    def store(self) -> Store:
        return Store(self.settings.store, self.pipeline)

    @property
    def staged(self) -> RunManifest | None:
        """The manifest of the run, which a later stage finds in the store."""
        if self.manifest or self.run_id is None or self.stage in ("check_inputs", "score"):
            return self.manifest
        return self.store.manifest(self.run_id)
