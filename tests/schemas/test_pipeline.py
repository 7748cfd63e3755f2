"""The declaration's defaults and its small rules."""

import datetime as dt
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.checks import Drift
from schemas.pipeline import Features, Pipeline, Source, Split, Training

SPLIT = {"holdout_share": 0.2}
LEAST: dict[str, Any] = {
    "pipeline": "churn",
    "description": "Who leaves.",
    "owner": "crm",
    "start": dt.date(2026, 1, 1),
    "entity": {"source": "customers", "key": ["customer_id"]},
    "sources": {"customers": {"path": "customers.csv", "format": "csv"}},
    "features": {"numeric": ["tenure"]},
    "training": {"label": "churned = 'Yes'", "split": SPLIT},
}


def test_the_least_declaration_has_safe_defaults() -> None:
    pipeline = Pipeline.model_validate(LEAST)
    assert (pipeline.schedule, pipeline.models.champion.bundle, pipeline.publish.keep) == ("@daily", "latest", 3)
    assert (pipeline.checks.max_quarantined, pipeline.checks.drift) == (0.05, Drift())


def test_the_name_of_the_maintenance_dag_is_not_a_pipelines() -> None:
    with pytest.raises(ValidationError, match="'maintenance' is the name of the DAG that maintains all pipelines"):
        Pipeline.model_validate(LEAST | {"pipeline": "maintenance"})


def test_a_declaration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Pipeline.model_validate(LEAST).owner = "someone"  # type: ignore[misc]


def test_a_number_in_quotes_is_no_number() -> None:
    with pytest.raises(ValidationError, match="valid integer"):
        Training.model_validate({"label": "x", "split": SPLIT, "rounds": "10"})


@pytest.mark.parametrize("value", [float("inf"), float("nan"), None, [1], {"a": 1}])
def test_a_parameter_that_lightgbm_cannot_take_is_one_error(value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Training.model_validate({"label": "x", "split": SPLIT, "params": {"num_leaves": value}})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize("value", [31, 0.5, "gbdt", True])
def test_a_parameter_keeps_its_type(value: Any) -> None:
    params = Training.model_validate({"label": "x", "split": SPLIT, "params": {"p": value}}).params
    assert params == {"p": value}
    assert type(params["p"]) is type(value)


def test_all_days_are_required_unless_said() -> None:
    assert Source(path="x", days=7).days_required == 7
    assert Source(path="x", days=7, required_days=2).days_required == 2


def test_a_csv_column_can_be_declared_as_string_only() -> None:
    with pytest.raises(ValidationError, match="age: CSV columns are read as string"):
        Source(path="x.csv", format="csv", columns={"id": "string", "age": "int64"})


def test_features_differ_in_more_than_case() -> None:
    with pytest.raises(ValidationError, match="declared twice: age"):
        Features(numeric=["age"], categorical=["Age"])


def test_features_are_numeric_then_categorical() -> None:
    assert Features(categorical=["c"], numeric=["b", "a"]).columns == ["b", "a", "c"]


def test_no_feature_at_all_is_refused() -> None:
    with pytest.raises(ValidationError, match="no feature is declared"):
        Features()


@pytest.mark.parametrize("split", [{}, {"by": "d"}, {"at": dt.date(2026, 1, 1)}, {"by": "d", "holdout_share": 0.2}])
def test_a_split_is_of_one_kind(split: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="declare either `by` and `at`"):
        Split(**split)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"objective": "multiclass"}, "declare classes for multiclass"),
        ({"classes": ["a", "b", "c"]}, "declare classes for multiclass, and for nothing else"),
        ({"objective": "multiclass", "classes": ["a", "b"]}, "expected three or more"),
        ({"objective": "multiclass", "classes": ["a", "A", "b"]}, "told apart in lower case"),
        ({"objective": "multiclass", "classes": ["a", "b", "on-time"]}, "should match pattern"),
        ({"objective": "multiclass", "classes": [f"c{n}" for n in range(11)]}, "at most 10 items"),
        ({"objective": "ranking"}, "declare group for ranking"),
        ({"group": "day"}, "declare group for ranking, and for nothing else"),
        ({"objective": "ranking", "group": "day", "flavor": "linear"}, "flavor linear does not rank"),
        ({"flavor": "sklearn"}, "declare estimator for flavor sklearn"),
        ({"estimator": "random_forest"}, "and for no other"),
        ({"flavor": "pytorch"}, "should be 'lightgbm', 'sklearn' or 'linear'"),
        ({"flavor": "sklearn", "estimator": "svm"}, "should be 'hist_gradient_boosting'"),
        (
            {"objective": "regression", "flavor": "sklearn", "estimator": "logistic_regression"},
            "logistic_regression predicts no number",
        ),
        ({"objective": "ranking", "group": "day", "floors": {"auc": 0.5}}, "a ranking model has no metric auc"),
    ],
)
def test_a_training_that_contradicts_itself_is_refused(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Training.model_validate({"label": "x", "split": SPLIT, **declared})
