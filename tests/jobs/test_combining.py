"""Combinations: several models that score a row together, the same to the bit however the rows come."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.bundles import open_bundle, proven_bundle
from jobs.combining import in_fold, stacked
from jobs.flavors.ensemble import Ensemble, EnsembleModel, linked
from jobs.flavors.scorer import Signature, UnloadableError
from jobs.matrix import feature_columns
from jobs.training import train
from lookup.store import Store
from schemas.bundle import Feature
from schemas.declared import load_pipeline
from schemas.errors import DeclarationError, InputError
from schemas.run import FEATURES, PREDICTIONS
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import CHAMPION, PIPELINE, almanac, declare, look_up, rows
from validation.parity import Floats

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TWO = "members: [{name: deep, rounds: 8}, {name: flat, params: {num_leaves: 3}, seed: 11}]"
WEIGHTED = "members: [{name: deep, rounds: 8, weight: 3}, {name: flat, params: {num_leaves: 3}, weight: 1}]"
UNIT = st.floats(0, 1)
SIGNATURE = Signature(tuple(Feature(name=name, kind="numeric") for name in ("Column_0", "Column_1")), "regression")


def combine(settings: Settings, how: str, members: str) -> None:
    """Declare a champion that is a combination."""
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(path, (CHAMPION, f"{CHAMPION}    combine: {{how: {how}, {members}}}\n"))


def of(how: str, count: int, **more: Any) -> EnsembleModel:
    return EnsembleModel.model_construct(how=how, members=(None,) * count, **{"weights": (), **more})


@given(table=st.lists(st.tuples(UNIT, UNIT, UNIT), min_size=1, max_size=50), cut=st.integers(1, 50))
@pytest.mark.parametrize(
    "ensemble",
    [
        of("mean", 3),
        of("weighted_mean", 3, weights=(1.0, 2.5, 0.1)),
        of("max", 3),
        of("stack", 3, weights=(0.7, -0.2, 1.1), intercept=0.3, link="logistic"),
        of("stack", 3, weights=(0.7, -0.2, 1.1), intercept=0.3, link="identity"),
    ],
    ids=lambda each: f"{each.how} {each.link}",
)
def test_a_row_is_combined_by_itself_to_the_bit(
    ensemble: EnsembleModel, table: list[tuple[float, float, float]], cut: int
) -> None:
    columns = [np.array(column) for column in zip(*table, strict=True)]

    whole = ensemble.combined(columns)

    parts = [ensemble.combined([column[at : at + cut] for column in columns]) for at in range(0, len(table), cut)]
    assert whole.tobytes() == np.concatenate(parts).tobytes()
    assert np.isfinite(whole).all()


@given(st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=20))
def test_means_and_the_highest_are_what_they_are_called(table: list[tuple[float, float]]) -> None:
    one, two = (np.array(column) for column in zip(*table, strict=True))

    assert of("mean", 2).combined([one, two]).tolist() == [(a + b) / 2 for a, b in table]
    assert of("max", 2).combined([one, two]).tolist() == [max(a, b) for a, b in table]
    weighted = of("weighted_mean", 2, weights=(3.0, 1.0)).combined([one, two])
    assert weighted.tolist() == [(3.0 * a + 1.0 * b) / 4.0 for a, b in table]


def test_a_stack_of_one_weight_gives_the_probability_back() -> None:
    scores = np.array([0.0, 0.1, 0.5, 0.999, 1.0])

    found = of("stack", 2, weights=(1.0, 0.0), link="logistic").combined([scores, np.full(5, 0.5)])

    assert found == pytest.approx(scores, abs=1e-12)
    assert np.isnan(of("max", 2).combined([np.array([np.nan]), np.array([1.0])]))[0]  # set aside by the run


@pytest.mark.spark
@pytest.mark.parametrize(
    ("how", "members", "expected"),
    [
        ("mean", TWO, lambda a, b: (a + b) / 2),
        ("weighted_mean", WEIGHTED, lambda a, b: (3.0 * a + 1.0 * b) / 4.0),
        ("max", TWO, np.maximum),
    ],
)
def test_a_combination_serves_what_its_members_come_to_and_rows_name_it(
    settings: Settings, spark: "SparkSession", how: str, members: str, expected: Any
) -> None:
    combine(settings, how, members)
    bundle = train(spark, settings, load_pipeline(settings, PIPELINE)).bundle

    manifest = almanac(settings).manifest

    served, features = rows(settings, manifest, PREDICTIONS), rows(settings, manifest, FEATURES)
    assert isinstance(bundle.scorer, Ensemble)
    columns = feature_columns(bundle.manifest.features, features, model="test")
    outputs = [each.library().predict(columns) for each in bundle.scorer.members]
    assert served.column("score").to_pylist() == expected(*outputs).tolist()
    assert len({tuple(each.tolist()) for each in outputs}) == 2
    assert pc.unique(served.column("model")).to_pylist() == [bundle.id] == [manifest.models["champion"]]
    (parity,) = manifest.parity
    (engine,) = parity.engines
    assert (parity.max_abs_difference, engine.partition(" of ")[0]) == (0.0, how)
    (answer,) = look_up(settings, served.column("entity_id")[0].as_py())
    assert (answer.model, answer.variant) == (bundle.id, "champion")


@pytest.mark.spark
def test_a_stack_learns_from_what_its_members_have_not_seen(settings: Settings, spark: "SparkSession") -> None:
    combine(settings, "stack", TWO)
    declared = load_pipeline(settings, PIPELINE)

    bundle = train(spark, settings, declared).bundle

    assert isinstance(bundle.scorer, Ensemble)
    stack = bundle.scorer.model
    assert (len(stack.weights), stack.link) == (2, "logistic")
    assert all(rows_learnt(each.model) < bundle.manifest.training.rows for each in stack.members)
    assert train(spark, settings, declared).bundle.id == bundle.id  # the same data, the same coefficients
    manifest = almanac(settings).manifest
    features = rows(settings, manifest, FEATURES)
    columns = feature_columns(bundle.manifest.features, features, model="test")
    outputs = [linked(each.library().predict(columns), "logistic") for each in bundle.scorer.members]
    z = stack.weights[0] * outputs[0] + stack.weights[1] * outputs[1] + stack.intercept
    assert rows(settings, manifest, PREDICTIONS).column("score").to_numpy() == pytest.approx(1 / (1 + np.exp(-z)))
    folded = in_fold(features.column("entity_id"))
    assert 0.1 < folded.mean() < 0.4


def rows_learnt(text: str) -> int:
    """How many rows the first tree of a LightGBM model was grown from."""
    line = next(line for line in text.splitlines() if line.startswith("internal_count="))
    return int(line.partition("=")[2].split()[0])


@pytest.mark.spark
def test_a_route_and_a_challenger_may_be_combinations_too(settings: Settings, spark: "SparkSession") -> None:
    mean = f"combine: {{how: mean, {TWO}}}"
    declare(
        settings,
        spark,
        f"routes: [{{name: jfk, where: \"origin = 'JFK'\", {mean}}}]",
        f"challengers: [{{name: both, mode: shadow, {mean}}}]",
    )

    manifest = almanac(settings).manifest

    folder = Store(settings.store, PIPELINE).bundles
    flavors = {name: open_bundle(folder / model).manifest.flavor for name, model in manifest.models.items()}
    assert flavors == {"champion": "lightgbm", "jfk": "ensemble", "both": "ensemble"}
    assert len({*manifest.models.values()}) == 3


@pytest.mark.spark
def test_weights_and_ways_give_bundles_of_their_own(settings: Settings, spark: "SparkSession") -> None:
    found = set()
    path = settings.pipelines / PIPELINE / "pipeline.yaml"
    combine(settings, "mean", TWO)
    for change in (("how: mean", "how: mean"), ("how: mean", "how: max"), ("seed: 11", "seed: 12")):
        rewrite(path, change)
        bundle = train(spark, settings, load_pipeline(settings, PIPELINE)).bundle
        assert proven_bundle(bundle.folder, bundle.digest)[1] == 0.0
        found.add(bundle.id)
    assert len(found) == 3


@pytest.fixture(scope="module")
def members() -> list[dict[str, str]]:
    import lightgbm

    draw = np.random.default_rng(7)
    data = draw.normal(size=(60, 2))
    fixed = {"verbosity": -1, "min_data_in_leaf": 5}
    models = [lightgbm.train(fixed, lightgbm.Dataset(data, data[:, 0] * at), 3) for at in (1, 2)]
    other = lightgbm.train(fixed, lightgbm.Dataset(data, data[:, 0], feature_name=["x", "y"]), 3)
    return [{"name": f"m{at}", "model": model.model_to_string()} for at, model in enumerate([*models, other])]


@pytest.mark.parametrize(
    ("chosen", "change", "told"),
    [
        ((0, 1), {"how": "median"}, "how"),
        ((0,), {}, "members"),
        ((0, 1), {"weights": [1.0]}, "1 weights of a mean of 2 members"),
        ((0, 1), {"how": "stack", "weights": []}, "0 weights of a stack of 2 members"),
        ((0, 2), {}, "its members read other columns"),
        ((0, 1), {"intercept": float("nan")}, "intercept"),
        ((0, 1), {"code": "import os"}, "code"),
    ],
)
def test_a_file_that_is_no_combination_is_refused(
    members: list[dict[str, str]], chosen: Sequence[int], change: dict[str, Any], told: str
) -> None:
    content = {"how": "mean", "members": [members[at] for at in chosen], **change}

    with pytest.raises(UnloadableError, match=told):
        Ensemble(json.dumps(content).encode(), SIGNATURE)


def test_what_a_combination_writes_is_read_back_to_the_bit(members: list[dict[str, str]], tmp_path: Path) -> None:
    weights = (0.1 + 0.2, 1 / 3)
    content = {"how": "stack", "members": members[:2], "weights": weights, "intercept": 1e-17}
    made = Ensemble(json.dumps(content).encode(), SIGNATURE)
    columns: list[Floats] = [*np.random.default_rng(1).normal(size=(2, 30))]

    again = Ensemble(made.model.model_dump_json().encode(), SIGNATURE)

    assert again.library().predict(columns).tobytes() == made.library().predict(columns).tobytes()
    assert again.fastest(columns).predict(columns).tobytes() == made.library().predict(columns).tobytes()
    assert again.model == made.model


BAD = {
    "a weight of a mean": ("{how: mean, members: [{name: a, weight: 1}, {name: b}]}", "a has a weight"),
    "a weighted mean without one": (
        "{how: weighted_mean, members: [{name: a, weight: 1}, {name: b}]}", "b has no weight",
    ),
    "two of one name": ("{how: max, members: [{name: a}, {name: a}]}", "a: each member needs a name of its own"),
    "one alone": ("{how: max, members: [{name: a}]}", "at least 2"),
    "another way": ("{how: median, members: [{name: a}, {name: b}]}", "'mean', 'weighted_mean', 'max' or 'stack'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_combinations_that_cannot_be_are_refused(trained_workspace: Path, tmp_path: Path, name: str) -> None:
    import shutil

    declared, told = BAD[name]
    folder = shutil.copytree(trained_workspace / "dags", tmp_path / "dags")
    rewrite(folder / PIPELINE / "pipeline.yaml", (CHAMPION, f"{CHAMPION}    combine: {declared}\n"))

    with pytest.raises(DeclarationError) as caught:
        load_pipeline(Settings(pipelines=folder, store=tmp_path), PIPELINE)
    assert told in str(caught.value)


def test_a_stack_without_enough_to_learn_from_is_told() -> None:
    outputs = [np.array([0.1, 0.2]), np.array([0.3, 0.1])]

    with pytest.raises(InputError, match=r"2 rows with 1 labels to learn from.*TRAIN_EMPTY"):
        stacked("flights", "binary", outputs, np.zeros(2))
    with pytest.raises(InputError, match=r"0 rows with 0 labels.*TRAIN_EMPTY"):
        stacked("flights", "regression", [np.empty(0)] * 2, np.empty(0))
