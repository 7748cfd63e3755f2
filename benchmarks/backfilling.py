"""The seconds of filling in eleven months, and of finding that nothing is left to do."""

from collections import Counter

from benchmarks.figure import Compared, Samples
from benchmarks.workplace import PIPELINE, MeasurementError, Workplace
from schemas.errors import BlockedError

# The weather of the last day of the year is not in the data.
_DATES = ("--from", "2013-02-01", "--to", "2013-12-30")
_DAYS = 333
_TIMEOUT_SECONDS = 3600.0


def backfill(place: Workplace) -> Samples:
    """One backfill of a fresh store in one process, and the same once more. A blocked date is work done as well."""
    codes = (0, BlockedError.exit_code)
    with place.store() as store:
        command = ("backfill", PIPELINE, *_DATES, "--json")
        first = place.almanac(*command, store=store, timeout_seconds=_TIMEOUT_SECONDS, codes=codes)
        planned = place.almanac(*command, "--dry-run", store=store, codes=codes)
    done = Counter(one["done"] for one in first.json["dates"])
    if sum(done.values()) != _DAYS or set(done) - {"archived", "blocked"}:
        raise MeasurementError(f"a backfill of {_DAYS} dates ended so: {dict(done)}")
    note = (
        f"{done['archived']} dates archived, {done['blocked']} blocked by their checks; one process, one Spark session"
    )
    return {
        "backfill_seconds": Compared([first.seconds], note=note),
        "backfill_dates_per_second": [round(_DAYS / first.seconds, 3)],
        "backfill_planned_seconds": [planned.seconds],
    }
