"""Data Docs as they are written: what stands there, what never does, and that nothing is loaded."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from schemas.expectations import Expectation
from schemas.report import CheckResult
from validation.datadocs import bare
from validation.expectations import Judged, evaluate
from validation.known import Known
from validation.profile import profile_batches

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = pa.RecordBatch.from_pydict(
    {"entity_id": ["UA:secret:1", "UA:secret:2"], "score": [0.25, 1.75], "origin": ["JFK", "<b>EWR</b>"]}
)
IDS = ["UA:secret:1", "UA:secret:2"]


def expect(kind: str, **kwargs: Any) -> Expectation:
    return Expectation.model_validate({"type": f"expect_{kind}", "kwargs": kwargs})


PREDICTIONS = [
    expect("column_values_to_be_finite", column="score"),
    expect("column_max_to_be_between", column="score", max_value=1),
    expect("column_values_to_be_in_set", column="origin", value_set=["JFK"]),
    expect("column_top_value_share_to_be_at_most", column="origin", max_value=0.9),
]


def refused() -> "DataFrame":
    raise RuntimeError("no rows for value UA:secret:1")


def write(folder: Path, *, run_name: str = "2013-07-01-0123456789ab", **suites: list[Expectation]) -> Any:
    known = Known(ROWS.schema, profile_batches([ROWS], skip=("entity_id",)))
    judged = {name: Judged(declared, refused, known) for name, declared in suites.items()}
    return evaluate(judged, run_name=run_name, docs=folder)


def text(page: Path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", page.read_text(), flags=re.DOTALL))


def test_pages_say_what_was_expected_and_what_was_seen(tmp_path: Path) -> None:
    found = write(tmp_path / "data_docs", inputs=PREDICTIONS[:1], predictions=PREDICTIONS)

    assert found.page == tmp_path / "data_docs" / "index.html"
    assert "inputs : 1 of 1 as expected" in text(found.page)
    assert "predictions : 2 of 4 as expected" in text(found.page)
    page = text(tmp_path / "data_docs" / "predictions.html")
    assert "Expectations of predictions, 2013-07-01-0123456789ab" in page
    assert "maximum value must be less than or equal to 1.0" in page
    assert "1.75" in page
    assert "&lt;b&gt;EWR&lt;/b&gt;" in page
    assert "values must be neither NaN nor infinite." in page
    assert "no value may have more than 0.9 of the rows." in page


def test_pages_load_nothing_and_run_nothing(tmp_path: Path) -> None:
    write(tmp_path, inputs=PREDICTIONS, predictions=PREDICTIONS)

    for page in tmp_path.glob("*.html"):
        content = page.read_text()
        assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in content
        assert not re.search(r"https?://|//[a-z]|<script|<img|<link|<iframe|\son[a-z]+=|url\(|@import", content)
        assert set(re.findall(r'href="([^"#]*)"', content)) <= {"index.html", "inputs.html", "predictions.html"}
        assert len(content) < 40_000


@pytest.mark.spark
def test_values_of_private_columns_are_in_no_page_and_no_result(spark: "SparkSession", tmp_path: Path) -> None:
    frame = spark.createDataFrame(ROWS.to_pandas())
    suite = [
        expect("column_values_to_be_in_set", column="entity_id", value_set=["other"]),
        expect("column_max_to_be_between", column="entity_id", max_value=1),
        expect("column_distinct_values_to_be_in_set", column="entity_id", value_set=["other"]),
        expect("column_most_common_value_to_be_in_set", column="entity_id", value_set=["other"]),
        expect("column_pair_values_to_be_equal", column_A="entity_id", column_B="origin"),
        expect("compound_columns_to_be_unique", column_list=["entity_id", "origin"]),
        expect("column_unique_value_count_to_be_between", column="entity_id", max_value=1),
        expect("column_mean_to_be_between", column="entity_id", max_value=1),
    ]

    found = evaluate({"inputs": Judged(suite, lambda: frame)}, docs=tmp_path)

    results: list[CheckResult] = found.results["inputs"]
    assert "secret" not in "".join(page.read_text() for page in tmp_path.glob("*.html"))
    assert "secret" not in " ".join(result.observed for result in results)
    assert results[0].observed == "2 of 2 rows (100.00%) unexpected"
    assert results[6].observed == "2"
    assert "withheld" in text(tmp_path / "inputs.html")


def test_an_error_about_a_private_column_is_told_without_its_words(tmp_path: Path) -> None:
    known = Known(ROWS.schema, profile_batches([ROWS], skip=("entity_id",)), frozenset({"entity_id"}))
    common = expect("column_most_common_value_to_be_in_set", column="entity_id", value_set=["other"])

    (result,) = evaluate({"inputs": Judged([common], refused, known)}, docs=tmp_path).results["inputs"]

    assert "secret" not in (tmp_path / "inputs.html").read_text()
    told = "Great Expectations raised: an error that is withheld, because it may tell a private value"
    assert (result.evaluated, result.observed) == (False, told)


def test_markup_in_the_data_hides_nothing(tmp_path: Path) -> None:
    rows = pa.RecordBatch.from_pydict({"origin": ['<div class="collapse">', "</table><script>"], "score": [0.5, 9.0]})
    suite = [
        expect("column_values_to_be_in_set", column="origin", value_set=["<nav>", "a&b"]),
        expect("column_distinct_values_to_be_in_set", column="origin", value_set=["<nav>"]),
        expect("column_most_common_value_to_be_in_set", column="origin", value_set=["<nav>"]),
        expect("column_max_to_be_between", column="score", max_value=1),
        expect("column_median_to_be_between", column="score", max_value=1),
    ]

    def broken() -> "DataFrame":
        raise RuntimeError("no <footer> here")

    evaluate({"inputs": Judged(suite, broken, Known(rows.schema, profile_batches([rows])))}, docs=tmp_path)

    page = text(tmp_path / "inputs.html")
    for shown in (
        "maximum value must be less than",
        "&lt;nav&gt;",
        "a&amp;b",
        "&lt;script&gt;",
        "no &lt;footer&gt; here",
    ):
        assert shown in page
    assert "&amp;lt;" not in page


def test_a_second_evaluation_replaces_the_pages_of_the_first(tmp_path: Path) -> None:
    write(tmp_path, inputs=PREDICTIONS, predictions=PREDICTIONS)
    write(tmp_path, run_name="again", predictions=PREDICTIONS[:1])

    assert sorted(page.name for page in tmp_path.iterdir()) == ["index.html", "predictions.html"]
    assert "again" in text(tmp_path / "predictions.html")


def test_a_suite_that_saw_no_rows_is_listed_without_a_page(tmp_path: Path) -> None:
    empty = Known(ROWS.schema, profile_batches([]))

    found = evaluate({"inputs": Judged(PREDICTIONS, refused, empty)}, docs=tmp_path)

    assert found.page is not None
    assert "inputs: 0 of 4 as expected, 4 not evaluated" in text(found.page)
    assert not (tmp_path / "inputs.html").exists()


@pytest.mark.parametrize(
    ("page", "kept"),
    [
        ("<p>a<script>alert(1)</script>b</p>", "<p>ab</p>"),
        ('<p onclick="x()" style="background:url(//h)" class="c">a</p>', '<p class="c">a</p>'),
        ('<a href="https://h">out</a><a href="#in">in</a>', '<a>out</a><a href="#in">in</a>'),
        ('a<img src="https://h/t.png">b<input>c', "abc"),
        ('<div class="col-lg-2"><br><img src="x"><div>menu</div></div><p>a</p>', "<p>a</p>"),
        ("<nav><p>open</nav>a", "a"),
        ("&lt;script&gt;", "&lt;script&gt;"),
        ('<p id="&quot;><script>">a</p>', '<p id="&quot;&gt;&lt;script&gt;">a</p>'),
    ],
)
def test_only_plain_elements_are_kept_of_a_page(page: str, kept: str) -> None:
    assert bare(page) == kept
