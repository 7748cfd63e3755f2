"""Which releases may go: worked out from the log alone, so that it can be told beforehand and proven by tests."""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence

from lookup.log import live_entry, live_path, releases
from schemas.release import LogEntry, Release, ReleaseState
from schemas.retention import Retention

_ONCE_LIVE = (ReleaseState.LIVE, ReleaseState.RETIRED, ReleaseState.ROLLED_BACK)
_LAST_GOOD = (ReleaseState.LIVE, ReleaseState.RETIRED)


def expired(
    entries: Sequence[LogEntry],
    retention: Retention,
    *,
    made_at: Mapping[str, dt.datetime],
    needed: Collection[str],
    now: dt.datetime,
) -> list[Release]:
    """The releases that are beyond both limits of the declaration, and that nothing needs; the oldest first.

    Args:
        entries: Of the log.
        retention: As declared.
        made_at: Run id -> when it was scored, of every run whose files are there.
        needed: Ids of runs that stay, as `needed_runs` tells them, and those that Redis has versions of.
        now: An aware time.
    """
    last = {entry.release: entry for entry in entries}
    by_log = sorted(last.values(), key=lambda entry: entry.sequence, reverse=True)
    newest = {entry.release for entry in by_log[: retention.keep_releases]}
    youngest = now - dt.timedelta(days=retention.keep_days)
    known = releases(entries)
    young = {
        release.number
        for release in known
        if max(last[release.number].at, made_at.get(release.run_id, last[release.number].at)) > youngest
    }
    kept = [release for release in known if release.number in newest | young or release.run_id in needed]
    bases = [base for release in kept if (base := _before(known, release.date, _LAST_GOOD))]
    stays = {release.number for release in (*kept, *bases)}
    return [release for release in known if release.number not in stays and release.run_id in made_at]


def needed_runs(entries: Sequence[LogEntry], *, versions: int, after_days: int | None) -> set[str]:
    """Ids of the runs that the live release and the next one need, and that a rollback goes to.

    Args:
        entries: Of the log.
        versions: `publish.keep`: so many of those that rollbacks lead back through stay, the live one included.
        after_days: `checks.calibration.after_days`, where it is declared: a run is judged by the outcomes of the
            release of so many days before. The live one may be made again, and later ones follow.
    """
    known, live = releases(entries), live_entry(entries)
    if live is None:
        return set()
    path = set(live_path(entries)[-versions:])
    needed = {release.run_id for release in known if release.number in path}
    if base := _before(known, dt.date.max, _LAST_GOOD):  # of the next run; behind a rollback not the live one
        needed.add(base.run_id)
    if after_days is not None:
        first = _before(known, live.date - dt.timedelta(days=after_days - 1), _ONCE_LIVE)
        since = first.date if first else dt.date.min
        needed |= {release.run_id for release in known if release.date >= since and release.state in _ONCE_LIVE}
    return needed


def _before(known: Sequence[Release], date: dt.date, states: Collection[ReleaseState]) -> Release | None:
    """The newest release in one of these states that is of an earlier date: what a run of `date` is based on."""
    earlier = [release for release in known if release.date < date and release.state in states]
    return max(earlier, key=lambda release: (release.date, release.number), default=None)
