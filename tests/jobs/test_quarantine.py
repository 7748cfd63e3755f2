"""Row rules at every place, what set-aside entities are served, and that no key is lost on the way."""

import datetime as dt
import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.predicting import ERROR, NOTE, Contender
from jobs.stages import check_inputs, score
from jobs.tasks import Scoring
from lookup.store import Store
from schemas.checks import Rule
from schemas.errors import BlockedError, DeclarationError
from schemas.keys import entity_id
from schemas.report import Verdict
from schemas.run import FEATURES, PREDICTIONS, QUARANTINE
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import (
    DATE,
    NEXT,
    PIPELINE,
    WEEK,
    almanac,
    change_rows,
    column,
    flight_id,
    flights_file,
    live_run,
    look_up,
)
from validation.quarantine import entity_id_column, failed, judge_inputs, judge_rows, passed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

PROVEN = '{"differences": {"m": 0.0}, "engines": {"m": "kernel"}}'
RULES = "rules:\n  - name: leaves_at_a_real_time\n    check: dep_minute BETWEEN 0 AND 1439\n"


@pytest.fixture(autouse=True)
def _one_session(spark: "SparkSession") -> None:
    """Runs find the session of the tests, as they find one of their process."""


def declare(settings: Settings, *rules: str, serve: str = "prior", share: float = 0.05) -> None:
    more = "".join(f"  - {rule}\n" for rule in rules)
    rewrite(
        settings.pipelines / PIPELINE / "pipeline.yaml",
        (RULES, f"{RULES}{more}\nquarantine: {{serve: {serve}}}\n"),
        ("max_quarantined: 0.01", f"max_quarantined: {share}"),
    )


def aside(settings: Settings, run_id: str) -> list[dict[str, object]]:
    return pq.read_table(Store(settings.store, PIPELINE).run_folder(run_id) / QUARANTINE).to_pylist()


def too_far(settings: Settings, index: int, day: dt.date = DATE) -> str:
    """Make a flight impossibly long; its id."""
    path = flights_file(settings, day)
    distances = column(path, "distance")
    change_rows(path, {"distance": [*distances[:index], 99_999, *distances[index + 1 :]]})
    return flight_id(settings, index, day)


TOO_FAR = '{name: on_this_planet, check: "distance < 20000", on: inputs}'


def test_an_input_rule_keeps_a_row_from_the_features_and_tells_its_values(settings: Settings) -> None:
    declare(settings, TOO_FAR)
    entity = too_far(settings, 3)

    finished = almanac(settings)

    assert finished.report.verdict is Verdict.PASS
    assert (finished.manifest.counts.scored, finished.manifest.counts.quarantined) == (WEEK - 1, 1)
    assert finished.manifest.counts.reasons == {"on_this_planet": 1}
    (row,) = aside(settings, finished.manifest.run_id)
    assert (row["entity_id"], row["stage"], row["reasons"]) == (entity, "inputs", ["on_this_planet"])
    assert json.loads(str(row["input_row"]))["distance"] == 99_999
    assert "arr_delay" not in json.loads(str(row["input_row"]))
    assert look_up(settings, entity)[0].status == "prior"


def test_the_other_rows_of_an_entity_leave_with_the_one_that_failed(settings: Settings) -> None:
    declare(settings, TOO_FAR)
    path = flights_file(settings)
    table = pq.read_table(path, partitioning=None)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)
    entity = too_far(settings, 60)  # the copy of the first

    finished = almanac(settings)

    assert (finished.manifest.counts.scored, finished.manifest.counts.quarantined) == (WEEK - 1, 1)
    assert finished.manifest.counts.reasons == {"on_this_planet": 1, "other_row_failed": 1}
    assert {row["entity_id"] for row in aside(settings, finished.manifest.run_id)} == {entity}


def test_a_prediction_rule_sets_aside_what_the_model_may_not_say(settings: Settings) -> None:
    declare(settings, '{name: not_that_sure, check: "score < 0.5 AND distance > 0", on: predictions}', share=0.9)

    finished = almanac(settings)

    counts, rows = finished.manifest.counts, aside(settings, finished.manifest.run_id)
    scores = pq.read_table(Store(settings.store, PIPELINE).run_folder(finished.manifest.run_id) / PREDICTIONS)
    assert 0 < counts.quarantined < 0.9 * WEEK
    assert counts.scored + counts.quarantined == counts.entities == WEEK
    assert counts.reasons == {"not_that_sure": len(rows)}
    assert all(row["score"] >= 0.5 and row["stage"] == "predictions" and row["distance"] for row in rows)  # type: ignore[operator]
    assert max(scores.column("score").to_pylist()) < 0.5


def test_prediction_rules_give_the_same_bytes_whatever_the_partitioning(
    settings: Settings, session: "SparkSession"
) -> None:
    declare(settings, '{name: not_that_sure, check: "score < 0.5", on: predictions}', share=0.9)
    plan = check_inputs(settings, PIPELINE, DATE)
    first = score(plan, lambda: session)
    shutil.rmtree(plan.store.run_folder(plan.run_id))
    session.conf.set("spark.sql.shuffle.partitions", 7)
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 17)
    assert score(plan, lambda: session).files == first.files


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{name: x, check: scor < 1, on: predictions}", r"rules\.x.*scor"),
        ("{name: x, check: arr_delay > 0, on: inputs}", r"rules\.x.*arr_delay"),  # forbidden: it leaks the outcome
        ("{name: x, check: dep_minute > 0, on: inputs}", r"rules\.x.*dep_minute"),
    ],
)
def test_a_rule_over_a_column_that_is_not_there_is_refused(settings: Settings, rule: str, message: str) -> None:
    declare(settings, rule)
    with pytest.raises(DeclarationError, match=message):
        almanac(settings)
    assert live_run(settings) is None


def test_an_entity_that_cannot_be_scored_is_served_its_last_good_prediction(settings: Settings) -> None:
    declare(settings, TOO_FAR, serve="carried")
    first = almanac(settings)
    before = {answer.id: answer for answer in look_up(settings, flight_id(settings, 5, NEXT))}
    entity, new = too_far(settings, 5, NEXT), too_far(settings, 8, DATE + dt.timedelta(days=7))

    second = almanac(settings, NEXT)

    counts = second.manifest.counts
    assert second.report.verdict is Verdict.PASS
    assert (counts.scored, counts.carried, counts.quarantined, counts.entities) == (WEEK - 2, 1, 1, WEEK)
    carried, unknown = look_up(settings, entity, new)
    assert (carried.status, carried.outputs, carried.model) == ("carried", before[entity].outputs, before[entity].model)
    assert carried.scored_at == before[entity].scored_at
    assert unknown.status == "prior"  # it was in no release before
    assert second.manifest.carried_from is not None
    assert second.manifest.carried_from.run_id == first.manifest.run_id
    folder = Store(settings.store, PIPELINE).run_folder(second.manifest.run_id)
    assert pq.read_table(folder / PREDICTIONS).num_rows == WEEK - 1
    assert pq.read_table(folder / FEATURES).num_rows == WEEK - 2
    again = almanac(settings, NEXT)
    assert again.manifest == second.manifest


def test_a_prediction_that_is_too_old_is_not_carried(settings: Settings) -> None:
    declare(settings, TOO_FAR, serve="carried, carry_hours: 1")
    almanac(settings)
    entity = too_far(settings, 5, NEXT)

    counts = almanac(settings, NEXT).manifest.counts

    assert (counts.carried, counts.quarantined) == (0, 1)
    assert look_up(settings, entity)[0].status == "prior"


def test_what_is_withheld_is_unknown_whatever_priors_there_are(settings: Settings) -> None:
    declare(settings, TOO_FAR, serve="nothing")
    entity = too_far(settings, 3)

    finished = almanac(settings)

    counts = finished.manifest.counts
    assert finished.report.verdict is Verdict.PASS
    assert (counts.scored, counts.quarantined, counts.withheld, counts.entities) == (WEEK - 1, 1, 1, WEEK)
    (answer,) = look_up(settings, entity)
    assert (answer.status, answer.outputs, answer.flag, answer.model) == ("unknown", {}, "WITHHELD", None)


def test_more_quarantined_than_declared_fails_the_run_carried_or_not(settings: Settings) -> None:
    declare(settings, TOO_FAR, serve="carried", share=0.001)
    good = almanac(settings).manifest.run_id
    too_far(settings, 5, NEXT)
    with pytest.raises(BlockedError, match=r"quarantined share: 0\.24% of 420 entities \(on_this_planet 1\)"):
        almanac(settings, NEXT)
    assert live_run(settings) == good


@pytest.mark.parametrize("seed", range(3))
def test_quarantine_conserves_keys_for_random_bad_rows(spark: "SparkSession", seed: int) -> None:
    draw = random.Random(seed)
    plants = ["sound", "copy", "rival", "null_key", "blank_key", "bad_key", "low"]
    rows: list[tuple[str | None, float | None]] = []
    expected: dict[str, set[str]] = {plant: set() for plant in plants}
    for number in range(400):
        key, plant = f"k{number}", draw.choice(plants)
        expected[plant].add(key)
        keyed: dict[str, list[tuple[str | None, float | None]]] = {
            "sound": [(key, 1.0)], "copy": [(key, 1.0), (key, 1.0)], "rival": [(key, 1.0), (key, 2.0)],
            "null_key": [(None, float(number))], "blank_key": [("  ", float(number))],
            "bad_key": [(f"{key}\n", 1.0)], "low": [(key, draw.choice([-1.0, None]))],
        }  # fmt: skip
        rows += keyed[plant]
    draw.shuffle(rows)
    rules = [Rule(name="low", check="value > 0")]

    judged = judge_rows(spark.createDataFrame(rows, "id string, value double"), ["id"], rules, where="p")

    good = {row["id"] for row in passed(judged).collect()}
    bad = failed(judged).collect()
    assert good == expected["sound"] | expected["copy"]
    reasons = {name: [row for row in bad if name in row["reasons"]] for name in ("null_key", "bad_key", "low")}
    assert len(reasons["null_key"]) == len(expected["null_key"])
    assert {row["id"].strip() for row in reasons["bad_key"]} == expected["bad_key"]
    assert {row["id"] for row in reasons["low"]} >= expected["low"]
    assert {row["id"] for row in bad if "duplicate_key" in row["reasons"]} >= expected["rival"]
    # Every key that came in went out once, on one side.
    came = {row[0] for row in rows}
    assert came == good | {row["id"] for row in bad}
    assert not good & {row["id"] for row in bad}


def test_all_reasons_of_a_row_are_listed(spark: "SparkSession") -> None:
    rules = [Rule(name="low", check="value > 0", on="inputs"), Rule(name="odd", check="value % 2 = 0", on="inputs")]
    frame = spark.createDataFrame([("a", -1.0), ("b", 2.0)], "id string, value double")

    judged = {row["id"]: row["reasons"] for row in judge_inputs(frame, ["id"], rules, where="p").collect()}

    assert judged == {"a": ["low", "odd"], "b": []}


def test_a_prediction_that_is_not_finite_is_set_aside(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "entity_id": ["a", "b", "c"], "x": [1.0, 2.0, 3.0], "score": [0.5, np.nan, np.inf],
            ERROR: pa.nulls(3, pa.string()), NOTE: [PROVEN] * 3,
            "reasons": pa.array([[], ["low"], []], pa.list_(pa.string())),
        }
    )  # fmt: skip

    record = Scoring(tmp_path, {"champion": Contender("m", tmp_path, "")}, ("score",), None).write(
        "part-00000.parquet", batch.schema, iter([batch])
    )

    assert (record["rows"], record["aside"]) == (1, 2)
    assert record["reasons"] == {"not_finite": 2, "low": 1}
    rows = pq.read_table(tmp_path / QUARANTINE).to_pylist()
    assert [(row["entity_id"], row["reasons"], row["x"]) for row in rows] == [
        ("b", ["not_finite", "low"], 2.0),
        ("c", ["not_finite"], 3.0),
    ]


def test_a_task_whose_rows_are_all_set_aside_leaves_no_empty_files(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "entity_id": ["a"],
            "x": [1.0],
            "score": [np.nan],
            ERROR: pa.nulls(1, pa.string()),
            NOTE: ['{"differences": {"m": 0.0}, "engines": {"m": "kernel"}}'],
        }
    )

    record = Scoring(tmp_path, {"champion": Contender("m", tmp_path, "")}, ("score",), None).write(
        "part-00003.parquet", batch.schema, iter([batch])
    )

    assert [file["path"] for file in record["files"]] == ["quarantine/predictions-00003.parquet"]
    assert [path.name for path in tmp_path.rglob("*.parquet")] == ["predictions-00003.parquet"]


def test_spark_makes_the_same_entity_ids_as_python(spark: "SparkSession") -> None:
    values = ["a", "a:b", "a\\", ":", "\\:", "\\\\", "", "$1", "é:ü", "x" * 70]
    rows = [(left, right) for left in values for right in values]
    frame = spark.createDataFrame(rows, "x string, y string")

    made = frame.select("x", "y", entity_id_column(["x", "y"]).alias("id")).collect()

    assert all(row["id"] == entity_id([row["x"], row["y"]]) for row in made)
    assert len({row["id"] for row in made}) == len(rows)
