"""The head of a run: what its readers must know, from its manifest and the log entry that it is served under."""

from collections.abc import Sequence

from lookup.log import entry_for
from schemas.errors import Problem, RefusedError
from schemas.head import Head
from schemas.release import Event, LogEntry, Release, ReleaseState
from schemas.run import PRIORS, RunManifest, columns_of


def head_to_be(manifest: RunManifest) -> Head:
    """What the head of a run that is not published yet will be like; release, version and token are made up."""
    release = Release(
        number=1, run_id=manifest.run_id, date=manifest.date, committed_at=manifest.scored_at,
        state=ReleaseState.COMMITTED,
    )  # fmt: skip
    return head_of(manifest, entry_for(Event.COMMIT, release, 1), version=1)


def head_of(manifest: RunManifest, entry: LogEntry, *, version: int) -> Head:
    """The head that serves a run under that log entry. Equal arguments, equal bytes."""
    return Head(
        table=manifest.pipeline,
        release=entry.release,
        date=manifest.date.isoformat(),
        version=version,
        token=entry.token,
        layout=manifest.layout,
        format=2 if manifest.layout == "string" else 1,
        buckets=manifest.buckets,
        entities=manifest.counts.rows,
        columns=columns_of(manifest),
        run_id=manifest.run_id,
        scored_at=manifest.scored_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        priors=sum(file.rows for file in manifest.files_in(PRIORS)),
        serving=manifest.serving,
    )


def refuse_foreign(head: Head, entries: Sequence[LogEntry]) -> None:
    """Refuse a head that another store published: what is under it is not ours to judge or to change.

    Args:
        head: As Redis has it.
        entries: Of this store's log.

    Raises:
        RefusedError: no entry is of it.
    """
    if all((entry.token, entry.run_id) != (head.token, head.run_id) for entry in entries):
        where = f"table '{head.table}'"
        found = f"release {head.release} of run {head.run_id}, which is not in this store's log"
        raise RefusedError(Problem("STORE_FOREIGN", where, found, "a table that this store publishes alone"))
