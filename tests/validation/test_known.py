import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.expectations import Expectation
from validation.known import Known
from validation.known_column import Found
from validation.profile import profile_batches

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

COUNTS = ("element_count", "missing_count", "unexpected_count")
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "real": pa.float64(),  # nulls, NaN and infinities
        "nan": pa.float64(),  # nulls and NaN
        "score": pa.float32(),
        "whole": pa.int64(),
        "small": pa.int16(),
        "huge": pa.int64(),
        "text": pa.string(),
        "many": pa.string(),
        "flag": pa.bool_(),
        "void": pa.float64(),
        "blank": pa.string(),
        "same": pa.float64(),
    }
)


def expect(kind: str, **kwargs: Any) -> Expectation:
    return Expectation.model_validate({"type": f"expect_{kind}", "kwargs": kwargs})


def table(seed: int, rows: int = 3000) -> pa.Table:
    random = np.random.default_rng(seed)

    def holed(values: Any, share: float, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind, mask=random.random(rows) < share, from_pandas=False)

    odd = np.where(random.random(rows) < 0.01, random.choice([math.inf, -math.inf], rows), random.normal(0, 9, rows))
    some = np.where(random.random(rows) < 0.02, math.nan, random.normal(5, 2, rows))
    columns = [
        pa.array([f"UA:{number}" for number in range(rows)]),
        holed(np.where(random.random(rows) < 0.01, math.nan, odd), 0.1, pa.float64()),
        holed(some, 0.05, pa.float64()),
        pa.array(random.random(rows), pa.float32()),
        holed(random.integers(-40, 41, rows), 0.1, pa.int64()),
        pa.array(random.integers(0, 9, rows), pa.int16()),
        pa.array(random.integers(0, 9, rows) + 2**60, pa.int64()),
        holed(random.choice(["", "EWR", "JFK", "ü ß", "it's"], rows), 0.1, pa.string()),
        pa.array([f"N{number}" for number in random.integers(0, 2500, rows)]),
        holed(random.random(rows) < 0.3, 0.1, pa.bool_()),
        pa.nulls(rows, pa.float64()),
        pa.nulls(rows, pa.string()),
        pa.array(np.full(rows, 0.25)),
    ]
    return pa.table(columns, schema=SCHEMA)


ABOVE_FOUR = {"type": "comparison", "column": {"name": "small"}, "operator": ">", "parameter": 4}
RANGES = (
    {"min_value": -40, "max_value": 40},
    {"min_value": -1000, "max_value": 1000, "strict_min": True},
    {"max_value": 1000},
    {"min_value": -1000},
)
ANSWERED = [
    expect("table_row_count_to_be_between", min_value=1, max_value=5000),
    expect("table_row_count_to_equal", value=17),
    expect("table_column_count_to_equal", value=13),
    expect("table_columns_to_match_set", column_set=["real", "text"], exact_match=False),
    expect("table_columns_to_match_ordered_list", column_list=list(SCHEMA.names)),
    expect("column_to_exist", column="real"),
    expect("column_to_exist", column="nothing"),
    *(expect("column_values_to_not_be_null", column=name) for name in SCHEMA.names),
    *(expect("column_values_to_not_be_null", column=name, mostly=0.9) for name in ("real", "text", "flag")),
    *(expect("column_values_to_be_null", column=name) for name in ("void", "blank")),
    *(
        expect("column_proportion_of_non_null_values_to_be_between", column=name, min_value=0.9)
        for name in ("real", "flag", "void")
    ),
    *(
        expect("column_values_to_be_between", column=name, **ends)
        for name in ("nan", "score", "whole", "void", "same")
        for ends in RANGES
    ),
    expect("column_values_to_be_between", column="same", min_value=0.25, max_value=1),
    expect("column_values_to_be_between", column="nan", max_value=1000, mostly=0.99),
    expect("column_values_to_be_between", column="nan", max_value=1000, mostly=0.9),
    *(
        expect(f"column_{of}_to_be_between", column=name, min_value=-5, max_value=100)
        for of in ("min", "max", "mean", "stdev")
        for name in ("nan", "score", "whole", "void", "same")
    ),
    *(expect(f"column_{of}_to_be_between", column="real", min_value=0) for of in ("max", "mean", "stdev")),
    *(expect(f"column_{of}_to_be_between", column="small", min_value=0) for of in ("min", "max", "stdev")),
    *(expect("column_values_to_be_finite", column=name) for name in ("nan", "score", "whole", "small", "void")),
    expect("column_values_to_be_finite", column="nan", mostly=0.9),
    *(
        expect(f"column_values_to_{kind}_in_set", column=name, value_set=["EWR", "JFK"], **mostly)
        for kind in ("be", "not_be")
        for name in ("text", "blank")
        for mostly in ({}, {"mostly": 0.3})
    ),
    expect("column_values_to_be_in_set", column="text", value_set=["", "EWR", "JFK", "ü ß", "it's"]),
    expect("column_values_to_be_in_set", column="text", value_set=[]),
    *(
        expect(f"column_distinct_values_to_{kind}_set", column="text", value_set=["EWR", "LGA"])
        for kind in ("be_in", "contain", "equal")
    ),
    expect("column_unique_value_count_to_be_between", column="text", max_value=4),
    expect("column_unique_value_count_to_be_between", column="blank", max_value=4),
    expect("column_proportion_of_unique_values_to_be_between", column="text", max_value=0.5),
    expect("column_most_common_value_to_be_in_set", column="text", value_set=["EWR"], ties_okay=True),
    *(expect("column_value_lengths_to_be_between", column=name, min_value=1) for name in ("text", "blank")),
    expect("column_value_lengths_to_be_between", column="text", max_value=3, strict_max=True),
    expect("column_value_lengths_to_equal", column="text", value=3),
    *(expect("column_top_value_share_to_be_at_most", column=name, max_value=0.5) for name in ("text", "flag", "same")),
]
LEFT_TO_THE_ROWS = [
    expect("column_values_to_be_between", column="whole", min_value=-60, row_condition=ABOVE_FOUR),
    expect("column_mean_to_be_between", column="nan", min_value=-60, row_condition=ABOVE_FOUR),
    expect("column_median_to_be_between", column="score", min_value=0),
    expect(
        "column_quantile_values_to_be_between",
        column="score",
        quantile_ranges={"quantiles": [0.5], "value_ranges": [[0, 1]]},
    ),
    expect("column_values_to_be_between", column="whole", min_value=0),  # which are below, the rows tell
    expect("column_values_to_be_between", column="real", max_value=1000),  # plus or minus infinity?
    expect("column_min_to_be_between", column="real", min_value=0),
    expect("column_max_to_be_between", column="huge", min_value=0),  # past what a double holds
    expect("column_mean_to_be_between", column="small", min_value=0),  # Great Expectations refuses a short
    expect("column_values_to_be_in_set", column="many", value_set=["N1"]),  # more values than a profile lists
    expect("column_unique_value_count_to_be_between", column="many", max_value=4),
    expect("column_top_value_share_to_be_at_most", column="many", max_value=0.5),
    expect("column_top_value_share_to_be_at_most", column="score", max_value=0.5),
    expect("column_values_to_be_in_set", column="small", value_set=[1]),
    expect("column_values_to_be_in_set", column="flag", value_set=[True]),
    expect("column_values_to_be_finite", column="text"),
    expect("column_values_to_be_null", column="whole"),
    expect("column_values_to_be_unique", column="text"),
    expect("column_pair_values_a_to_be_greater_than_b", column_A="whole", column_B="small"),
    expect("column_max_to_be_between", column="nothing", max_value=1),
]


def known(rows: pa.Table, *, skip: tuple[str, ...] = (), unique: tuple[str, ...] = ()) -> Known:
    return Known(rows.schema, profile_batches(rows.to_batches(max_chunksize=700), skip=skip), frozenset(unique))


class NotOpenedError(Exception):
    pass


def unopened() -> Any:
    raise NotOpenedError("the rows were asked for")


def judge(suites: dict[str, tuple[list[Expectation], Any, Known | None]]) -> dict[str, Any]:
    from validation.expectations import Table
    from validation.gx_checkpoint import Suite, run_checkpoints

    given = {name: Suite(declared, Table(rows, what)) for name, (declared, rows, what) in suites.items()}
    return run_checkpoints(given, run_name="run", private=(), site=None)


@pytest.mark.spark
def test_what_a_profile_answers_equals_what_great_expectations_finds_in_the_rows(
    spark: "SparkSession", tmp_path: Path
) -> None:
    rows = table(seed=1)
    pq.write_table(rows, tmp_path / "part.parquet")
    frame = spark.read.parquet(str(tmp_path))

    found = judge({"profile": (ANSWERED, unopened, known(rows)), "rows": (ANSWERED, lambda: frame, None)})

    for index, expectation in enumerate(ANSWERED):
        ours, theirs = found["profile"][index], found["rows"][index]
        assert "the rows were asked for" not in str(ours.exception_info), expectation
        assert ours.success == theirs.success, (expectation, ours.result, theirs.result, theirs.exception_info)
        assert [ours.result.get(key) for key in COUNTS] == [theirs.result.get(key) for key in COUNTS], expectation
        seen, truth = ours.result.get("observed_value"), theirs.result.get("observed_value")
        assert seen == (pytest.approx(truth, rel=1e-9) if isinstance(truth, float) else truth), expectation
        assert type(seen) is type(truth), expectation
        examples, shown = ours.result.get("partial_unexpected_list"), theirs.result.get("partial_unexpected_list")
        # Not the other way round: Spark skips row groups by statistics that leave NaN out, and finds no example of it.
        assert examples or not shown, expectation


def test_what_a_profile_cannot_tell_exactly_is_left_to_the_rows() -> None:
    rows = table(seed=2)

    found = judge({"profile": (LEFT_TO_THE_ROWS, unopened, known(rows))})["profile"]

    answered = [
        LEFT_TO_THE_ROWS[index]
        for index, result in found.items()
        if "the rows were asked for" not in str(result.exception_info)
    ]
    assert answered == []


def test_a_column_that_is_proven_unique_needs_neither_profile_nor_rows() -> None:
    rows = table(seed=3)
    declared = [expect("column_values_to_be_unique", column="id"), expect("column_values_to_not_be_null", column="id")]

    unproven = judge({"ids": (declared, unopened, known(rows, skip=("id",)))})["ids"]
    proven = judge({"ids": (declared, unopened, known(rows, skip=("id",), unique=("id",)))})["ids"]

    assert ["rows were asked for" in str(unproven[index].exception_info) for index in (0, 1)] == [True, True]
    assert [(proven[index].success, proven[index].result["unexpected_count"]) for index in (0, 1)] == [(True, 0)] * 2


def test_a_name_that_two_columns_have_is_left_to_the_rows() -> None:
    schema = pa.schema([("x", pa.float64()), ("x", pa.float64())])
    rows = known(pa.table({"x": [1.0]}))

    assert Known(schema, rows.profile).answer("column.max", {"column": "x"}, {}) is None
    assert rows.answer("column.max", {"column": "x"}, {}) == Found(1.0)
