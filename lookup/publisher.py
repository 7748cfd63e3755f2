"""Publishing: commit the release, load its version, read it back, flip the head, retire the old."""

import logging
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

import pyarrow.parquet as pq

from lookup.store import Store
from lookup.table import RedisTable, Row
from schemas.errors import InputError, Problem, RefusedError
from schemas.keys import Head, encode_rows
from schemas.release import LogEntry, Release, ReleaseState
from schemas.run import ENTITY_ID, PREDICTIONS, RunManifest, columns_of

logger = logging.getLogger(__name__)

_SAMPLE_ROWS = 256


class Outcome(StrEnum):
    """How a publication ended."""

    LIVE = "live"
    ALREADY_LIVE = "already live"
    ARCHIVED = "archived"


class Published(NamedTuple):
    """What a publication or rollback did.

    Attributes:
        previous: The release that was live before, None before the first.
        retired: Versions that were removed from Redis.
    """

    outcome: Outcome
    release: int
    run_id: str
    entities: int
    previous: int | None
    retired: tuple[int, ...] = ()


class Publisher:
    """Moves releases of one pipeline between its store and its table."""

    def __init__(self, store: Store, table: RedisTable, *, keep: int = 3, grace_seconds: int = 300) -> None:
        self._store = store
        self._table = table
        self._keep = keep
        self._grace_seconds = grace_seconds

    def publish(self, run_id: str, *, force: bool = False) -> Published:
        """Make a verified run the live release.

        Args:
            run_id: The run.
            force: Publish also what was rolled back, or is older than what is live.

        Returns:
            ARCHIVED where the run is of an older date than the live release: committed, but not served.

        Raises:
            RefusedError: not verified, rolled back, or overtaken by another publisher.
            InputError: the run's files are damaged.
            UnavailableError: Redis does not answer; the live version is as it was.
        """
        started = time.monotonic()
        manifest = self._store.verified(run_id)
        live = self._store.live()
        state = {release.run_id: release for release in self._store.releases()}.get(run_id)
        if state and state.state is ReleaseState.ROLLED_BACK and not force:
            raise _rolled_back(f"{self._store.pipeline} run {run_id}", state)
        self._table.preflight()
        held = self._ready(manifest, state.number if state else None)
        commit = self._store.commit(manifest)
        previous = live.release if live else None
        if live and manifest.date < live.date and not force:
            return Published(Outcome.ARCHIVED, commit.release, run_id, manifest.counts.scored, previous)
        # What is live already heals under the newest token: another run cannot have been published since.
        flipped = self._serve(manifest, live if live and live.run_id == run_id else commit, held=held)
        self._store.record_live(commit)
        retired = self._table.retire(keep=self._keep, grace_seconds=self._grace_seconds)
        outcome = Outcome.LIVE if flipped or previous != commit.release else Outcome.ALREADY_LIVE
        logger.info(
            "run %s: release %d %s, %d entities, %.1f s",
            run_id, commit.release, outcome, manifest.counts.scored, time.monotonic() - started,
        )  # fmt: skip
        return Published(outcome, commit.release, run_id, manifest.counts.scored, previous, tuple(retired))

    def roll_back(self, *, to: int | None = None, reason: str = "") -> Published:
        """Make an earlier release the live one again; recorded, and under a second while Redis keeps its version.

        Args:
            to: A release number; the one that was live before this one, when left out.
            reason: Kept in the log.

        Raises:
            RefusedError: there is no such release, nothing came before, or it never passed.
        """
        head = self._table.head()
        live = self._recorded(head)
        if live is None:
            raise RefusedError(
                Problem("ROLLBACK_TARGET", self._store.pipeline, "nothing is live", "a published release")
            )
        if to == live.release or (to is None and (head is None or head.version != live.release)):
            # An attempt that was killed behind its log entry is finished, not rolled back once more.
            manifest = self._store.verified(live.run_id)
            held = self._ready(manifest, live.release)
            outcome = Outcome.LIVE if self._serve(manifest, live, held=held) else Outcome.ALREADY_LIVE
            return Published(outcome, live.release, live.run_id, manifest.counts.scored, live.release)
        target = self._previous() if to is None else self._store.release(to)
        manifest = self._store.verified(target.run_id)
        held = self._ready(manifest, target.number)
        self._serve(manifest, self._store.record_rollback(target, reason), held=held)
        return Published(Outcome.LIVE, target.number, target.run_id, manifest.counts.scored, live.release)

    def _previous(self) -> Release:
        number = self._store.live_before()
        if number is None:
            raise RefusedError(
                Problem(
                    "ROLLBACK_TARGET",
                    self._store.pipeline,
                    "no earlier release was live",
                    "two publications before a rollback",
                )
            )
        return self._store.release(number)

    def _recorded(self, head: Head | None) -> LogEntry | None:
        """The live entry, entered now where a publication was killed between its flip and the log."""
        live = self._store.live()
        if head and live and head.token > live.sequence:
            for entry in self._store.log.entries():
                if (entry.sequence, entry.run_id) == (head.token, head.run_id):
                    self._store.record_live(entry)
        return self._store.live()

    def _ready(self, manifest: RunManifest, version: int | None) -> bool:
        """Whether Redis has the version whole. Where it must be loaded, its files are proven before the log is written.

        Raises:
            InputError: a file is missing or its digest differs.
        """
        known = None if version is None else self._table.versions().get(version)
        if known and known.run_id == manifest.run_id and self._table.count(known) == known.entities:
            return True
        if problems := self._store.damage(manifest, PREDICTIONS):
            raise InputError(*problems)
        return False

    def _serve(self, manifest: RunManifest, entry: LogEntry, *, held: bool) -> bool:
        """Load the version where Redis does not have it whole, and flip; False where it was served already."""
        head, served = head_of(manifest, entry), self._table.head()
        if not held:
            self._load(head, manifest)
        if served and (served.version, served.run_id) == (head.version, head.run_id):
            return not held
        return self._table.flip(head)

    def _load(self, head: Head, manifest: RunManifest) -> None:
        """Load a version, then read back its count and a sample of its rows."""
        sample: list[Row] = []
        every = max(1, head.entities // _SAMPLE_ROWS)

        def sampled() -> Iterator[Row]:
            for index, row in enumerate(rows(self._store, manifest)):
                if index % every == 0:
                    sample.append(row)
                yield row

        self._table.load(head, sampled())
        where = f"{head.table} version {head.version}"
        if (found := self._table.count(head)) != head.entities:
            raise InputError(Problem("STORE_COUNT", where, f"{found} rows in Redis", f"{head.entities}"))
        if wrong := self._table.differing(head, sample):
            raise InputError(
                Problem("STORE_ROWS", where, f"{len(wrong)} of {len(sample)} sampled rows differ", "the store's")
            )


def _rolled_back(where: str, release: Release) -> RefusedError:
    return RefusedError(
        Problem("ROLLED_BACK", where, f"release {release.number} was rolled back", "another run, or --force")
    )


def head_of(manifest: RunManifest, entry: LogEntry) -> Head:
    """The head that serves a run under that log entry. Equal arguments, equal bytes."""
    return Head(
        table=manifest.pipeline,
        version=entry.release,
        token=entry.sequence,
        buckets=manifest.buckets,
        entities=manifest.counts.scored,
        columns=columns_of(manifest),
        run_id=manifest.run_id,
        scored_at=manifest.scored_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def rows(store: Store, manifest: RunManifest) -> Iterator[Row]:
    """The published rows of a run, in the order of its files."""
    columns = columns_of(manifest)
    names = [spec.name for spec in columns]
    for file in manifest.files_in(PREDICTIONS):
        with pq.ParquetFile(store.run_folder(manifest.run_id) / file.path) as parquet:
            for batch in parquet.iter_batches(columns=[ENTITY_ID, *names]):
                values = encode_rows(columns, [batch.column(name).to_pylist() for name in names])
                yield from map(Row, batch.column(ENTITY_ID).to_pylist(), values)
