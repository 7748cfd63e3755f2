"""A pipeline may predict classes, ranks or numbers, by models of several libraries, down to what readers get."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.bundles import check_promises, proven_bundle
from jobs.training import train
from lookup.store import Store
from schemas.declared import load_pipeline
from schemas.errors import AlmanacError
from schemas.run import PREDICTIONS
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import PIPELINE, WEEK, almanac, flight_id, look_up

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

CLASSES = ["early", "on_time", "late"]
LABEL = "label: arr_delay IS NULL OR arr_delay > 15"
DELAY = "coalesce(arr_delay, 999)"
CLASS_OF = f"CASE WHEN {DELAY} < 0 THEN 'early' WHEN {DELAY} <= 15 THEN 'on_time' ELSE 'late' END"
PARAMS = "params: {num_leaves: 63, learning_rate: 0.05, min_data_in_leaf: 5, feature_fraction: 0.7, lambda_l2: 1.0}"


@pytest.fixture(autouse=True)
def _one_session(spark: "SparkSession") -> None:
    """Runs find the session of the tests, as they find one of their process."""


def declare(settings: Settings, objective: str, label: str, floors: str, *more: tuple[str, str]) -> None:
    rewrite(
        settings.pipelines / PIPELINE / "pipeline.yaml",
        (LABEL, f"label: {label}"),
        ("objective: binary", f"objective: {objective}"),
        ("floors: {auc: 0.55}", f"floors: {floors}"),
        *more,
    )


def classes(settings: Settings) -> None:
    """Declare three classes, a default of them and what is expected of them."""
    default = "default: {p_early: 0.3, p_on_time: 0.4, p_late: 0.3, class: on_time}"
    named = f"multiclass\n  classes: [{', '.join(CLASSES)}]"
    declare(settings, named, CLASS_OF, "{accuracy: 0.4}", ("default: {score: 0.25}", default))
    rewrite(settings.pipelines / PIPELINE / "expectations.yaml", ("column: score", "column: p_late"))


def test_classes_are_predicted_published_and_answered_by_their_names(settings: Settings, spark: "SparkSession") -> None:
    classes(settings)
    bundle = train(spark, settings, load_pipeline(settings, PIPELINE)).bundle
    assert set(bundle.manifest.metrics) == {"accuracy", "multi_logloss"}

    finished = almanac(settings)

    folder = Store(settings.store, PIPELINE).run_folder(finished.manifest.run_id)
    files = finished.manifest.files_in(PREDICTIONS)
    rows = pa.concat_tables([pq.read_table(folder / file.path) for file in files])
    shares = np.column_stack([rows[f"p_{name}"].to_numpy() for name in CLASSES])
    assert rows.num_rows == WEEK
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.array_equal(rows["class"].to_numpy(), shares.argmax(axis=1))
    (known, unknown) = look_up(settings, flight_id(settings, 0), "ZZ:1:LGA:2099-01-01")
    assert known.status == "exact"
    likeliest = max(CLASSES, key=lambda name: float(known.outputs[f"p_{name}"] or 0))
    assert known.outputs["class"] == likeliest
    assert unknown.status == "prior"
    assert unknown.outputs["class"] == max(CLASSES, key=lambda name: float(unknown.outputs[f"p_{name}"] or 0))
    (other,) = look_up(settings, "ZZ:1:XXX:2099-01-01")
    assert (other.status, other.outputs["class"]) == ("default", "on_time")


def test_a_default_that_is_no_class_is_refused(settings: Settings, spark: "SparkSession") -> None:
    classes(settings)
    train(spark, settings, load_pipeline(settings, PIPELINE))
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("class: on_time", "class: never"))
    with pytest.raises(AlmanacError, match=r"fallback\.default\.class: 'never'; expected one of early, on_time, late"):
        almanac(settings)


def test_a_label_of_no_declared_class_is_refused(settings: Settings, spark: "SparkSession") -> None:
    classes(settings)
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("ELSE 'late'", "ELSE 'later'"))
    with pytest.raises(AlmanacError, match=r"rows of no declared class; expected early, on_time, late"):
        train(spark, settings, load_pipeline(settings, PIPELINE))


@pytest.mark.parametrize(
    ("objective", "label", "floors", "more", "metrics"),
    [
        ("ranking\n  group: date", f"least(4, greatest(0, {DELAY} DIV 10))", "{ndcg: 0.3}", [], {"spearman", "ndcg"}),
        (
            "regression", "greatest(arr_delay, 0)", "{}", [(PARAMS, "params: {objective: poisson}")],
            {"r2", "rmse", "mae"},
        ),
        (
            "binary\n  flavor: sklearn\n  estimator: hist_gradient_boosting",
            "arr_delay > 15", "{auc: 0.5}", [(PARAMS, "params: {max_leaf_nodes: 7}")],
            {"auc", "log_loss", "base_rate", "mean_score"},
        ),
        (
            "binary\n  flavor: linear", "arr_delay > 15", "{auc: 0.5}", [(PARAMS, "params: {C: 0.5}")],
            {"auc", "log_loss", "base_rate", "mean_score"},
        ),
    ],
    ids=["ranking", "poisson", "sklearn", "linear"],
)  # fmt: skip
def test_other_models_are_trained_and_keep_their_promises(
    objective: str, label: str, floors: str, more: list[tuple[str, str]], metrics: set[str],
    settings: Settings, session: "SparkSession",
) -> None:  # fmt: skip
    declare(settings, objective, label, floors, *more)
    bundle = train(session, settings, load_pipeline(settings, PIPELINE)).bundle
    proven, difference = proven_bundle(bundle.folder, bundle.digest)
    check_promises(proven, {})
    assert difference == 0.0
    assert set(bundle.manifest.metrics) == metrics


@pytest.mark.parametrize(
    ("flavor", "params", "message"),
    [
        ("lightgbm", "{objective: multiclass}", r"params\.objective: multiclass; expected binary or cross_entropy"),
        ("linear", "{depth: 3}", r"training\.params: .*depth.*expected parameters that the estimator takes"),
    ],
)
def test_parameters_that_a_library_does_not_take_are_refused(
    flavor: str, params: str, message: str, settings: Settings, session: "SparkSession"
) -> None:
    declare(settings, f"binary\n  flavor: {flavor}", "arr_delay > 15", "{}", (PARAMS, f"params: {params}"))
    with pytest.raises(AlmanacError, match=message):
        train(session, settings, load_pipeline(settings, PIPELINE))
