"""The absolute floors that a first release must have."""

from typing import Any

import pytest

from schemas.expectations import Expectation, Suites
from schemas.pipeline import Pipeline
from schemas.report import Verdict
from tests.schemas.test_pipeline import LEAST
from validation.floors import check_floors

BETWEEN = Expectation(
    type="expect_column_mean_to_be_between", kwargs={"column": "score", "min_value": 0.1, "max_value": 0.9}
)
ROWS = Expectation(type="expect_table_row_count_to_be_between", kwargs={"min_value": 1})


def declared(*, entities: int = 100, floors: dict[str, float] | None = None) -> Pipeline:
    training = {**LEAST["training"], "floors": {"auc": 0.6} if floors is None else floors}
    whole: dict[str, Any] = {**LEAST, "training": training, "checks": {"entities": {"min": entities}}}
    return Pipeline.model_validate(whole)


def suites(*predictions: Expectation) -> Suites:
    return Suites(inputs=[ROWS], predictions=list(predictions))


def test_all_three_declared_will_do() -> None:
    assert check_floors(declared(), suites(BETWEEN), ["score"]).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("pipeline", "predictions", "missing"),
    [
        (declared(entities=1), (BETWEEN,), "checks.entities.min"),
        (declared(floors={}), (BETWEEN,), "training.floors"),
        (declared(), (ROWS,), "a critical expectation of score under predictions"),
        (
            declared(),
            (BETWEEN.model_copy(update={"severity": "warning"}),),
            "a critical expectation of score under predictions",
        ),
    ],
)
def test_each_that_is_missing_stops_a_first_release(
    pipeline: Pipeline, predictions: tuple[Expectation, ...], missing: str
) -> None:
    result = check_floors(pipeline, suites(*predictions), ["score"])

    assert (result.verdict, result.observed) == (Verdict.FAIL, f"not declared: {missing}")
