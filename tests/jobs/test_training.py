"""Training makes the same bundle from the same data, and none that is below its floor."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pytest

from jobs.bundles import check_promises, find_bundle, open_bundle, proven_bundle
from jobs.training import train
from schemas.bundle import EXPECTED_COLUMN
from schemas.declared import load_pipeline
from schemas.errors import BlockedError, DeclarationError, InputError
from schemas.settings import Settings
from tests.flights import rewrite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def bundle_folder(settings: Settings) -> Path:
    return find_bundle(settings.store / "flight_delay" / "bundles", "latest", where="test")


def test_the_same_data_gives_the_same_bundle(settings: Settings, session: "SparkSession") -> None:
    before = bundle_folder(settings).name
    again = train(session, settings, load_pipeline(settings, "flight_delay")).bundle
    assert again.id == before


def test_a_bundle_reproduces_its_holdout_and_its_metrics(settings: Settings) -> None:
    bundle = open_bundle(bundle_folder(settings))
    check_promises(bundle, {"auc": 0.55})
    _, difference = proven_bundle(bundle.folder, bundle.digest)
    assert difference == 0.0
    assert bundle.manifest.training.holdout_rows == 4 * 60
    assert bundle.manifest.training.rows == 10 * 60


def test_a_bundle_tells_of_the_rows_it_learnt_from_and_of_its_scores_for_those_it_did_not(settings: Settings) -> None:
    bundle = open_bundle(bundle_folder(settings))
    features, scores = bundle.profile.features, bundle.profile.scores
    assert (features.rows, scores.rows) == (10 * 60, 4 * 60)
    assert list(features.columns) == [feature.name for feature in bundle.manifest.features]
    assert {name: column.kind for name, column in features.columns.items()} == {
        feature.name: "numeric" if feature.kind == "numeric" else "category" for feature in bundle.manifest.features
    }
    score = scores.columns["score"]
    assert score.kind == "numeric"
    assert score.mean == pytest.approx(pc.mean(bundle.holdout[EXPECTED_COLUMN]).as_py(), rel=1e-12)


def test_a_model_below_its_floor_is_not_made(settings: Settings, session: "SparkSession") -> None:
    rewrite(settings.pipelines / "flight_delay" / "pipeline.yaml", ("floors: {auc: 0.55}", "floors: {auc: 0.999}"))
    before = bundle_folder(settings)
    with pytest.raises(BlockedError, match=r"auc: 0\.\d+; expected at least 0.999"):
        train(session, settings, load_pipeline(settings, "flight_delay"))
    assert bundle_folder(settings) == before


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        ("arr_delay", InputError, r"training\.label: values .*expected 0 and 1"),
        ("arr_delay > 100000", InputError, "one value only among the rows to train on"),
        ("no_such_column > 15", DeclarationError, "no_such_column"),
        ("CAST(NULL AS BOOLEAN)", InputError, "no labelled row is to train on"),
    ],
)
def test_a_label_that_teaches_nothing_is_refused(
    settings: Settings, session: "SparkSession", label: str, error: type[Exception], message: str
) -> None:
    rewrite(
        settings.pipelines / "flight_delay" / "pipeline.yaml",
        ("label: arr_delay IS NULL OR arr_delay > 15", f"label: {label}"),
    )
    before = bundle_folder(settings)
    with pytest.raises(error, match=message):
        train(session, settings, load_pipeline(settings, "flight_delay"))
    assert bundle_folder(settings) == before


def test_a_random_split_keeps_an_entity_on_its_side(settings: Settings, session: "SparkSession") -> None:
    rewrite(
        settings.pipelines / "flight_delay" / "pipeline.yaml",
        ("split: {by: date, at: 2013-01-11}", "split: {holdout_share: 0.25}"),
    )
    declared = load_pipeline(settings, "flight_delay")
    first, second = (train(session.newSession(), settings, declared).bundle for _ in range(2))
    assert first.id == second.id
    assert 0.15 < first.manifest.training.holdout_rows / 840 < 0.35


def test_parameters_that_lightgbm_refuses_are_named(settings: Settings, session: "SparkSession") -> None:
    rewrite(settings.pipelines / "flight_delay" / "pipeline.yaml", ("num_leaves: 63", "num_leaves: -3"))
    with pytest.raises(DeclarationError, match=r"training\.params: .*num_leaves"):
        train(session, settings, load_pipeline(settings, "flight_delay"))


def test_training_again_heals_a_damaged_bundle(settings: Settings, session: "SparkSession") -> None:
    folder = bundle_folder(settings)
    (folder / "model.txt").write_text("tree")
    assert train(session, settings, load_pipeline(settings, "flight_delay")).bundle.folder == folder
    open_bundle(folder)
