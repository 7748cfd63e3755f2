"""The expectations that may be declared: Great Expectations' own and Almanac's, and how one is built."""

from collections.abc import Mapping

from great_expectations.exceptions.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation import Expectation as GxExpectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.registry import get_expectation_impl, list_registered_expectation_implementations

from schemas.expectations import Expectation
from validation import gx_custom

INDEX = "declared_at"
# Ours to set, or of no meaning on one data frame.
_RESERVED = {*GxExpectation.__fields__, "batch_id", "library_metadata"}
# That they are registered is what their import is for.
_CUSTOM = (gx_custom.ExpectColumnValuesToBeFinite, gx_custom.ExpectColumnTopValueShareToBeAtMost)


def known_types() -> list[str]:
    """Every type that may be declared, sorted."""
    return sorted(name for name in list_registered_expectation_implementations() if name.startswith("expect_"))


def allowed_keys(kind: str) -> list[str]:
    """The keys that `kwargs` of this type may have, sorted."""
    return sorted(set(get_expectation_impl(kind).__fields__) - _RESERVED)


def build(expectation: Expectation, index: int) -> GxExpectation:
    """The expectation as Great Expectations' own object, which belongs to one suite.

    Raises:
        GreatExpectationsError, TypeError, ValueError: its `kwargs` are wrong.
    """
    kind = get_expectation_impl(expectation.type)
    severity = FailureSeverity(expectation.severity)
    return kind(**expectation.kwargs, severity=severity, notes=expectation.notes, meta={INDEX: index})


def wrong_kwargs(expectation: Expectation) -> Mapping[str, str]:
    """What is wrong with its `kwargs`: where in them (`.column`, or nothing) -> what."""
    try:
        build(expectation, 0)
    except (GreatExpectationsError, TypeError, ValueError) as err:
        if not hasattr(err, "errors"):
            return {"": str(err)}
        # A value that was tried against several types has an error for each: the first says enough.
        places = {detail["loc"][0]: detail["msg"] for detail in reversed(err.errors())}
        return {"" if place == "__root__" else f".{place}": message for place, message in places.items()}
    return {}
