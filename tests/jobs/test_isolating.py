"""A row that its model cannot score is set aside with what the model raised; the others are scored as ever."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.bundles import Bundle, find_bundle, open_bundle, proven_bundle
from jobs.flavors.scorer import Engine
from jobs.isolating import MOST_FAILED, score_each
from jobs.predicting import Contender, Predict
from jobs.scoring import run_tasks
from jobs.tasks import FILE, Scoring
from schemas.errors import InputError, Problem
from schemas.run import ENTITY_ID, FEATURES, PREDICTIONS, QUARANTINE, REASONS
from validation.parity import Floats

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 120


def batch_of(values: Sequence[float]) -> pa.RecordBatch:
    return pa.record_batch({"x": pa.array(values, pa.float64())})


def score(batch: pa.RecordBatch) -> Floats:
    values = batch.column("x").to_numpy()
    if (values < 0).any():
        raise ValueError("a root of what is below zero\nand more")
    return np.sqrt(values)


@given(st.lists(st.floats(-1, 1), max_size=40))
def test_all_rows_but_those_that_raise_have_their_score(values: list[float]) -> None:
    scores, errors = score_each(score, batch_of(values), model="m")
    expected = [math.sqrt(value) if value >= 0 else math.nan for value in values]
    assert np.array_equal(scores, expected, equal_nan=True)
    told = "ValueError: a root of what is below zero"
    assert errors == {at: told for at, value in enumerate(values) if value < 0}


def test_a_row_of_several_outputs_that_raises_has_none_of_them() -> None:
    scores, errors = score_each(lambda batch: np.column_stack([score(batch)] * 2), batch_of([4, -1]), model="m")
    assert np.array_equal(scores, [[2, 2], [np.nan, np.nan]], equal_nan=True)
    assert [*errors] == [1]


def test_a_model_that_raises_for_most_rows_is_refused() -> None:
    with pytest.raises(InputError, match=f"more than {MOST_FAILED} rows of a batch raise") as caught:
        score_each(score, batch_of([-1.0] * 1000), model="m")
    assert caught.value.problems[0].code == "SCORE_RAISES"


def test_what_is_wrong_with_the_columns_is_told_at_once() -> None:
    calls = Counter[int]()

    def refuse(batch: pa.RecordBatch) -> Floats:
        calls[batch.num_rows] += 1
        raise InputError(Problem("BUNDLE_DTYPE", "here", "text", "a number"))

    with pytest.raises(InputError):
        score_each(refuse, batch_of([1, 2, 3]), model="m")
    assert calls == {3: 1}


@pytest.mark.spark
def test_a_poison_row_is_set_aside_with_its_error_and_the_run_goes_on(
    spark: "SparkSession", trained_workspace: Path, tmp_path: Path
) -> None:
    bundles = trained_workspace / "store" / "flight_delay" / "bundles"
    bundle = open_bundle(find_bundle(bundles, "latest", where="test"))
    holdout = bundle.holdout.slice(0, ROWS)
    features = holdout.select([feature.name for feature in bundle.manifest.features])
    ids = [f"row-{number:03}" for number in range(ROWS)]
    pq.write_table(features.append_column(ENTITY_ID, pa.array(ids)), tmp_path / "rows.parquet")

    def brittle(folder: Path, digest: str) -> tuple[Bundle, float]:
        proven, difference = proven_bundle(folder, digest)
        poison = float(proven.predict(holdout.slice(77, 1))[0, 0])

        def predict(columns: Sequence[Floats]) -> Floats:
            scores = proven.engine.predict(columns)
            if (scores == poison).any():
                raise RuntimeError("poison")
            return scores

        return replace(proven, engine=Engine("brittle", predict)), difference

    contenders = {"champion": Contender(bundle.id, bundle.folder, bundle.digest)}
    scoring = Scoring(tmp_path, contenders, ("score",), Predict(contenders, ("score",), brittle))
    frame = spark.read.parquet(str(tmp_path / "rows.parquet")).coalesce(1).sortWithinPartitions(ENTITY_ID)
    expected = bundle.predict(holdout)[:, 0]
    bad = np.flatnonzero(expected == expected[77])

    (record,) = run_tasks(frame.selectExpr("*", f"0 AS {FILE}"), scoring)

    good = pq.read_table(tmp_path / PREDICTIONS)
    assert (record["rows"], record["aside"], record["reasons"]) == (
        ROWS - len(bad),
        len(bad),
        {"error: RuntimeError: poison": len(bad)},
    )
    assert good.column(ENTITY_ID).to_pylist() == [each for at, each in enumerate(ids) if at not in bad]
    assert np.array_equal(good.column("score").to_numpy(), np.delete(expected, bad))
    assert pq.read_table(tmp_path / FEATURES).num_rows == ROWS - len(bad)
    aside = pq.read_table(tmp_path / QUARANTINE)
    assert aside.column(ENTITY_ID).to_pylist() == [ids[at] for at in bad]
    assert aside.column(REASONS).to_pylist() == [["error: RuntimeError: poison"]] * len(bad)
