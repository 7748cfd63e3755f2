"""Publishing: commit the release, load its version, read it back, flip the head, retire the old."""

import logging
import time
from contextlib import nullcontext
from enum import StrEnum
from typing import NamedTuple

from lookup.erasing import end_pending
from lookup.heads import head_of, refuse_foreign
from lookup.holding import Holding
from lookup.loader import in_threads
from lookup.rows import StoredRows, checksum
from lookup.store import Store
from lookup.table import RedisTable, Spread
from lookup.turns import pending
from lookup.versions import Flip
from schemas.errors import InputError, Problem, RefusedError, UnavailableError
from schemas.head import Head
from schemas.release import Event, LogEntry, Release
from schemas.run import RunManifest

logger = logging.getLogger(__name__)


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


class Restored(NamedTuple):
    """What a restoration found and did.

    Attributes:
        checksum: SHA-256 of all rows, in the store and in Redis.
        was_whole: Whether nothing was left to do.
    """

    release: int
    run_id: str
    entities: int
    checksum: str
    was_whole: bool


class Publisher:
    """Moves releases of one pipeline between its store and its table."""

    def __init__(
        self,
        store: Store,
        table: RedisTable,
        *,
        keep: int = 3,
        grace_seconds: int = 300,
        replicas: int | None = None,
        spread: Spread = in_threads,
    ) -> None:
        """The publisher of one pipeline.

        Args:
            store: Of the pipeline.
            table: Of the same name.
            keep: Versions kept in Redis.
            grace_seconds: How long at least a version is kept that is no longer live.
            replicas: How many must have a version before it goes live; all that are connected, when left out.
            spread: Loads the files: in threads of this process, or wherever else.
        """
        self._store, self._table = store, table
        self._holding = Holding(store, table, replicas=replicas, spread=spread)
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
        self._store.verified(run_id)
        if not force:
            self._store.refuse_rolled_back(run_id)
        self._preflight()
        with self._holding.undisturbed(run_id):
            manifest = self._store.verified(run_id)
            if not force:
                self._store.refuse_aborted(manifest)
            live, held = self._store.live(), self._holding.held(manifest)
            if held is None:
                self._holding.prove(manifest)
            commit = self._store.commit(manifest, anew=force)
            outcome = self._serve_commit(manifest, commit, live, held, force=force)
            retired: list[int] = []
            if outcome is not Outcome.ARCHIVED:
                self._store.record_live(commit)
                retired = self._table.retire(keep=self._keep, grace_seconds=self._grace_seconds)
        logger.info(
            "run %s: release %d %s, %d entities, %.1f s",
            run_id, commit.release, outcome, manifest.counts.rows, time.monotonic() - started,
        )  # fmt: skip
        previous = live.release if live else None
        return Published(outcome, commit.release, run_id, manifest.counts.rows, previous, tuple(retired))

    def roll_back(self, *, to: int | None = None, reason: str = "", force: bool = False) -> Published:
        """Make an earlier release the live one again; recorded, and under a second while Redis keeps its version.

        Args:
            to: A release number; the one that was live before this one, when left out.
            reason: Kept in the log.
            force: Go also to a release that was itself rolled back.

        Raises:
            RefusedError: there is no such release, nothing came before, it never passed, or it was rolled back.
        """
        self._preflight()
        head = self._table.head()
        live = self._recorded(head)
        if live is None:
            raise RefusedError(
                Problem("ROLLBACK_TARGET", self._store.pipeline, "nothing is live", "a published release")
            )
        # A rollback that was killed behind its log entry is finished, not done once more.
        unfinished = live.event is Event.ROLLBACK and (head is None or head.token != live.token)
        if to == live.release or (to is None and unfinished):
            with self._holding.undisturbed(live.run_id):
                manifest = self._store.verified(live.run_id)
                if (held := self._holding.held(manifest)) is None:
                    self._holding.prove(manifest)
                outcome = self._serve(manifest, live, held, allow_older=True)
            return Published(outcome, live.release, live.run_id, manifest.counts.rows, live.release)
        target = self._previous() if to is None else self._store.release(to)
        if not force:
            self._store.refuse_rolled_back(target.run_id)
        manifest = self._store.verified(target.run_id)
        held = self._holding.held(manifest, trust_once_live=True)
        # What Redis keeps is only flipped to, and no erasure is waited for: the flip sees what it changed.
        with nullcontext() if held else self._holding.undisturbed(target.run_id):
            if held is None:
                manifest = self._store.verified(target.run_id)
                self._holding.prove(manifest)
            self._serve(manifest, self._store.record_rollback(target, reason), held, allow_older=True)
        return Published(Outcome.LIVE, target.number, target.run_id, manifest.counts.rows, live.release)

    def restore(self) -> Restored:
        """Make Redis hold the live release again, whole, and follow it.

        Raises:
            RefusedError: nothing is live, or the table is another store's.
            InputError: the run's files are damaged, or what Redis then holds is not what they say.
            UnavailableError: Redis does not answer, or has no room.
        """
        self._preflight()
        live = self._recorded(self._table.head())
        if live is None:
            raise RefusedError(Problem("RESTORE", self._store.pipeline, "nothing is live", "a published release"))
        with self._holding.undisturbed(live.run_id):
            return self._restore(live)

    def _restore(self, live: LogEntry) -> Restored:
        manifest = self._store.verified(live.run_id)
        rows = StoredRows(self._store, manifest)
        stored = checksum(((row.entity.encode(), row.value) for row in rows), rows.priors)
        head, held = self._table.head(), self._holding.held(manifest)
        is_right = held is not None and self._table.checksum(held) == stored
        is_followed = head is not None and held is not None and (head.version, head.token) == (held.version, live.token)
        was_whole = is_right and is_followed
        if not was_whole:
            self._holding.prove(manifest)
            if held is not None and not is_right:
                self._holding.load(held, manifest)
            self._serve(manifest, live, held, allow_older=True)
        served = self._table.head()
        # Where another publisher's release is followed by now, that is what is to be served, and not ours to judge.
        is_ours = served is None or (served.run_id, served.token) == (live.run_id, live.token)
        found = self._table.checksum(served) if served else "no head"
        if is_ours and found != stored:
            where = f"table '{self._store.pipeline}'"
            raise InputError(Problem("STORE_ROWS", where, f"checksum {found[:12]}…", f"the store's {stored[:12]}…"))
        return Restored(live.release, live.run_id, manifest.counts.rows, stored, was_whole)

    def _preflight(self) -> None:
        """Refuse a Redis that could drop predictions, and one whose head another store published."""
        self._table.preflight()
        if head := self._table.head():
            refuse_foreign(head, self._store.log.entries())
        if pending(self._store.folder):
            end_pending(self._store, self._table)

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
        if head and (live is None or head.token > live.token):
            for entry in self._store.log.entries():
                if (entry.token, entry.run_id) == (head.token, head.run_id):
                    self._store.record_live(entry)
        return self._store.live()

    def _serve_commit(
        self, manifest: RunManifest, commit: LogEntry, live: LogEntry | None, held: Head | None, *, force: bool
    ) -> Outcome:
        if live is not None and manifest.date < live.date and not force:
            return Outcome.ARCHIVED
        # What is live heals under the token it has; a newer date in Redis is what its killed rollback was to leave.
        named = live if live and live.run_id == manifest.run_id else None
        outcome = self._serve(manifest, named or commit, held, allow_older=force or named is not None)
        if outcome is Outcome.ALREADY_LIVE and (live is None or live.release != commit.release):
            return Outcome.LIVE  # an attempt before this one was killed behind its flip
        return outcome

    def _serve(self, manifest: RunManifest, entry: LogEntry, held: Head | None, *, allow_older: bool) -> Outcome:
        """Load the run where Redis does not hold it, and flip the head to it."""
        served = self._table.head()
        if served and served.run_id == manifest.run_id and served.token >= entry.token:
            if held and held.version == served.version:
                return Outcome.ALREADY_LIVE
            if not held:
                whole = head_of(manifest, entry, version=served.version)
                in_place = whole.model_copy(update={"token": served.token, "release": served.release})
                self._holding.load(in_place, manifest)  # rows that readers miss come back
                self._table.flip(in_place, allow_older=True)
                return Outcome.LIVE
        if held:
            flip = self._table.flip(head_of(manifest, entry, version=held.version), allow_older=allow_older)
            if flip is not Flip.GONE:
                return Outcome.ARCHIVED if flip is Flip.OLDER else Outcome.LIVE
            # It was retired between the look and the flip: once more, under keys of its own.
        head = head_of(manifest, entry, version=entry.sequence)
        try:
            self._holding.load(head, manifest)
            flip = self._table.flip(head, allow_older=allow_older)
        except RefusedError:
            self._table.drop(head)  # overtaken: what was loaded will not be served
            raise
        if flip is Flip.GONE:
            where, found = f"{head.table} version {head.version}", "its rows were lost while they were loaded"
            raise UnavailableError(Problem("STORE_COUNT", where, found, f"{head.entities}; publish again"))
        if flip is Flip.OLDER:
            self._table.drop(head)
        return Outcome.ARCHIVED if flip is Flip.OLDER else Outcome.LIVE
