"""What the results of all checks add up to. It fails closed: whatever did not speak for the run spoke against it."""

import logging
import math
from collections.abc import Callable, Collection, Sequence
from contextvars import copy_context
from queue import Empty, Queue
from threading import Thread

from schemas.checks import Levels
from schemas.errors import AlmanacError
from schemas.report import CheckResult, Family, Verdict, worst

logger = logging.getLogger(__name__)

_MAX_CHARACTERS = 400

Found = CheckResult | Sequence[CheckResult] | None


def judge(results: Sequence[CheckResult], *, required: Collection[Family]) -> Verdict:
    """The verdict of a run: FAIL where any check failed, there is none, or a required family has no result."""
    missing = set(required) - {result.family for result in results}
    return Verdict.FAIL if missing or not all(result.evaluated for result in results) else worst(results)


def at_levels(value: float, levels: Levels) -> Verdict:
    """PASS up to and including `warn`, WARN up to and including `fail` (or without end), else FAIL; NaN is FAIL."""
    if not math.isfinite(value) or (levels.fail is not None and value > levels.fail):
        return Verdict.FAIL
    return Verdict.PASS if value <= levels.warn else Verdict.WARN


def in_words(levels: Levels) -> str:
    """The levels as a clause: `at most 0.1; it fails above 0.25`."""
    return f"at most {levels.warn:g}; " + (
        "above it warns" if levels.fail is None else f"it fails above {levels.fail:g}"
    )


def not_evaluated(name: str, family: Family, *, observed: str, expected: str) -> CheckResult:
    """The result of a check that could not be computed: it has failed."""
    observed = observed if len(observed) <= _MAX_CHARACTERS else f"{observed[: _MAX_CHARACTERS - 3]}..."
    return CheckResult(
        name=name, family=family, verdict=Verdict.FAIL, observed=observed, expected=expected, evaluated=False
    )


class TooSlowError(Exception):
    """A check did not end within its limit."""


def evaluated(
    name: str,
    family: Family,
    check: Callable[[], Found],
    *,
    expected: str = "the check is computed",
    limit_seconds: float | None = None,
) -> list[CheckResult]:
    """What `check` found; where it throws, hangs or finds nothing, one failed result that says so.

    Args:
        name: Of that one result.
        family: Of that one result.
        check: Computes one result or several.
        expected: What the check would have asked for.
        limit_seconds: How long it may take; it is left behind in a thread that ends with the process.
    """
    try:
        results = _results(check() if limit_seconds is None else _within(limit_seconds, check))
    except Exception as err:
        # Whatever broke, the run was not checked; and one broken check must not hide what the others found.
        logger.exception("check %s could not be evaluated", name)
        text = str(err) if isinstance(err, AlmanacError) else f"{type(err).__name__}: {str(err).partition(chr(10))[0]}"
        return [not_evaluated(name, family, observed=text, expected=expected)]
    return results or [not_evaluated(name, family, observed="the check returned nothing", expected=expected)]


def _within(seconds: float, check: Callable[[], Found]) -> Found:
    """What the check finds in that time.

    Raises:
        TooSlowError: it is not done yet.
    """
    ended: Queue[tuple[Found, BaseException | None]] = Queue()

    def attempt() -> None:
        try:
            ended.put((check(), None))
        except BaseException as err:  # noqa: BLE001  # it is raised where the answer is waited for
            ended.put((None, err))

    # In this context, so that what it logs is known to be of this run.
    Thread(target=copy_context().run, args=(attempt,), daemon=True).start()
    try:
        found, error = ended.get(timeout=seconds)
    except Empty:
        raise TooSlowError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return found


def _results(found: Found) -> list[CheckResult]:
    results = [found] if isinstance(found, CheckResult) else list(found or ())
    for result in results:
        if not isinstance(result, CheckResult):
            raise TypeError(f"the check returned {type(result).__name__}, not a result")
    return results
