"""What Redis holds of the runs of a store: found, loaded from proven files, and not disturbed meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

from lookup.erasing import end_pending
from lookup.rows import StoredRows
from lookup.store import Store
from lookup.table import RedisTable, Spread
from lookup.turns import alone_if_possible, beside_others, pending
from schemas.errors import InputError, Problem, UnavailableError
from schemas.head import Head
from schemas.run import PREDICTIONS, PRIORS, RunManifest


class Holding:
    """The versions that a table has of the runs of its store."""

    def __init__(self, store: Store, table: RedisTable, *, replicas: int | None, spread: Spread) -> None:
        """Of one pipeline.

        Args:
            store: Of the pipeline.
            table: Of the same name.
            replicas: How many must have a version before it may be followed; all that are connected, when left out.
            spread: Loads the files.
        """
        self._store, self._table = store, table
        self._replicas, self._spread = replicas, spread

    @contextmanager
    def undisturbed(self, run_id: str) -> Iterator[None]:
        """While nobody erases. What killed processes left is dealt with first: erasures, and half-loaded versions.

        Where nobody else publishes, a version that is being loaded is of one that was killed; the run's own is kept,
        to be loaded to its end.
        """
        folder = self._store.folder
        with alone_if_possible(folder) as is_alone:
            if is_alone:
                checked = self._table.versions()
                for version, head in self._table.unfinished().items():
                    if version not in checked and head.run_id != run_id:
                        self._table.drop(head)
        while True:
            with beside_others(folder):
                if not pending(folder):
                    yield
                    return
            end_pending(self._store, self._table)

    def held(self, manifest: RunManifest, *, trust_once_live: bool = False) -> Head | None:
        """The version that has the run's rows whole, None where there is none.

        Only one that has passed every check counts, and of which no load is under way or was killed since.

        Args:
            manifest: Of the run.
            trust_once_live: Take a version that readers once followed for whole, without counting its rows.
        """
        unfinished = self._table.unfinished()
        # Where a run has two, the later one was loaded because the earlier had lost rows.
        for version, head in sorted(self._table.versions().items(), reverse=True):
            if (
                head.run_id == manifest.run_id
                and version not in unfinished
                and ((trust_once_live and self._table.was_live(version)) or self._table.is_whole(head))
            ):
                return head
        return None

    def prove(self, manifest: RunManifest) -> None:
        """See that the files that will be loaded are those that were verified, before anything is logged.

        Raises:
            InputError: one is missing, or its digest differs.
        """
        if problems := self._store.damage(manifest, PREDICTIONS, PRIORS):
            raise InputError(*problems)

    def load(self, head: Head, manifest: RunManifest) -> None:
        """Load a version from the store, which no erasure changes meanwhile."""
        with self.undisturbed(manifest.run_id):
            if self._store.manifest(manifest.run_id).content != manifest.content:
                where, what = f"{head.table} run {manifest.run_id}", "an entity was erased from it meanwhile"
                raise UnavailableError(Problem("IN_CHANGED", where, what, "the run as it was; try again"))
            rows = StoredRows(self._store, manifest)
            self._table.load(head, rows, replicas=self._replicas, spread=self._spread)
