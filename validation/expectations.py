"""Great Expectations on a Spark data frame, made to fail closed; the only file that imports it.

Great Expectations drops an expectation whose type it does not know, passes an empty suite, an empty frame and most
checks of a column of nulls, and reports an error of its own as a failure of the data. Here each of these is refused, or
is a check that was not evaluated.
"""

import difflib
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

# Read once, when the package is imported.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx
from great_expectations.core import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.exceptions.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation import Expectation as GxExpectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.registry import get_expectation_impl, list_registered_expectation_implementations

from schemas.errors import DeclarationError, Problem
from schemas.expectations import Expectation
from schemas.report import CheckResult, Verdict
from schemas.run import ENTITY_ID
from validation.gate import not_evaluated

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

EXAMPLES = 5
_LISTED = 20
_INDEX = "declared_at"
# Ours to set, or of no meaning on one data frame.
_RESERVED = {*GxExpectation.__fields__, "batch_id", "library_metadata"}
_JUDGE_NULLS = {
    "expect_column_proportion_of_non_null_values_to_be_between",
    "expect_column_to_exist",
    "expect_column_type_to_be",
    "expect_column_values_to_be_in_type_list",
    "expect_column_values_to_be_null",
    "expect_column_values_to_be_of_type",
    "expect_column_values_to_not_be_null",
}


def problems(suite: str, expectations: Sequence[Expectation], where: Callable[[int], str] | str) -> list[Problem]:
    """What is wrong with a declared suite, found without any data.

    Args:
        suite: Its name in the declaration.
        expectations: As declared.
        where: The place of the expectation at an index, or the name of the file.
    """
    known = sorted(name for name in list_registered_expectation_implementations() if name.startswith("expect_"))
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
    suite: str, expectations: Sequence[Expectation], frame: "DataFrame", *, private: Collection[str] = (ENTITY_ID,)
) -> list[CheckResult]:
    """One result for each declared expectation, in the order declared.

    Args:
        suite: Its name in the declaration; results are called `<suite>: <type>(<column>)`.
        expectations: As declared.
        frame: What is judged. It is cached meanwhile, unless it is already.
        private: Columns whose values are never shown.

    Raises:
        DeclarationError: the suite is empty, or `problems` finds one.
    """
    if wrong := problems(suite, expectations, "expectations"):
        raise DeclarationError(*wrong)
    if not expectations:
        raise DeclarationError(Problem("VERIFY_NO_CHECKS", f"expectations: {suite}", "is empty", "at least one"))
    cached = frame.storageLevel.useMemory  # also where another frame of the same plan was cached
    if not cached:
        frame.persist()
    try:
        rows, hollow = _scan(expectations, frame)
        found = _validate(suite, expectations, frame) if rows else {}
    finally:
        if not cached:
            frame.unpersist()
    results = []
    for index, expectation in enumerate(expectations):
        missing = "no rows" if not rows else _hollow(expectation, hollow) or _broken(found.get(index))
        results.append(_result(suite, expectation, missing, found.get(index), private))
    return results


def _kwargs_problems(expectation: Expectation, place: str) -> Iterator[Problem]:
    kind = get_expectation_impl(expectation.type)
    allowed = sorted(set(kind.__fields__) - _RESERVED)
    if unknown := [key for key in expectation.kwargs if key not in allowed]:
        for key in unknown:
            hint = _near(key, allowed)
            expected = "" if hint else f"one of {', '.join(allowed)}"
            yield Problem("CFG_INVALID", f"{place}.kwargs.{key}", f"unknown key{hint}", expected)
        return
    try:
        _build(expectation, 0)
    except (GreatExpectationsError, TypeError, ValueError) as err:
        for key, message in _messages(err).items():
            yield Problem("CFG_INVALID", f"{place}.kwargs{key}", message)


def _messages(err: Exception) -> dict[str, str]:
    if not hasattr(err, "errors"):
        return {"": str(err)}
    # A value that was tried against several types has an error for each: the first says enough.
    places = {detail["loc"][0]: detail["msg"] for detail in reversed(err.errors())}
    return {"" if place == "__root__" else f".{place}": message for place, message in places.items()}


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _build(expectation: Expectation, index: int) -> GxExpectation:
    kind = get_expectation_impl(expectation.type)
    return kind(**expectation.kwargs, severity=FailureSeverity(expectation.severity), meta={_INDEX: index})


def _scan(expectations: Sequence[Expectation], frame: "DataFrame") -> tuple[int, set[str]]:
    """How many rows there are, and which of the columns judged hold nothing but nulls."""
    named = {expectation.kwargs.get("column") for expectation in expectations}
    columns = [column for column in frame.columns if column in named]
    quoted = (column.replace("`", "``") for column in columns)
    row = frame.selectExpr("count(1)", *(f"count(`{column}`)" for column in quoted)).first()
    rows, *filled = row or (0,)
    return rows, {column for column, count in zip(columns, filled, strict=True) if not count}


def _validate(
    suite: str, expectations: Sequence[Expectation], frame: "DataFrame"
) -> dict[int, ExpectationValidationResult]:
    # A context of its own for every call: a shared one mixes up the frames of two threads without a word.
    # It sets this logger to INFO by itself, to tell of its temporary folders.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_spark("spark").add_dataframe_asset(suite)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": frame})
    built = [_build(expectation, index) for index, expectation in enumerate(expectations)]
    result_format = {"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES}
    answer = batch.validate(gx.ExpectationSuite(name=suite, expectations=built), result_format=result_format)
    return {result.expectation_config.meta[_INDEX]: result for result in answer.results if result.expectation_config}


def _hollow(expectation: Expectation, hollow: Collection[str]) -> str:
    column = expectation.kwargs.get("column")
    judges_nulls = expectation.type in _JUDGE_NULLS
    return f"every value of {column} is null" if column in hollow and not judges_nulls else ""


def _broken(result: ExpectationValidationResult | None) -> str:
    """Why the expectation has no answer; empty where it has one."""
    if result is None:
        return "Great Expectations did not evaluate it"
    info = result.exception_info or {}
    # Either one flat record, or one for each metric that failed.
    raised = [each for each in (info, *info.values()) if isinstance(each, Mapping) and each.get("raised_exception")]
    if raised:
        return f"Great Expectations raised: {str(raised[0]['exception_message']).strip().partition(chr(10))[0]}"
    return "no row meets its row_condition" if result.result.get("element_count") == 0 else ""


def _result(
    suite: str,
    expectation: Expectation,
    missing: str,
    found: ExpectationValidationResult | None,
    private: Collection[str],
) -> CheckResult:
    kwargs = expectation.kwargs
    name = f"{suite}: {expectation.type}" + (f"({kwargs['column']})" if "column" in kwargs else "")
    expected = _expected(expectation)
    if missing or found is None:
        return not_evaluated(name, "expectations", observed=missing, expected=expected)
    failed = Verdict.WARN if expectation.severity == "warning" else Verdict.FAIL
    columns = {value for value in (kwargs.get("column"), kwargs.get("column_A"), kwargs.get("column_B")) if value}
    shown = not (columns | set(kwargs.get("column_list", ()))) & set(private)
    return CheckResult(
        name=name,
        family="expectations",
        verdict=Verdict.PASS if found.success else failed,
        observed=_observed(found, shown),
        expected=expected,
    )


def _expected(expectation: Expectation) -> str:
    """The expectation as a sentence: `score values to be between 0 and 1`."""
    kwargs = dict(expectation.kwargs)
    words = expectation.type.removeprefix("expect_").replace("_", " ")
    if "column" in kwargs:
        words = words.replace("column", str(kwargs.pop("column")), 1)
    least, most = kwargs.pop("min_value", None), kwargs.pop("max_value", None)
    if least is not None and most is not None:
        words += f" {_words(least)} and {_words(most)}"
    elif least is not None or most is not None:
        limit = f"at least {_words(least)}" if most is None else f"at most {_words(most)}"
        words = f"{words.removesuffix(' between')} {limit}"
    return "; ".join([words, *(f"{key}: {_words(value)}" for key, value in kwargs.items())])


def _observed(found: ExpectationValidationResult, shown: bool) -> str:
    result = found.result
    if "unexpected_count" in result:
        elements = result.get("element_count")
        share = f" of {elements:,} rows ({result['unexpected_count'] / elements:.2%})" if elements else ""
        nulls = f"; {result['missing_count']:,} are null" if result.get("missing_count") else ""
        examples = list(result.get("partial_unexpected_list") or [])[:EXAMPLES] if shown else []
        listed = f"; for example {_words(examples)}" if examples else ""
        return f"{result['unexpected_count']:,}{share} unexpected{nulls}{listed}"
    value = result.get("observed_value")
    if value is None or not (shown or isinstance(value, int | float)):
        return "as expected" if found.success else "not as expected"
    return _words(value)


def _words(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(each)}" for key, each in value.items())
    if isinstance(value, list | tuple | set):
        listed = list(value)
        more = [f"... and {len(listed) - _LISTED} more"] if len(listed) > _LISTED else []
        return ", ".join([*map(_words, listed[:_LISTED]), *more])
    return str(value)
