"""features.sql is one query over declared tables that sees nothing of the outcome; the rest is refused by line."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.declared import DeclaredPipeline, read_folder
from schemas.errors import DeclarationError, Problem
from schemas.sql import check_sql

FLIGHTS = Path(__file__).parent.parent.parent / "dags" / "flight_delay"
LABEL = "arr_delay IS NULL OR arr_delay > 15"

Declare = Callable[..., DeclaredPipeline]

QUERIES = {
    "misspelt keyword": ("LEFT JOIN planes", "LEFT JION planes", "SQL_SYNTAX", r"features\.sql:\d+:\d+: .*near"),
    "open bracket": ("count(*) OVER", "count(* OVER", "SQL_SYNTAX", r"features\.sql:LINE:\d+: .*near 'OVER'"),
    "open quote": (
        "s.dest,",
        "s.dest, ', ",
        "SQL_SYNTAX",
        r"features\.sql:LINE: a quote or a comment that does not end",
    ),
    "open comment": ("s.dest,", "s.dest, /* ", "SQL_SYNTAX", r"features\.sql: a quote or a comment that does not end"),
    "nested 5,000 deep": ("s.dest,", f"{'(' * 5000}1{')' * 5000},", "SQL_SYNTAX", r"features\.sql: nested too deeply"),
    "undeclared table": (
        "FROM flights",
        "FROM flihgts",
        "SQL_TABLE",
        r"features\.sql:LINE: table 'flihgts'.*: airports",
    ),
    "table of a database": ("FROM flights", "FROM prod.flights", "SQL_TABLE", r":LINE: table 'prod\.flights'"),
    "a path as a table": ("FROM flights", "FROM parquet.`/etc`", "SQL_TABLE", r":LINE: table 'parquet\.`/etc`'"),
    "a function as a table": ("FROM flights", "FROM read_files('/etc')", "SQL_TABLE", r"table 'READ_FILES"),
    "unknown parameter": (":ds", ":date", "SQL_PARAMETER", r"features\.sql:LINE: parameter ':date'; expected ':ds'"),
    "parameter in upper case": (":ds", ":DS", "SQL_PARAMETER", r"features\.sql:LINE: parameter ':DS'"),
    "nameless parameter": (":ds", "?", "SQL_PARAMETER", r"parameter '\?'"),
    "pasted variable": (":ds", "${ds}", "SQL_PARAMETER", r"features\.sql:LINE: parameter '\$\{ds\}'"),
    "template": (":ds", "{{ ds }}", "SQL_PARAMETER", r"features\.sql: parameter "),
    "missing feature": ("AS plane_age", "AS age", "SQL_COLUMN", r"feature column 'plane_age' is not selected"),
    "missing key": (
        "  s.flight,\n",
        "",
        "SQL_COLUMN",
        r"key column 'flight' is not selected; expected it among carrier",
    ),
}

FORBIDDEN = {
    "plain": ("tailnum, distance,", "tailnum, dep_delay, distance,"),
    "in backticks": ("tailnum, distance,", "tailnum, `dep_delay`, distance,"),
    "in another case": ("tailnum, distance,", "tailnum, DEP_Delay, distance,"),
    "qualified": ("tailnum, distance,", "tailnum, flights.dep_delay, distance,"),
    "qualified and quoted": ("tailnum, distance,", "tailnum, `flights`.`Dep_Delay`, distance,"),
    "aliased": ("tailnum, distance,", "tailnum, dep_delay AS harmless, distance,"),
    "in an expression": ("tailnum, distance,", "tailnum, coalesce(dep_delay, 0) + 1 AS harmless, distance,"),
    "as a condition": ("date >= :ds", "date >= :ds AND dep_delay > 0"),
    "in a subquery": ("w.visib\n", "w.visib, (SELECT max(air_time) FROM flights) AS longest\n"),
    "in a join": ("a.faa = s.dest", "a.faa = s.dest AND s.arr_delay > 0"),
    "in USING": ("ON p.tailnum = s.tailnum", "USING (arr_time)"),
    "in a window": ("PARTITION BY s.origin,", "PARTITION BY s.arr_time, s.origin,"),
    "as an order": ("GROUP BY origin, date, hour", "GROUP BY origin, date, hour ORDER BY dep_time"),
}

EXPRESSIONS = {
    "no end": ("arr_delay >", r"training\.label: "),
    "two operators": ("a OR OR b", r"training\.label: .*near 'OR'"),
    "open bracket": ("(arr_delay > 15", r"training\.label: Expecting \)"),
    "open quote": ("carrier = 'UA", r"training\.label: a quote or a comment that does not end"),
    "only a comment": ("-- later", r"training\.label: no expression"),
    "blank": (" ", r"training\.label: no expression"),
    "two": ("arr_delay, dep_delay", r"training\.label: 'arr_delay, dep_delay' is more than an expression"),
    "a query's rest": ("arr_delay FROM flights", r"training\.label: .* is more than an expression"),
    "a query": ("1 UNION SELECT 2", r"training\.label: .* is more than an expression"),
    "another statement": ("1; SELECT 2", r"training\.label: .* is more than an expression"),
    "a statement that is no query": ("1; DROP TABLE flights", r"training\.label: .*near"),
    "brackets turned round": ("1) x FROM (SELECT 1", r"training\.label: .*near '\)'"),
    "nested 5,000 deep": ("(" * 5000 + "1" + ")" * 5000, r"training\.label: nested too deeply"),
}


@pytest.fixture
def declare(tmp_path: Path) -> Declare:
    folder = Path(shutil.copytree(FLIGHTS, tmp_path / "flight_delay"))

    def declare(old: str, new: str, *, file: str = "features.sql") -> DeclaredPipeline:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))
        return read_folder(folder)

    return declare


def the_problem(declared: DeclaredPipeline) -> Problem:
    with pytest.raises(DeclarationError) as caught:
        check_sql(declared)
    (problem,) = caught.value.problems
    assert "\n" not in str(problem)
    return problem


def line_of(text: str, declared: DeclaredPipeline) -> int:
    sql = declared.features_sql
    return sql.count("\n", 0, sql.index(text)) + 1


@pytest.mark.parametrize("fault", QUERIES)
def test_a_wrong_query_is_one_problem_with_its_line(fault: str, declare: Declare) -> None:
    old, new, code, message = QUERIES[fault]
    declared = declare(old, new)
    problem = the_problem(declared)
    assert problem.code == code
    line = line_of(new, declared) if "LINE" in message else 0
    assert re.search(message.replace("LINE", str(line)), str(problem)), str(problem)


@pytest.mark.parametrize("disguise", FORBIDDEN)
def test_a_forbidden_column_is_found(disguise: str, declare: Declare) -> None:
    old, new = FORBIDDEN[disguise]
    declared = declare(old, new)
    problem = the_problem(declared)
    assert problem.code == "SQL_FORBIDDEN"
    assert problem.where == f"flight_delay/features.sql:{line_of(new, declared)}"
    assert problem.found.endswith("of source 'flights'")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("-- nothing yet\n", "no statement"),
        ("DROP TABLE flights", "DROP"),
        ("CREATE TABLE x AS SELECT 1", "CREATE"),
        ("INSERT INTO flights SELECT 1", "INSERT"),
        ("SELECT 1; SELECT 2", "SELECT, SELECT"),
        ("SELECT 1; DROP TABLE flights", "SELECT, DROP"),
        ("SET spark.sql.ansi.enabled = false", "SET"),
    ],
)
def test_only_one_query_is_a_query(text: str, found: str, declare: Declare, tmp_path: Path) -> None:
    (tmp_path / "flight_delay" / "features.sql").write_text(text)
    assert the_problem(declare("", "")) == Problem("SQL_NOT_A_QUERY", "flight_delay/features.sql", found, "one SELECT")


@pytest.mark.parametrize("fault", EXPRESSIONS)
def test_a_label_is_one_expression(fault: str, declare: Declare) -> None:
    text, message = EXPRESSIONS[fault]
    problem = the_problem(declare(f"label: {LABEL}", f'label: "{text}"', file="pipeline.yaml"))
    assert problem.code == "SQL_SYNTAX"
    assert re.search(message, str(problem)), str(problem)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("check: dep_minute BETWEEN", "check: dep_minute BETWIXT", r"rules\.leaves_at_a_real_time"),
        ("split: {by: date,", "split: {by: 'date)',", r"training\.split\.by"),
    ],
)
def test_every_expression_of_the_declaration_is_read(old: str, new: str, where: str, declare: Declare) -> None:
    assert re.search(f"pipeline.yaml: {where}", the_problem(declare(old, new, file="pipeline.yaml")).where)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("w.hour = s.dep_hour", "w.hour = s.dep_hour;\n-- the end"),
        ("FROM flights", "FROM FLIGHTS"),
        ("date >= :ds", "date >= :ds AND carrier <> ':date' -- ${x}"),
        ("w.visib\n", "w.visib, 'dep_delay' AS text\n"),
    ],
)
def test_what_spark_takes_is_taken(old: str, new: str, declare: Declare) -> None:
    check_sql(declare(old, new))


def test_a_star_is_left_to_the_run(declare: Declare, tmp_path: Path) -> None:
    (tmp_path / "flight_delay" / "features.sql").write_text("SELECT * FROM flights")
    check_sql(declare("", ""))


def test_everything_wrong_is_told_at_once(declare: Declare) -> None:
    declare("FROM flights", "FROM flihgts")
    declare(":ds", ":date")
    with pytest.raises(DeclarationError) as caught:
        check_sql(declare(LABEL, "OR", file="pipeline.yaml"))
    assert [problem.code for problem in caught.value.problems] == ["SQL_TABLE", "SQL_PARAMETER", "SQL_SYNTAX"]


@pytest.mark.parametrize(
    "call", ["rand()", "now()", "current_date", "uuid()", "reflect('a', 'b')", "shuffle(array(1))"]
)
def test_a_function_that_answers_differently_each_time_is_refused(call: str, declare: Declare) -> None:
    found = the_problem(declare("dayofweek(s.date) AS", f"{call} AS"))
    assert found.code == "SQL_UNSTEADY"
    assert found.expected == "only functions of the row and :ds: equal inputs, equal predictions"


def test_a_label_that_answers_differently_each_time_is_refused(declare: Declare) -> None:
    found = the_problem(declare(LABEL, "rand() > 0.5", file="pipeline.yaml"))
    assert (found.code, found.where) == ("SQL_UNSTEADY", "flight_delay/pipeline.yaml: training.label")
