"""Expectations and what they saw, as a reader of the report is told."""

from collections.abc import Mapping
from typing import Any

from schemas.expectations import Expectation

_EXAMPLES = 5
_LISTED = 20


def in_words(expectation: Expectation) -> str:
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
        words = f"{words.removesuffix(' between').removesuffix(' at most')} {limit}"
    return "; ".join([words, *(f"{key}: {_words(value)}" for key, value in kwargs.items())])


def seen_in_words(result: Mapping[str, Any], *, success: bool, shown: bool) -> str:
    """What was observed: counts and examples of rows, or a value.

    Args:
        result: As Great Expectations gives it.
        success: Whether it is as expected.
        shown: Whether values may be told; counts of rows always are.
    """
    if "unexpected_count" in result and "element_count" in result:
        elements = result["element_count"]
        share = f" of {elements:,} rows ({result['unexpected_count'] / elements:.2%})" if elements else ""
        nulls = f"; {result['missing_count']:,} are null" if result.get("missing_count") else ""
        examples = list(result.get("partial_unexpected_list") or [])[:_EXAMPLES] if shown else []
        listed = f"; for example {_words(examples)}" if examples else ""
        return f"{result['unexpected_count']:,}{share} unexpected{nulls}{listed}"
    if "unexpected_count" in result:
        examples = list(result.get("partial_unexpected_list") or [])[:_EXAMPLES] if shown else []
        listed = f": {_words(examples)}" if examples else ""
        return f"{result['unexpected_count']:,} distinct values unexpected{listed}"
    value = result.get("observed_value")
    if value is None or not shown:
        return "as expected" if success else "not as expected"
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
