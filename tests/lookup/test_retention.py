"""Which releases may go, for any log: never one that something needs, and never one within a limit."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lookup.log import live_before, live_entry, releases
from lookup.retention import expired, needed_runs
from schemas.release import Event, LogEntry
from schemas.retention import Retention

FIRST = dt.datetime(2026, 1, 1, 4, tzinfo=dt.UTC)
FEW = Retention(keep_releases=2, keep_days=0)
Story = list[tuple[Event, int]]


def entry(sequence: int, event: Event, release: int, *, days: int, date: dt.date, token: int) -> LogEntry:
    return LogEntry(
        sequence=sequence,
        token=token,
        event=event,
        release=release,
        run_id=f"{date}-{release:012x}",
        date=date,
        at=FIRST + dt.timedelta(days=days),
        by="ops@host",
    )


def log_of(story: Story, *, dates: list[int] | None = None) -> list[LogEntry]:
    """Entries as publishing and rolling back write them, a day each; what the story cannot do is left out."""
    found: list[LogEntry] = []
    commits: dict[int, LogEntry] = {}
    for days, (event, wanted) in enumerate(story):
        sequence = len(found) + 1
        if event is Event.COMMIT:
            release = len(commits) + 1
            day = (dates or list(range(len(story))))[days]
            date = FIRST.date() + dt.timedelta(days=day)
            commits[release] = entry(sequence, event, release, days=days, date=date, token=sequence)
            found.append(commits[release])
        elif wanted in commits:
            token = sequence if event is Event.ROLLBACK else commits[wanted].token
            found.append(entry(sequence, event, wanted, days=days, date=commits[wanted].date, token=token))
    return found


def nights(count: int) -> list[LogEntry]:
    """Each night one release, live at once."""
    return log_of([each for number in range(1, count + 1) for each in ((Event.COMMIT, 0), (Event.LIVE, number))])


def gone(entries: list[LogEntry], retention: Retention, *, days: int = 1000, **changed: Any) -> list[int]:
    known = releases(entries)
    options: dict[str, Any] = {
        "made_at": {release.run_id: FIRST for release in known},
        "needed": needed_runs(entries, versions=2, after_days=None),
        "now": FIRST + dt.timedelta(days=days),
    }
    return [release.number for release in expired(entries, retention, **(options | changed))]


def test_what_is_beyond_both_limits_goes_and_the_base_of_what_stays_is_kept() -> None:
    # 9 and 10 are the last two; a run of the date of 9 would carry predictions of 8.
    assert gone(nights(10), FEW) == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_younger_than_the_days_stays_however_many_there_are() -> None:
    # Two entries a night: release 7 was last named on day 13, less than 9 days before day 20; its base is 6.
    assert gone(nights(10), Retention(keep_releases=2, keep_days=9), days=20) == [1, 2, 3, 4, 5]


def test_a_release_that_was_scored_again_is_as_young_as_its_files() -> None:
    entries = nights(10)
    made_at = {release.run_id: FIRST for release in releases(entries)}
    made_at[releases(entries)[2].run_id] = FIRST + dt.timedelta(days=990)
    assert 3 not in gone(entries, Retention(keep_releases=2, keep_days=30), made_at=made_at)


def test_what_redis_has_a_version_of_stays_with_its_base() -> None:
    entries = nights(10)
    needed = needed_runs(entries, versions=2, after_days=None) | {releases(entries)[3].run_id}
    assert gone(entries, FEW, needed=needed) == [1, 2, 5, 6, 7]


def test_where_a_rollback_went_and_would_go_stays() -> None:
    story = [each for number in range(1, 9) for each in ((Event.COMMIT, 0), (Event.LIVE, number))]
    entries = log_of([*story, (Event.ROLLBACK, 3)])
    # Live is 3, and the next rollback goes to 2, whose own base is 1; 8 was left, and is among the last two; 7 is the
    # base of 8 and of the next run, and 6 its own.
    assert live_before(entries) == 2
    assert gone(entries, FEW) == [4, 5]


def test_what_the_next_run_carries_predictions_from_stays_also_behind_a_rollback() -> None:
    story = [each for number in range(1, 9) for each in ((Event.COMMIT, 0), (Event.LIVE, number))]
    archived = [(Event.COMMIT, 0), (Event.COMMIT, 0)]
    entries = log_of([*story, (Event.ROLLBACK, 3), *archived], dates=[*range(10, 27), 0, 1])
    # 8 was rolled back, 9 and 10 are of older dates and never were live: the last good one of all is 7, its base 6.
    assert gone(entries, FEW) == [4, 5, 8]


def test_the_release_whose_outcomes_the_next_run_is_judged_by_stays_and_all_that_follow() -> None:
    entries = log_of([each for number in range(1, 31) for each in ((Event.COMMIT, 0), (Event.LIVE, number))])
    dates = {release.number: (release.date - FIRST.date()).days for release in releases(entries)}
    assert dates[30] == 58
    needed = needed_runs(entries, versions=2, after_days=11)
    # Live is the release of day 58, and the newest that is more than 10 days older is that of day 46.
    assert [number for number, day in dates.items() if day >= 46] == list(range(24, 31))
    assert gone(entries, FEW, needed=needed) == list(range(1, 23))


def test_nothing_is_said_of_a_release_whose_files_are_gone_already() -> None:
    entries = nights(10)
    made_at = {release.run_id: FIRST for release in releases(entries) if release.number > 4}
    assert gone(entries, FEW, made_at=made_at) == [5, 6, 7]


@given(
    st.lists(st.tuples(st.sampled_from(Event), st.integers(1, 12)), max_size=40),
    st.lists(st.integers(0, 30), min_size=40, max_size=40),
    st.integers(2, 6),
    st.integers(0, 40),
    st.integers(2, 5),
    st.sampled_from([None, 1, 7, 30]),
    st.sets(st.integers(1, 12)),
    st.integers(0, 60),
)
def test_whatever_the_log_says_nothing_goes_that_is_needed_or_within_a_limit(
    story: Story, dates: list[int], keep: int, days: int, versions: int, after: int | None, held: set[int], now: int
) -> None:
    entries, at = log_of(story, dates=dates), FIRST + dt.timedelta(days=now)
    known = {release.number: release for release in releases(entries)}
    needed = needed_runs(entries, versions=versions, after_days=after)
    needed |= {known[number].run_id for number in held if number in known}
    retention = Retention(keep_releases=keep, keep_days=days)
    made_at = {release.run_id: release.committed_at for release in known.values()}

    removed = expired(entries, retention, made_at=made_at, needed=needed, now=at)

    numbers = {release.number for release in removed}
    last = {found.release: found for found in entries}
    named_last = sorted(last, key=lambda number: last[number].sequence)[-keep:]
    assert not numbers & set(named_last)
    assert not {release.run_id for release in removed} & needed
    assert all(at - last[number].at >= dt.timedelta(days=days) for number in numbers)
    live = live_entry(entries)
    assert live is None or live.release not in numbers
    assert live_before(entries) not in numbers
    kept = [number for number in known if number not in numbers]
    # What is removed is gone, and the rest would not go either: to do it twice is to do it once.
    left = {known[number].run_id: made_at[known[number].run_id] for number in kept}
    assert not expired(entries, retention, made_at=left, needed=needed, now=at)


def test_days_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="quarantine_days 7 is less than staged_days 14"):
        Retention(quarantine_days=7)
