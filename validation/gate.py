"""What the results of all checks add up to. It fails closed: whatever did not speak for the run spoke against it."""

import logging
import math
from collections.abc import Callable, Collection, Sequence

from schemas.checks import Levels
from schemas.errors import AlmanacError
from schemas.report import CheckResult, Family, Verdict, worst

logger = logging.getLogger(__name__)

_MAX_CHARACTERS = 400


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


def evaluated(
    name: str,
    family: Family,
    check: Callable[[], CheckResult | Sequence[CheckResult] | None],
    *,
    expected: str = "the check is computed",
) -> list[CheckResult]:
    """What `check` found; where it throws or finds nothing, one failed result that says so.

    Args:
        name: Of that one result.
        family: Of that one result.
        check: Computes one result or several.
        expected: What the check would have asked for.
    """
    try:
        results = _results(check())
    except Exception as err:
        # Whatever broke, the run was not checked; and one broken check must not hide what the others found.
        logger.exception("check %s could not be evaluated", name)
        text = str(err) if isinstance(err, AlmanacError) else f"{type(err).__name__}: {str(err).partition(chr(10))[0]}"
        return [not_evaluated(name, family, observed=text, expected=expected)]
    return results or [not_evaluated(name, family, observed="the check returned nothing", expected=expected)]


def _results(found: CheckResult | Sequence[CheckResult] | None) -> list[CheckResult]:
    results = [found] if isinstance(found, CheckResult) else list(found or ())
    for result in results:
        if not isinstance(result, CheckResult):
            raise TypeError(f"the check returned {type(result).__name__}, not a result")
    return results
