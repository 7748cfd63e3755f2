"""The folder that `almanac new` writes always loads, and says what the data says; what cannot work writes nothing."""

import csv
import datetime as dt
import itertools
import math
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlglot import exp

from jobs.scaffold import scaffold
from jobs.scaffold_decisions import decisions, told
from schemas.declared import DeclaredPipeline, read_folder
from schemas.errors import AlmanacError, DeclarationError, InputError
from schemas.settings import Settings
from schemas.strict import COLUMN_PATTERN

TODAY = dt.date(2026, 11, 21)
ROWS = 40


def is_churned(row: int) -> bool:
    """20 of 40, in no order that another column has."""
    return row * 7 % 40 < 20


Write = Callable[..., Path]


@pytest.fixture
def place(tmp_path: Path) -> Settings:
    return Settings(pipelines=tmp_path / "dags", store=tmp_path / "store")


def write_csv(path: Path, columns: dict[str, Sequence[object]], *, delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def customers(**more: Sequence[object]) -> dict[str, Sequence[object]]:
    return {
        "customer_id": [f"C{n:03}" for n in range(ROWS)],
        "tenure": [n % 7 for n in range(ROWS)],
        "churned": ["Yes" if is_churned(n) else "No" for n in range(ROWS)],
        **more,
    }


def declared(place: Settings, columns: dict[str, Sequence[object]], **flags: Any) -> DeclaredPipeline:
    table = write_csv(place.root / "data" / "customers.csv", columns)
    flags = {"key": ["customer_id"], "target": "churned", **flags}
    return read_folder(scaffold(place, "churn", table=table, today=TODAY, **flags).folder)


def selected(pipeline: DeclaredPipeline) -> dict[str, str]:
    """features.sql's output column -> its expression."""
    query = sqlglot.parse_one(pipeline.features_sql, dialect="spark")
    assert isinstance(query, exp.Select)
    return {column.alias_or_name: column.unalias().sql(dialect="spark", comments=False) for column in query.selects}


def expectations_of(pipeline: DeclaredPipeline, column: str) -> dict[str, dict[str, Any]]:
    suites = (*pipeline.suites.inputs, *pipeline.suites.predictions)
    return {one.type: one.kwargs for one in suites if one.kwargs.get("column") == column}


def test_a_folder_of_three_files_is_written(place: Settings) -> None:
    table = write_csv(place.root / "data" / "customers.csv", customers())

    folder = scaffold(place, "churn", table=table, key=["customer_id"], target="churned", today=TODAY).folder

    assert folder == place.pipelines / "churn"
    assert sorted(path.name for path in folder.iterdir()) == ["expectations.yaml", "features.sql", "pipeline.yaml"]
    assert [path.name for path in place.pipelines.iterdir()] == ["churn"]


def test_the_declaration_says_what_the_flags_and_the_file_say(place: Settings) -> None:
    pipeline = declared(place, customers()).pipeline

    source = pipeline.sources["customers"]
    assert (source.path, source.format, source.forbidden) == ("data/customers.csv", "csv", ["churned"])
    assert (pipeline.entity.source, pipeline.entity.key) == ("customers", ["customer_id"])
    assert (pipeline.start, pipeline.schedule) == (TODAY, None)


def test_a_file_outside_is_named_by_its_whole_path(place: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    table = write_csv(tmp_path_factory.mktemp("else where") / "2024 Kunden.csv", customers(), delimiter=";")

    pipeline = read_folder(scaffold(place, "churn", table=table, key=["customer_id"], target="churned").folder).pipeline

    assert pipeline.sources["c_2024_kunden"].path == str(table)
    assert pipeline.sources["c_2024_kunden"].delimiter == ";"


def test_text_is_cast_so_that_stray_text_becomes_null(place: Settings) -> None:
    fee = ["12.5 ", " 7", "N/A", ""] * 10
    plan = ["basic", " pro", "", "pro"] * 10

    pipeline = declared(place, customers(fee=fee, plan=plan))

    assert pipeline.pipeline.features.numeric == ["tenure", "fee"]
    assert pipeline.pipeline.features.categorical == ["plan"]
    assert selected(pipeline) == {
        "customer_id": "`customer_id`",
        "tenure": "TRY_CAST(TRIM(`tenure`) AS DOUBLE)",
        "fee": "TRY_CAST(TRIM(`fee`) AS DOUBLE)",
        "plan": "NULLIF(TRIM(`plan`), '')",
    }
    assert "'fee': a number in 20 of 40 rows; 10 values become NULL, such as 'N/A'" in pipeline.features_sql


def test_values_that_spark_would_read_as_not_finite_become_null(place: Settings) -> None:
    pipeline = declared(place, customers(fee=["1", "2", "3", "NaN"] * 10))

    fee = "TRY_CAST(TRIM(`fee`) AS DOUBLE)"
    assert selected(pipeline)["fee"] == f"CASE WHEN ABS({fee}) < CAST('Infinity' AS DOUBLE) THEN {fee} END"


def test_numbers_with_decimal_commas_are_numbers(place: Settings) -> None:
    pipeline = declared(place, customers(fee=["12,5", " 7", "0,125", "N/A"] * 10))

    assert selected(pipeline)["fee"] == "TRY_CAST(REPLACE(TRIM(`fee`), ',', '.') AS DOUBLE)"
    assert "'fee': a number in 30 of 40 rows, written with decimal commas;" in pipeline.features_sql
    assert expectations_of(pipeline, "fee")["expect_column_values_to_be_between"]["max_value"] == 18.7


def test_a_target_with_decimal_commas_is_read_the_same_way(place: Settings) -> None:
    columns = customers(t=["0,5" if is_churned(n) else "1,5" for n in range(ROWS)])

    label = declared(place, columns, target="t").pipeline.training.label

    assert label.startswith("CASE WHEN try_cast(replace(trim(`t`), ',', '.') AS DOUBLE) IN (")


@pytest.mark.parametrize(("target", "floors"), [("churned", {"auc": 0.5}), ("spend", {"r2": 0.0})])
def test_a_model_worse_than_guessing_is_below_its_floor(place: Settings, target: str, floors: dict[str, float]) -> None:
    pipeline = declared(place, customers(spend=[n * n for n in range(ROWS)]), target=target).pipeline

    assert pipeline.training.floors == floors


def test_what_was_decided_is_told_with_its_why(place: Settings) -> None:
    reason = ["price" if is_churned(n) else "" for n in range(ROWS)]
    table = write_csv(place.root / "t.csv", customers(reason=reason, plan=list("abcd") * 10, same=["x"] * ROWS))

    plan = scaffold(place, "churn", table=table, key=["customer_id"], target="churned").plan

    decided = decisions(plan)
    assert (decided["positive_class"], decided["split"], decided["split_why"]) == (
        "yes",
        "random",
        "no column of dates",
    )
    assert (decided["numeric_features"], decided["categorical_features"]) == (1, 1)
    assert decided["left_out"] == {"customer_id": "it names the entity", "same": "the same in every row: 'x'"}
    assert decided["forbidden"] == {"churned": "the target", "reason": "it is filled for one class only, and always"}
    assert list(told(plan)) == [
        ("target", "'churned', binary: two values: 'yes' (20 rows) counts as 1 by its name, 'no' (20 rows) as 0"),
        ("split", "at random, 20% held out: no column of dates"),
        ("features", "1 numeric, 1 categorical"),
        ("left out", "'customer_id': it names the entity"),
        ("left out", "'same': the same in every row: 'x'"),
        ("forbidden", "'churned': the target"),
        ("forbidden", "'reason': it is filled for one class only, and always"),
    ]


def test_what_is_left_out_is_named_with_its_reason(place: Settings) -> None:
    columns = customers(note=[f"note {n}" for n in range(ROWS)], empty=[""] * ROWS, same=["x"] * ROWS)

    pipeline = declared(place, columns)

    assert pipeline.pipeline.features.columns == ["tenure"]
    assert "--   'note': 40 different texts in 40 rows: free text, or an id.\n" in pipeline.features_sql
    assert "--   'empty': no row has a value.\n" in pipeline.features_sql
    assert "--   'same': the same in every row: 'x'.\n" in pipeline.features_sql


def test_a_column_that_gives_the_target_away_is_forbidden(place: Settings) -> None:
    reason = ["price" if is_churned(n) else "" for n in range(ROWS)]

    pipeline = declared(place, customers(reason=reason))

    assert pipeline.pipeline.sources["customers"].forbidden == ["churned", "reason"]
    assert "reason" not in selected(pipeline)


def test_odd_column_names_work(place: Settings) -> None:
    odd = ["Monthly fee (€)", "2nd", "100%", "a`b", "select", "日本", "é.x", "model", "Tenure ", ":ds", "--", "${x}"]
    columns = {"customer_id": customers()["customer_id"], "tenure": [1, 2] * 20}
    columns |= {name: [n % (3 + i) for n in range(ROWS)] for i, name in enumerate(odd)}

    pipeline = declared(
        place, {**columns, "Churn %?": ["Y" if is_churned(n) else "N" for n in range(ROWS)]}, target="Churn %?"
    )

    names = pipeline.pipeline.features.columns
    assert names[:7] == ["tenure", "Monthly_fee", "c_2nd", "c_100", "a_b", "select", "column"]
    assert names[7:] == ["e_x", "model_2", "Tenure_2", "ds", "column_2", "x"]
    assert selected(pipeline)["a_b"] == "TRY_CAST(TRIM(`a``b`) AS DOUBLE)"
    assert pipeline.pipeline.sources["customers"].forbidden == ["Churn %?"]
    assert pipeline.pipeline.training.label.startswith("CASE WHEN lower(trim(`Churn %?`)) IN ('y') THEN 1 ")


@pytest.mark.parametrize(
    ("values", "value", "one", "zero"),
    [
        (["Yes", "no"], "lower(trim(`t`))", "'yes'", "'no'"),
        (["0", "1"], "try_cast(trim(`t`) AS DOUBLE)", "1", "0"),
        (["0.5", "-2"], "try_cast(trim(`t`) AS DOUBLE)", "-2", "0.5D"),
        (["it's", "a\\b"], "lower(trim(`t`))", r"'a\\b'", r"'it\'s'"),
    ],
)
def test_a_label_names_both_classes(place: Settings, values: list[str], value: str, one: str, zero: str) -> None:
    columns = customers(t=[values[0 if is_churned(n) else 1] for n in range(ROWS)])

    training = declared(place, columns, target="t").pipeline.training

    assert training.objective == "binary"
    assert training.label == f"CASE WHEN {value} IN ({one}) THEN 1 WHEN {value} IN ({zero}) THEN 0 END"
    assert sqlglot.parse_one(training.label, dialect="spark")


def test_a_quantity_is_a_regression_within_its_range(place: Settings) -> None:
    pipeline = declared(place, customers(spend=[n * n for n in range(ROWS)]), target="spend")

    training = pipeline.pipeline.training
    assert (training.objective, training.label) == ("regression", "try_cast(trim(`spend`) AS DOUBLE)")
    score = expectations_of(pipeline, "score")["expect_column_values_to_be_between"]
    assert (score["min_value"], score["max_value"]) == (-760.0, 2280.0)


def test_the_one_column_of_dates_splits_in_time_order(place: Settings) -> None:
    days = [(dt.date(2024, 1, 1) + dt.timedelta(days=n)).isoformat() for n in range(ROWS)]

    pipeline = declared(place, customers(signup=[f"{day} 10:30" for day in days]))

    split = pipeline.pipeline.training.split
    assert split.by == "try_cast(substr(trim(`signup`), 1, 10) AS DATE)"
    assert split.at == dt.date(2024, 2, 2)
    names = [name for name in pipeline.pipeline.features.numeric if name.startswith("signup")]
    assert names == ["signup_day_of_week", "signup_month", "signup_age_days"]
    assert selected(pipeline)["signup_age_days"] == (
        "CAST(DATEDIFF(:ds, TRY_CAST(SUBSTRING(TRIM(`signup`), 1, 10) AS DATE)) AS DOUBLE)"
    )


def test_of_several_columns_of_dates_the_flag_chooses(place: Settings) -> None:
    days = [f"2024-01-{1 + n % 20:02}" for n in range(ROWS)]
    columns = customers(born=days, joined=days[::-1])

    assert declared(place, columns).pipeline.training.split.holdout_share == 0.2
    assert "several columns of dates, 'born', 'joined'" in (place.pipelines / "churn" / "pipeline.yaml").read_text()
    chosen = declared(place, columns, date="joined", force=True).pipeline.training.split
    assert (chosen.by, chosen.at) == ("try_cast(substr(trim(`joined`), 1, 10) AS DATE)", dt.date(2024, 1, 17))


def test_dates_that_keep_the_outcomes_apart_do_not_split(place: Settings) -> None:
    columns = customers(day=[f"20{10 + n}-01-01" for n in range(ROWS)])
    columns["churned"] = ["Yes"] * 20 + ["No"] * 20

    assert declared(place, columns).pipeline.training.split.holdout_share == 0.2


def test_expectations_follow_the_data(place: Settings) -> None:
    pipeline = declared(place, customers(plan=["basic", "pro", "", "pro"] * 10))

    assert expectations_of(pipeline, "tenure") == {
        "expect_column_values_to_be_between": {"column": "tenure", "min_value": -3.0, "max_value": 9.0},
        "expect_column_values_to_not_be_null": {"column": "tenure", "mostly": 0.95},
    }
    assert expectations_of(pipeline, "plan") == {
        "expect_column_values_to_be_in_set": {"column": "plan", "value_set": ["basic", "pro"], "mostly": 0.95},
        "expect_column_values_to_not_be_null": {"column": "plan", "mostly": 0.7},
    }
    assert pipeline.suites.inputs[0].kwargs == {"min_value": 20}
    mean = expectations_of(pipeline, "score")["expect_column_mean_to_be_between"]
    assert mean["min_value"] < 20 / 40 < mean["max_value"]


def test_a_column_like_yaml_or_with_many_values_is_expected_by_name_only(place: Settings) -> None:
    pipeline = declared(place, customers(null=[n % 2 for n in range(ROWS)], on=["no", "true", "~", "1: #"] * 10))

    assert pipeline.pipeline.features.columns == ["tenure", "null", "on"]
    assert expectations_of(pipeline, "on")["expect_column_values_to_be_in_set"]["value_set"] == [
        "1: #",
        "no",
        "true",
        "~",
    ]


def test_the_smallest_category_is_watched_as_slices(place: Settings) -> None:
    columns = customers(wide=[f"w{n % 11}" for n in range(ROWS)], four=list("abcd") * 10, two=list("xy") * 20)

    slices = declared(place, columns).pipeline.checks.slices

    assert slices is not None
    assert slices.columns == ["two"]


def test_a_key_of_several_columns_names_the_rows_and_teaches(place: Settings) -> None:
    columns = {
        "store": list("abcd") * 10,
        "item": [n // 4 for n in range(ROWS)],
        "sold": [n * 7 % 31 for n in range(ROWS)],
        "stock": [n * 5 % 13 for n in range(ROWS)],
    }

    pipeline = declared(place, columns, key=["store", "item"], target="sold")

    assert pipeline.pipeline.entity.key == ["store", "item"]
    assert pipeline.pipeline.features.columns == ["stock", "store"]
    assert list(selected(pipeline)) == ["store", "item", "stock"]


def test_rows_that_only_repeat_another_are_no_reason_to_refuse(place: Settings) -> None:
    columns = {name: [*values, values[0]] for name, values in customers().items()}

    declared(place, columns)

    assert "1 rows only repeat another one" in (place.pipelines / "churn" / "pipeline.yaml").read_text()


def test_a_longer_table_is_read_in_part_and_says_so(place: Settings) -> None:
    rows = 200_001
    table = pa.table({"id": range(rows), "x": [n % 10 for n in range(rows)], "y": [n % 3 == 0 for n in range(rows)]})
    place.root.mkdir(exist_ok=True)
    pq.write_table(table, place.root / "t.parquet")

    folder = scaffold(place, "big", table=place.root / "t.parquet", key=["id"], target="y", today=TODAY).folder

    assert read_folder(folder).pipeline.training.params["num_leaves"] == 63
    for file in folder.iterdir():
        assert "the first 200,000 rows of 't.parquet', which has 200,001" in file.read_text()


def test_parquet_keeps_its_types(place: Settings) -> None:
    rows = range(ROWS + 1)
    table = pa.table(
        {
            "id": pa.array(rows, pa.int64()),
            "amount": pa.array([n / 4 if n % 5 else math.nan for n in rows]),
            "small": pa.array([n % 3 for n in rows], pa.int16()),
            "paid": pa.array([n % 4 == 0 for n in rows]),
            "day": pa.array([dt.date(2024, 1, 1 + n % 28) for n in rows]),
            "kind": pa.array([f"k{n % 4}" for n in rows]).dictionary_encode(),
            "tags": pa.array([[n] for n in rows]),
            "left": pa.array([n % 2 == 0 if n < 40 else None for n in rows]),
        }
    )
    place.root.mkdir(exist_ok=True)
    pq.write_table(table, place.root / "t.parquet")

    folder = scaffold(place, "churn", table=place.root / "t.parquet", key=["id"], target="left", today=TODAY).folder

    pipeline = read_folder(folder)
    amount = "CAST(`amount` AS DOUBLE)"
    assert selected(pipeline) == {
        "id": "`id`",
        "amount": f"CASE WHEN ABS({amount}) < CAST('Infinity' AS DOUBLE) THEN {amount} END",
        "small": "CAST(`small` AS DOUBLE)",
        "paid": "CAST(`paid` AS STRING)",
        "day_day_of_week": "CAST(DAYOFWEEK(CAST(`day` AS DATE)) AS DOUBLE)",
        "day_month": "CAST(MONTH(CAST(`day` AS DATE)) AS DOUBLE)",
        "day_age_days": "CAST(DATEDIFF(:ds, CAST(`day` AS DATE)) AS DOUBLE)",
        "kind": "NULLIF(TRIM(`kind`), '')",
    }
    assert pipeline.pipeline.sources["t"].format == "parquet"
    assert "lower(CAST(`left` AS STRING)) IN ('true')" in pipeline.pipeline.training.label


BAD: list[tuple[str, dict[str, Sequence[object]], dict[str, Any], str]] = [
    ("SCAFFOLD_COLUMN", {}, {"target": "churn"}, "target 'churn': no such column in .*; did you mean 'churned'"),
    ("SCAFFOLD_COLUMN", {}, {"key": ["customerid"]}, "key 'customerid': no such column .* did you mean 'customer_id'"),
    ("SCAFFOLD_COLUMN", {}, {"date": "when"}, "date 'when': no such column"),
    ("SCAFFOLD_KEY", {}, {"key": []}, "key: no column; expected 1 to 8 columns"),
    ("SCAFFOLD_KEY", {}, {"key": ["customer_id", "customer_id"]}, "each once"),
    ("SCAFFOLD_TARGET", {}, {"target": "customer_id"}, "is the key or date as well"),
    ("SCAFFOLD_KEY_NAME", {"the id": range(ROWS)}, {"key": ["the id"]}, "rename the column, for example to 'the_id'"),
    (
        "SCAFFOLD_KEY_NULL",
        {"k": ["a", " ", *range(ROWS - 2)]},
        {"key": ["k"]},
        "1 of 40 rows have none, the first in row 2",
    ),
    (
        "SCAFFOLD_KEY_DUPLICATE",
        {"k": ["a", *range(1, ROWS - 1), "a"]},
        {"key": ["k"]},
        "1 keys stand on several different rows: a .2 rows.; .* 'customer_id' beside it would do",
    ),
    ("SCAFFOLD_TARGET", {"t": ["x"] * ROWS}, {"target": "t"}, "one value only: 'x'"),
    ("SCAFFOLD_TARGET", {"t": [""] * ROWS}, {"target": "t"}, "no row has a value"),
    ("SCAFFOLD_TARGET_CLASSES", {"t": list("abcd") * 10}, {"target": "t"}, "4 classes: 'a', 'b', 'c', 'd'"),
    (
        "SCAFFOLD_TOO_SMALL",
        {"t": ["yes"] * 19 + ["no"] * 21},
        {"target": "t"},
        "target 't': only 19 rows have the rarer class, 'yes': too few .*; expected at least 20; give a longer table",
    ),
    ("SCAFFOLD_TOO_SMALL", {"t": [*range(19), *[""] * 21]}, {"target": "t"}, "only 19 rows have a number: too few"),
    ("SCAFFOLD_NO_FEATURE", {"tenure": [""] * ROWS}, {}, "'tenure': no row has a value"),
    ("SCAFFOLD_DATE", {}, {"date": "tenure"}, "no column of dates"),
    ("SCAFFOLD_DATE", {"d": ["2024-01-01"] * ROWS}, {"date": "d"}, "no day has 5 % to 50 %"),
]


@pytest.mark.parametrize(("code", "more", "flags", "message"), BAD)
def test_what_cannot_work_is_one_clear_error_and_writes_nothing(
    place: Settings, code: str, more: dict[str, Sequence[object]], flags: dict[str, Any], message: str
) -> None:
    with pytest.raises((InputError, DeclarationError), match=message) as refused:
        declared(place, customers(**more), **flags)

    assert [problem.code for problem in refused.value.problems] == [code]
    assert not place.pipelines.exists()


@pytest.mark.parametrize("name", ["", "Churn", "2churn", "../churn", "churn\n", "a" * 64])
def test_a_name_that_no_pipeline_may_have_is_refused(place: Settings, name: str) -> None:
    with pytest.raises(DeclarationError, match="cannot be a pipeline's name"):
        scaffold(place, name, table=place.root / "none.csv", key=["id"], target="y")


def test_an_existing_folder_is_left_alone_unless_forced(place: Settings) -> None:
    declared(place, customers())
    before = (place.pipelines / "churn" / "features.sql").read_text()

    with pytest.raises(DeclarationError, match="exists already; expected a new name, or --force"):
        declared(place, customers(plan=list("ab") * 20))
    assert (place.pipelines / "churn" / "features.sql").read_text() == before
    assert "plan" in selected(declared(place, customers(plan=list("ab") * 20), force=True))
    assert [path.name for path in place.pipelines.iterdir()] == ["churn"]


def test_a_place_that_cannot_be_written_is_said(place: Settings) -> None:
    table = write_csv(place.root / "t.csv", customers())
    place.pipelines.write_text("a file")

    with pytest.raises(DeclarationError, match="cannot be written"):
        scaffold(place, "churn", table=table, key=["customer_id"], target="churned")


def test_a_very_wide_table_still_loads_or_says_why_not(place: Settings) -> None:
    def wide(columns: int) -> dict[str, Sequence[object]]:
        return customers(**{f"column_number_{i}": [n % 3 for n in range(ROWS)] for i in range(columns)})

    assert len(declared(place, wide(2000)).pipeline.features.numeric) == 2001
    with pytest.raises(InputError, match=r"features make a declaration of .* leave columns out"):
        declared(place, wide(12_000), force=True)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda name: name.strip()
)
CELLS = st.one_of(
    st.sampled_from(
        ["", " ", "N/A", "yes", "no", "1", "0", "007", "-1.5e3", "NaN", "1e999", "2024-02-29", "it's `a\\", "#: {"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.floats().map(str),
    st.dates().map(str),
)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[str]]:
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique_by=lambda name: name.lower()))
    columns = {name: draw(_column()) for name in names if name.lower() not in ("key", "target")}
    pair = draw(st.sampled_from([("yes", "No "), ("a'", "\\b"), ("0,5", "1")]))
    classes = st.just([pair[0 if is_churned(n) else 1] for n in range(ROWS)])
    return {"key": [f"k{n}" for n in range(ROWS)], **columns, "target": draw(classes | _column())}


def _column() -> st.SearchStrategy[list[str]]:
    """A column that repeats a few cells to the length of the table."""
    numbers, days = st.floats(allow_nan=False, allow_infinity=False).map(str), st.dates().map(str)
    kinds = [st.lists(cells, min_size=1, max_size=most) for cells, most in ((CELLS, 3), (CELLS, ROWS))]
    kinds += [st.lists(cells, min_size=1, max_size=ROWS) for cells in (numbers, days)]
    return st.one_of(kinds).map(lambda cells: list(itertools.islice(itertools.cycle(cells), ROWS)))


def scaffold_or_refusal(place: Settings, table: Path) -> DeclaredPipeline | AlmanacError:
    try:
        return read_folder(scaffold(place, "any", table=table, key=["key"], target="target", today=TODAY).folder)
    except AlmanacError as refused:
        return refused


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(table=tables())
def test_what_is_written_always_loads(table: dict[str, list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Settings(pipelines=Path(folder) / "dags", store=Path(folder) / "store")
        pipeline = scaffold_or_refusal(place, write_csv(Path(folder) / "t.csv", table))
        assert place.pipelines.exists() == isinstance(pipeline, DeclaredPipeline)
    if isinstance(pipeline, AlmanacError):
        assert all(problem.code.startswith("SCAFFOLD_") for problem in pipeline.problems)
        return
    outputs = selected(pipeline)
    assert list(outputs) == ["key", *sorted(pipeline.pipeline.features.columns, key=list(outputs).index)]
    assert all(re.fullmatch(COLUMN_PATTERN, name) for name in outputs)
    assert len({name.lower() for name in outputs}) == len(outputs)
    assert sqlglot.parse_one(pipeline.pipeline.training.label, dialect="spark")
    used = {column.name for column in sqlglot.parse_one(pipeline.features_sql, dialect="spark").find_all(exp.Column)}
    assert used <= set(table) - set(pipeline.pipeline.sources["t"].forbidden)
