"""What features.sql may say, checked without Spark: one query, declared tables, nothing forbidden."""

from collections.abc import Iterator

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from schemas.declared import DeclaredPipeline
from schemas.errors import DeclarationError, Problem

PARAMETERS = ("ds",)


def check_sql(declared: DeclaredPipeline) -> None:
    """Check features.sql and every SQL expression of the declaration.

    Raises:
        DeclarationError: with all that was found: a syntax error, a statement that is no query, a table that is not
            declared, a forbidden column, an unknown parameter, a missing output column.
    """
    problems = list(_query_problems(declared))
    problems += [problem for where, text in _expressions(declared) for problem in _expression_problems(where, text)]
    if problems:
        raise DeclarationError(*problems)


def _query_problems(declared: DeclaredPipeline) -> Iterator[Problem]:
    where = f"{declared.name}/{declared.pipeline.features.sql}"
    try:
        statements = sqlglot.parse(declared.features_sql, dialect="spark")
    except (ParseError, TokenError) as err:
        yield _syntax(where, err)
        return
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        found = "no statement" if not statements or statements[0] is None else statements[0].key.upper()
        yield Problem("SQL_NOT_A_QUERY", where, f"{len(statements)} statements, the first {found}", "one SELECT")
        return
    query = statements[0]
    yield from _table_problems(query, declared, where)
    yield from _column_problems(query, declared, where)
    for marker in query.find_all(exp.Placeholder):
        if marker.name not in PARAMETERS:
            yield Problem("SQL_PARAMETER", where, f"parameter ':{marker.name}'", "':ds', the logical date")


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
    for column in query.find_all(exp.Column):
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


def _expressions(declared: DeclaredPipeline) -> Iterator[tuple[str, str]]:
    pipeline = declared.pipeline
    yield f"{declared.name}/pipeline.yaml: training.label", pipeline.training.label
    if pipeline.training.split.by:
        yield f"{declared.name}/pipeline.yaml: training.split.by", pipeline.training.split.by
    for rule in pipeline.rules:
        yield f"{declared.name}/pipeline.yaml: rules.{rule.name}", rule.check


def _expression_problems(where: str, text: str) -> Iterator[Problem]:
    try:
        sqlglot.parse_one(f"SELECT {text} AS value", dialect="spark")
    except (ParseError, TokenError) as err:
        yield _syntax(where, err)


def _syntax(where: str, err: Exception) -> Problem:
    detail = err.errors[0] if isinstance(err, ParseError) and err.errors else {}
    line = f":{detail['line']}:{detail['col']}" if detail.get("line") else ""
    found = str(detail.get("description") or str(err).splitlines()[0]).rstrip(".")
    near = f" near '{detail['highlight']}'" if detail.get("highlight") else ""
    return Problem("SQL_SYNTAX", f"{where}{line}", f"{found}{near}", "Spark SQL")


def _line(node: exp.Expression) -> str:
    identifier = node.find(exp.Identifier)
    line = identifier.meta.get("line") if identifier else None
    return f":{line}" if line else ""
