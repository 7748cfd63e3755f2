"""Great Expectations made to fail closed: suites over a profile, over the data where a profile cannot tell.

Great Expectations drops an expectation whose type it does not know, passes an empty suite, an empty frame and most
checks of a column of nulls, and reports an error of its own as a failure of the data. Here each of these is refused, or
is a check that was not evaluated.

Importing this module imports Great Expectations, which takes seconds: a thread may do so early.
"""

import difflib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

# Read once, when Great Expectations is imported.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

from schemas.errors import DeclarationError, Problem
from schemas.expectations import Expectation
from schemas.report import CheckResult, Verdict
from schemas.run import ENTITY_ID
from validation.datadocs import write_pages
from validation.gate import not_evaluated
from validation.gx_checkpoint import WITHHELD, Suite, raised_message, run_checkpoints, shows_values
from validation.gx_engine import Table
from validation.gx_suite import allowed_keys, known_types, wrong_kwargs
from validation.known import Known
from validation.wording import in_words, seen_in_words

if TYPE_CHECKING:
    from great_expectations.core import ExpectationValidationResult
    from pyspark.sql import DataFrame

_LISTED = 20
_JUDGE_NULLS = {
    "expect_column_proportion_of_non_null_values_to_be_between",
    "expect_column_to_exist",
    "expect_column_type_to_be",
    "expect_column_values_to_be_in_type_list",
    "expect_column_values_to_be_null",
    "expect_column_values_to_be_of_type",
    "expect_column_values_to_not_be_null",
}


@dataclass(frozen=True)
class Judged:
    """A suite, and what it judges.

    Attributes:
        expectations: As declared.
        frame: The rows; called once, and only if something has to be computed from them.
        known: What is known of them already. Without it every expectation is evaluated on the rows, which are cached
            meanwhile, unless they are already.
    """

    expectations: Sequence[Expectation]
    frame: "Callable[[], DataFrame]"
    known: Known | None = None


@dataclass(frozen=True)
class Evaluated:
    """What became of the suites.

    Attributes:
        results: By suite, one for each declared expectation, in the order declared.
        page: The first page of Data Docs, if they were asked for.
    """

    results: dict[str, list[CheckResult]]
    page: Path | None


def problems(suite: str, expectations: Sequence[Expectation], where: Callable[[int], str] | str) -> list[Problem]:
    """What is wrong with a declared suite, found without any data.

    Args:
        suite: Its name in the declaration.
        expectations: As declared.
        where: The place of the expectation at an index, or the name of the file.
    """
    known = known_types()
    found: list[Problem] = []
    for index, expectation in enumerate(expectations):
        place = where(index) if callable(where) else f"{where}: {suite}.{index}"
        if expectation.type in known:
            found.extend(_kwargs_problems(expectation, place))
        else:
            hint = _near(expectation.type, known)
            text = f"unknown expectation '{expectation.type}'{hint}"
            expected = "" if hint else "a type of the Great Expectations gallery"
            found.append(Problem("VERIFY_UNKNOWN_CHECK", f"{place}.type", text, expected))
    return found


def evaluate(
    suites: Mapping[str, Judged],
    *,
    private: Collection[str] = (ENTITY_ID,),
    run_name: str = "run",
    docs: Path | None = None,
) -> Evaluated:
    """Judge suites, each by a checkpoint of Great Expectations, and write its Data Docs.

    Args:
        suites: By their names in the declaration; results are called `<suite>: <type>(<column>)`.
        private: Columns whose values are never shown.
        run_name: What Data Docs call this evaluation.
        docs: The folder that Data Docs are written to; the pages that it had are replaced.

    Raises:
        DeclarationError: a suite is empty, or `problems` finds one.
    """
    for suite, judged in suites.items():
        if wrong := problems(suite, judged.expectations, "expectations"):
            raise DeclarationError(*wrong)
        if not judged.expectations:
            raise DeclarationError(Problem("VERIFY_NO_CHECKS", f"expectations: {suite}", "is empty", "at least one"))
    opened = {suite: _Opened(judged, frozenset(private)) for suite, judged in suites.items()}
    try:
        runs = {suite: Suite(one.judged.expectations, one.table) for suite, one in opened.items() if one.scan.rows}
        with TemporaryDirectory(prefix="almanac-docs-") as folder:
            site = Path(folder) if docs else None
            found = run_checkpoints(runs, run_name=run_name, private=private, site=site)
            results = {suite: _results(suite, one, found.get(suite, {}), private) for suite, one in opened.items()}
            ended = {suite: _ended(checks) for suite, checks in results.items()}
            page = write_pages(Path(folder), docs, suites=ended, run_name=run_name) if docs else None
    finally:
        for one in opened.values():
            one.close()
    return Evaluated(results, page)


class _Opened:
    """A suite's table while it is judged."""

    def __init__(self, judged: Judged, private: frozenset[str]) -> None:
        self.judged = judged
        self.table = Table(self._open, judged.known, private)
        self._cached: DataFrame | None = None
        self.scan = _scan(judged.expectations, self.table)

    def close(self) -> None:
        if self._cached is not None:
            self._cached.unpersist()

    def _open(self) -> "DataFrame":
        frame = self.judged.frame()
        # Of a table with a profile little is read; and its files are quicker to read again than to keep.
        # A frame is also cached where another frame of the same plan was.
        if self.judged.known is None and not frame.storageLevel.useMemory:
            self._cached = frame.persist()
        return frame


@dataclass(frozen=True)
class _Scan:
    rows: int
    hollow: frozenset[str]


def _scan(expectations: Sequence[Expectation], table: Table) -> _Scan:
    """How many rows there are, and which of the columns judged hold nothing but nulls."""
    judged = (expectation.kwargs.get("column") for expectation in expectations if _needs_values(expectation))
    named = {column for column in judged if isinstance(column, str)}
    known = table.known
    rows = known.profile.rows if known else None
    nulls = {name: column.nulls for name, column in known.profile.columns.items()} if known else {}
    filled = {name: rows - nulls[name] for name in named & nulls.keys()} if rows is not None else {}
    left = named - filled.keys() - (known.unique if known else set())
    if rows is None or (rows and left):
        # Opened now: something has to be computed from the rows anyway.
        columns = [column for column in table.frame.columns if column in left]
        quoted = (column.replace("`", "``") for column in columns)
        row = table.frame.selectExpr("count(1)", *(f"count(`{column}`)" for column in quoted)).first()
        counted, *counts = row or (0,)
        if rows is not None and counted != rows:
            raise ValueError(f"the profile is of {rows:,} rows, the table has {counted:,}")
        rows = counted
        filled |= dict(zip(columns, counts, strict=True))
    return _Scan(rows, frozenset(name for name, count in filled.items() if not count))


def _needs_values(expectation: Expectation) -> bool:
    return expectation.type not in _JUDGE_NULLS


def _results(
    suite: str, opened: _Opened, found: "Mapping[int, ExpectationValidationResult]", private: Collection[str]
) -> list[CheckResult]:
    results = []
    for index, expectation in enumerate(opened.judged.expectations):
        column = expectation.kwargs.get("column")
        hollow = column in opened.scan.hollow and _needs_values(expectation)
        missing = "no rows" if not opened.scan.rows else f"every value of {column} is null" if hollow else ""
        results.append(_result(suite, expectation, missing, found.get(index), private))
    return results


def _result(
    suite: str,
    expectation: Expectation,
    missing: str,
    found: "ExpectationValidationResult | None",
    private: Collection[str],
) -> CheckResult:
    kwargs = expectation.kwargs
    name = f"{suite}: {expectation.type}" + (f"({kwargs['column']})" if "column" in kwargs else "")
    expected = in_words(expectation)
    missing = missing or _broken(found, private)
    if missing or found is None:
        return not_evaluated(name, "expectations", observed=missing, expected=expected)
    failed = Verdict.WARN if expectation.severity == "warning" else Verdict.FAIL
    return CheckResult(
        name=name,
        family="expectations",
        verdict=Verdict.PASS if found.success else failed,
        observed=seen_in_words(found.result, success=bool(found.success), shown=shows_values(found, private)),
        expected=expected,
    )


def _broken(result: "ExpectationValidationResult | None", private: Collection[str]) -> str:
    """Why the expectation has no answer; empty where it has one."""
    if result is None:
        return "Great Expectations did not evaluate it"
    raised = raised_message(result)
    if raised is not None:
        return f"Great Expectations raised: {raised if shows_values(result, private) else WITHHELD}"
    return "no row meets its row_condition" if result.result.get("element_count") == 0 else ""


def _ended(checks: Sequence[CheckResult]) -> str:
    passed = sum(check.verdict is Verdict.PASS for check in checks)
    broken = sum(not check.evaluated for check in checks)
    return f"{passed} of {len(checks)} as expected" + (f", {broken} not evaluated" if broken else "")


def _kwargs_problems(expectation: Expectation, place: str) -> Iterator[Problem]:
    allowed = allowed_keys(expectation.type)
    if unknown := [key for key in expectation.kwargs if key not in allowed]:
        for key in unknown:
            hint = _near(key, allowed)
            expected = "" if hint else f"one of {', '.join(allowed)}"
            yield Problem("CFG_INVALID", f"{place}.kwargs.{key}", f"unknown key{hint}", expected)
        return
    for key, message in wrong_kwargs(expectation).items():
        yield Problem("CFG_INVALID", f"{place}.kwargs{key}", message)


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
