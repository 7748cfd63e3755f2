"""What features.sql may say, checked without Spark: one query, declared tables, nothing forbidden."""

import re
from collections.abc import Collection, Iterator

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError, TokenError

from schemas.declared import DeclaredPipeline
from schemas.errors import DeclarationError, Problem

PARAMETERS = ("ds",)

# Functions whose answer is not the row's own: with one of them, equal inputs would not give equal bytes.
_UNSTEADY = frozenset(
    [
        "rand",
        "random",
        "randn",
        "randstr",
        "uniform",
        "uuid",
        "shuffle",
        "now",
        "current_date",
        "curdate",
        "current_timestamp",
        "localtimestamp",
        "current_time",
        "current_user",
        "current_timezone",
        "monotonically_increasing_id",
        "spark_partition_id",
        "input_file_name",
        "input_file_block_start",
        "input_file_block_length",
        "java_method",
        "reflect",
        "first",
        "last",
        "any_value",
        "user",
        "session_user",
        "try_reflect",
        "version",
    ]
)

# What sqlglot raises for text that is not SQL, or is nested past what Python can follow.
_UNREADABLE = (SqlglotError, RecursionError)


def check_sql(declared: DeclaredPipeline) -> None:
    """Check features.sql and every SQL expression of the declaration.

    Raises:
        DeclarationError: with all that was found: a syntax error, a statement that is no query, a table that is not
            declared, a forbidden column, an unknown parameter, a missing output column, a function that answers
            differently from run to run.
    """
    problems = list(_query_problems(declared))
    problems += [problem for where, text in _expressions(declared) for problem in _expression_problems(where, text)]
    problems += [problem for where, text in _routes(declared) for problem in _route_problems(declared, where, text)]
    if problems:
        raise DeclarationError(*problems)


def _query_problems(declared: DeclaredPipeline) -> Iterator[Problem]:
    where = f"{declared.name}/{declared.pipeline.features.sql}"
    try:
        statements = _statements(declared.features_sql)
    except _UNREADABLE as err:
        yield _syntax(where, err, declared.features_sql)
        return
    query = statements[0] if len(statements) == 1 else None
    if not isinstance(query, exp.Query):
        found = ", ".join(statement.key.upper() for statement in statements) or "no statement"
        yield Problem("SQL_NOT_A_QUERY", where, found, "one SELECT")
        return
    yield from _table_problems(query, declared, where)
    yield from _column_problems(query, declared, where)
    yield from _unsteady_problems(query, where)
    yield from _some_rows_problems(query, where)
    more = [*declared.pipeline.parameters]
    for text in _unknown_parameters(query, (*PARAMETERS, *more)):
        at = _line_at(declared.features_sql, declared.features_sql.find(text))
        expected = ", ".join(["':ds', the logical date", *(f"':{name}'" for name in more)])
        yield Problem("SQL_PARAMETER", f"{where}{at}", f"parameter '{text}'", expected)


def _unknown_parameters(node: exp.Expr, known: Collection[str]) -> list[str]:
    markers = node.find_all(exp.Placeholder, exp.Parameter)
    texts = {marker.sql("spark") for marker in markers if not isinstance(marker.parent, exp.Placeholder)}
    return sorted(texts - {f":{name}" for name in known})


def _statements(text: str) -> list[exp.Expr]:
    parsed = sqlglot.parse(text, dialect="spark")
    return [statement for statement in parsed if statement is not None and not isinstance(statement, exp.Semicolon)]


def _table_problems(query: exp.Query, declared: DeclaredPipeline, where: str) -> Iterator[Problem]:
    own = {cte.alias_or_name.lower() for cte in query.find_all(exp.CTE)}
    known = {name.lower() for name in declared.pipeline.sources}
    for table in query.find_all(exp.Table):
        if table.name.lower() not in own | known or table.db:
            yield Problem(
                "SQL_TABLE",
                f"{where}{_line(table)}",
                f"table '{table.sql('spark')}'",
                f"a declared source: {', '.join(sorted(known))}",
            )


def _column_problems(query: exp.Query, declared: DeclaredPipeline, where: str) -> Iterator[Problem]:
    pipeline = declared.pipeline
    forbidden = {column.lower(): name for name, source in pipeline.sources.items() for column in source.forbidden}
    for column in _columns(query):
        if (source := forbidden.get(column.name.lower())) is not None:
            yield Problem(
                "SQL_FORBIDDEN",
                f"{where}{_line(column)}",
                f"column '{column.name}' of source '{source}'",
                "only what is known before the outcome",
            )
    if query.is_star:
        return  # only Spark knows what a star stands for; the score stage checks its columns
    outputs = {name.lower() for name in query.named_selects}
    for wanted in dict.fromkeys([*pipeline.entity.key, *pipeline.features.columns]):
        if wanted.lower() not in outputs:
            kind = "key" if wanted in pipeline.entity.key else "feature"
            yield Problem(
                "SQL_COLUMN",
                where,
                f"{kind} column '{wanted}' is not selected",
                f"it among {', '.join(query.named_selects)}",
            )


def _unsteady_problems(node: exp.Expr, where: str) -> Iterator[Problem]:
    for function in node.find_all(exp.Func):
        name = (function.name if isinstance(function, exp.Anonymous) else function.sql_name()).lower()
        if name in _UNSTEADY:
            yield Problem(
                "SQL_UNSTEADY", where, f"{name}()", "only functions of the row and :ds: equal inputs, equal predictions"
            )


def _some_rows_problems(query: exp.Query, where: str) -> Iterator[Problem]:
    for node in query.find_all(exp.TableSample, exp.Limit, exp.Offset):
        found = f"{node.key.upper()}{_line(node)}"
        yield Problem("SQL_UNSTEADY", where, found, "every row: which ones it keeps may differ from run to run")


def _columns(query: exp.Query) -> Iterator[exp.Expr]:
    yield from query.find_all(exp.Column)
    for join in query.find_all(exp.Join):
        yield from join.args.get("using") or ()


def _expressions(declared: DeclaredPipeline) -> Iterator[tuple[str, str]]:
    pipeline = declared.pipeline
    yield f"{declared.name}/pipeline.yaml: training.label", pipeline.training.label
    if pipeline.training.split.by:
        yield f"{declared.name}/pipeline.yaml: training.split.by", pipeline.training.split.by
    for rule in pipeline.rules:
        yield f"{declared.name}/pipeline.yaml: rules.{rule.name}", rule.check


def _routes(declared: DeclaredPipeline) -> Iterator[tuple[str, str]]:
    for route in declared.pipeline.models.routes:
        yield f"{declared.name}/pipeline.yaml: models.routes.{route.name}", route.where


def _route_problems(declared: DeclaredPipeline, where: str, text: str) -> Iterator[Problem]:
    """Of a route: it alone reads parameters, beside features.sql."""
    yield from (found := list(_expression_problems(where, text)))
    if found:
        return
    known = [*declared.pipeline.parameters]
    for name in _unknown_parameters(_statements(f"SELECT {text}\nAS value")[0], known):
        expected = ", ".join(f"':{one}'" for one in known) or "none: no parameter is declared"
        yield Problem("SQL_PARAMETER", where, f"parameter '{name}'", expected)


def _expression_problems(where: str, text: str) -> Iterator[Problem]:
    try:
        if not sqlglot.tokenize(text, dialect="spark"):
            yield Problem("SQL_SYNTAX", where, "no expression", "Spark SQL")
            return
        # On a line of its own, so that a comment at the end of the text cannot hide the alias.
        statements = _statements(f"SELECT {text}\nAS value")
    except _UNREADABLE as err:
        yield _syntax(where, err)
        return
    parts = {part: value for statement in statements for part, value in statement.args.items() if value}
    if len(statements) != 1 or set(parts) != {"expressions"} or len(parts["expressions"]) != 1:
        yield Problem("SQL_SYNTAX", where, f"'{text}' is more than an expression", "one Spark SQL expression")
        return
    yield from _unsteady_problems(statements[0], where)


def _syntax(where: str, err: Exception, file_text: str | None = None) -> Problem:
    """What sqlglot says, with its line where a whole file was read."""
    found, at, near = str(err).partition("\n")[0], "", None
    if isinstance(err, RecursionError):
        found = "nested too deeply"
    elif isinstance(err, TokenError):
        found = "a quote or a comment that does not end"
        # "Missing ' from 51:811" names the last line of the text, and how many characters stand before the quote.
        if file_text and (place := re.search(r" from \d+:(\d+)", str(err.__cause__))):
            at = _line_at(file_text, int(place[1]))
    elif isinstance(err, ParseError) and err.errors:
        detail = err.errors[0]
        found, near = str(detail["description"]).rstrip("."), detail["highlight"]
        at = f":{detail['line']}:{detail['col']}" if file_text and detail["line"] else ""
    return Problem("SQL_SYNTAX", f"{where}{at}", f"{found} near '{near}'" if near else found, "Spark SQL")


def _line_at(text: str, offset: int) -> str:
    return f":{text.count(chr(10), 0, offset) + 1}" if offset >= 0 else ""


def _line(node: exp.Expr) -> str:
    identifier = node.find(exp.Identifier)
    line = identifier.meta.get("line") if identifier else None
    return f":{line}" if line else ""
