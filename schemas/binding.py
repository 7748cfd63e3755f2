"""A declaration with the parameters of one run in their places."""

import datetime as dt
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from schemas.declared import DeclaredPipeline
from schemas.errors import DeclarationError, Problem
from schemas.parameters import Value


def bound(declared: DeclaredPipeline, given: Mapping[str, object]) -> DeclaredPipeline:
    """The declaration as it is with these values; defaults where none is given.

    Args:
        declared: As it stands in the files.
        given: By name: text, or values as JSON has them.

    Raises:
        DeclarationError: a parameter is not declared, is missing, or has a value that it may not have.
    """
    parameters, problems = declared.pipeline.parameters, []
    values: dict[str, Value] = {}
    for name in [name for name in given if name not in parameters]:
        near = difflib.get_close_matches(name, parameters, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        expected = f"one of {', '.join(parameters)}" if parameters else "no parameter: none is declared"
        problems.append(
            Problem("PARAM_UNKNOWN", f"{declared.name}: parameter '{name}'", f"not declared{hint}", expected)
        )
    for name, parameter in parameters.items():
        where = f"{declared.name}: parameter '{name}'"
        if name not in given and parameter.default is None:
            expected = f"--param {name}=VALUE, {parameter.expected}"
            problems.append(Problem("PARAM_MISSING", where, "is not given, and has no default", expected))
            continue
        try:
            values[name] = parameter.read(given.get(name, parameter.default))
        except ValueError as err:
            problems.append(Problem("PARAM_VALUE", where, repr(given.get(name))[:60], str(err)))
    if problems:
        raise DeclarationError(*problems)
    if not values:
        return declared
    models = declared.pipeline.models
    routes = [route.model_copy(update={"where": with_literals(route.where, values)}) for route in models.routes]
    pipeline = declared.pipeline.model_copy(update={"models": models.model_copy(update={"routes": routes})})
    return replace(declared, pipeline=pipeline, values=values)


def given_as_text(words: Sequence[str]) -> dict[str, object]:
    """What `--param NAME=VALUE` gives, each once.

    Raises:
        DeclarationError: one is not of that form, or stands there twice.
    """
    found: dict[str, object] = {}
    for word in words:
        name, mark, value = word.partition("=")
        if not mark or not name or name in found:
            wrong = f"'{name}' twice" if name in found else f"'{word[:60]}'"
            raise DeclarationError(Problem("PARAM_VALUE", "--param", wrong, "NAME=VALUE, each name once"))
        found[name] = value
    return found


def given_as_json(text: str) -> dict[str, object]:
    """What a scheduler passes on: an object of names and values, of which null is not given.

    Raises:
        DeclarationError: it is none.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DeclarationError(Problem("PARAM_VALUE", "--parameters", f"'{text[:60]}'", "a JSON object"))
    return {str(name): value for name, value in found.items() if value is not None}


def literal(value: Value) -> str:
    """Spark SQL that means just this value, whatever is in it: text travels as the hex digits of its UTF-8.

    >>> literal("O'Hare"), literal(7), literal(dt.date(2013, 7, 1))
    ("CAST(X'4F2748617265' AS STRING)", 'CAST(7 AS BIGINT)', "DATE'2013-07-01'")
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"CAST({value} AS BIGINT)"
    if isinstance(value, float):
        return f"CAST('{value!r}' AS DOUBLE)"
    if isinstance(value, dt.date):
        return f"DATE'{value.isoformat()}'"
    return f"CAST(X'{value.encode().hex().upper()}' AS STRING)"


def with_literals(text: str, values: Mapping[str, Value]) -> str:
    """A SQL expression in which each `:name` of these is the literal; what stands in quotes or comments stays.

    >>> with_literals("origin = :at AND dest <> ':at'", {"at": "JFK"})
    "origin = CAST(X'4A464B' AS STRING) AND dest <> ':at'"
    """
    import sqlglot  # heavy; only a run with parameters pays for it

    tokens = sqlglot.tokenize(text, dialect="spark")
    for mark, name in reversed(list(pairwise(tokens))):
        is_marked = mark.text == ":" and mark.end + 1 == name.start
        if is_marked and text[name.start : name.end + 1] in values:
            text = text[: mark.start] + literal(values[text[name.start : name.end + 1]]) + text[name.end + 1 :]
    return text
