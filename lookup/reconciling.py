"""Comparing Redis with the store that publishes it; what differs is mended as a restoration or publication does."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from lookup.heads import refuse_foreign
from lookup.log import live_entry
from lookup.store import Store
from lookup.table import RedisTable
from lookup.turns import alone_if_possible
from schemas.errors import InputError
from schemas.head import Head
from schemas.release import LogEntry


class Repair(StrEnum):
    """What is done about a finding."""

    RESTORE = "restore"
    DROP = "drop"
    RETIRE = "retire"
    BY_HAND = "by hand"


class Finding(NamedTuple):
    """Something of Redis that is not as the store's log says, or is not needed any more.

    Attributes:
        version: In Redis; None where it has none.
    """

    version: int | None
    run_id: str
    found: str
    repair: Repair


class Reconciler:
    """Looks at one table, and mends it."""

    def __init__(self, store: Store, table: RedisTable, *, keep: int, grace_seconds: int) -> None:
        """Of one pipeline.

        Args:
            store: Of the pipeline.
            table: Of the same name.
            keep: `publish.keep`.
            grace_seconds: `publish.grace_seconds`.
        """
        self._store, self._table = store, table
        self._limits = {"keep": keep, "grace_seconds": grace_seconds}

    def held_runs(self) -> set[str]:
        """Ids of the runs that Redis has rows of; in the layout `string` only their files name its keys."""
        table, head = self._table, self._table.head()
        listed = [table.versions(), table.unfinished(), table.dropping()]
        return {each.run_id for known in listed for each in known.values()} | ({head.run_id} if head else set())

    def examine(self) -> list[Finding]:
        """What is not as it should be, without a change. A publication that is under way shows too.

        Raises:
            RefusedError: the table is another store's.
            UnavailableError: Redis does not answer.
        """
        table, head = self._table, self._table.head()
        entries = self._store.log.entries()  # read behind the head: a rollback writes its entry before it flips
        if head:
            refuse_foreign(head, entries)
        checked, loading = table.versions(), table.unfinished()
        found = _of_head(live_entry(entries), head, checked)
        served = head.version if head else None
        known = {entry.sequence: entry.run_id for entry in entries}
        retired = {each.version for each in table.removable(**self._limits)}
        for version, each in sorted({**loading, **checked}.items()):
            is_live = version == served
            if what := self._fault(each, is_known=known.get(version) == each.run_id, is_loading=version in loading):
                found.append(Finding(version, each.run_id, what, Repair.RESTORE if is_live else self._drop(each)))
            elif version in retired:
                found.append(Finding(version, each.run_id, "nobody can be reading it", Repair.RETIRE))
        for version, each in sorted(table.dropping().items()):
            found.append(Finding(version, each.run_id, "its removal was begun and not ended", Repair.RETIRE))
        return found

    def mend(self, restore: Callable[[], object]) -> list[Finding] | None:
        """Find and mend what is not as it should be.

        Args:
            restore: Makes Redis hold the live release again, whole, and follow it.

        Returns:
            What it was; None where nothing was looked at, because a publication or an erasure is under way.

        Raises:
            UnavailableError: Redis does not answer.
            RefusedError: the table is another store's.
        """
        with alone_if_possible(self._store.folder) as is_alone:
            if not is_alone:
                return None  # what it has not ended yet looks like what a killed one left
            found = self.examine()
            listed = {**self._table.unfinished(), **self._table.versions()}
            for finding in found:
                if finding.repair is Repair.DROP and finding.version in listed:
                    self._table.drop(listed[finding.version])
        if any(finding.repair is Repair.RESTORE for finding in found):
            restore()
        self._table.retire(**self._limits)
        return found

    def _fault(self, head: Head, *, is_known: bool, is_loading: bool) -> str | None:
        """What is wrong with a version; None where nothing is."""
        if is_loading:
            return "its loading was begun and not ended"
        if not is_known:
            return "no entry of the log is of it"
        try:
            if self._table.is_whole(head):
                return None
            return f"{self._table.count(head)} of {head.entities} rows and its priors are there"
        except InputError as err:  # in the layout `string` its keys are named by the run's files
            return f"it cannot be counted: {err.problems[0]}"

    def _drop(self, head: Head) -> Repair:
        """How a version that nobody follows goes: in the layout `string`, only with the run's files."""
        try:
            if head.layout == "string":
                self._store.manifest(head.run_id)
        except InputError:
            return Repair.BY_HAND
        return Repair.DROP


def _of_head(live: LogEntry | None, head: Head | None, checked: dict[int, Head]) -> list[Finding]:
    """What is wrong with what readers follow."""
    if live is None and head is None:
        return []
    if head is None:
        assert live is not None  # noqa: S101  # one of the two is
        what = f"no head: readers find nothing; the log's live release is {live.release}"
        return [Finding(None, live.run_id, what, Repair.RESTORE)]
    if live is None or (live.token, live.run_id) != (head.token, head.run_id):
        named = f"the log's live release is {live.release}" if live else "the log has no live release"
        return [Finding(head.version, head.run_id, f"readers follow release {head.release}; {named}", Repair.RESTORE)]
    if head.version not in checked:
        return [Finding(head.version, head.run_id, "readers follow it, and it is not listed", Repair.RESTORE)]
    return []
