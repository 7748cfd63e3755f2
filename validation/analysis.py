"""Spark SQL's own complaints, as one clear error of ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.errors import (
    AnalysisException,
    ArithmeticException,
    ArrayIndexOutOfBoundsException,
    DateTimeException,
    NumberFormatException,
    ParseException,
    SparkRuntimeException,
)

from schemas.errors import DeclarationError, Problem

# What a query can be wrong about, before it runs and while it does; a lost executor is none of these.
_OF_THE_SQL = (
    AnalysisException,
    ParseException,
    SparkRuntimeException,
    ArithmeticException,
    ArrayIndexOutOfBoundsException,
    DateTimeException,
    NumberFormatException,
)


@contextmanager
def analysis_errors(where: str) -> Iterator[None]:
    """Turn what Spark says of declared SQL, when it is resolved or run, into a DeclarationError at `where`.

    Raises:
        DeclarationError: Spark could not parse, resolve or evaluate the SQL.
    """
    try:
        yield
    except _OF_THE_SQL as err:
        text = " ".join(str(err).split("== SQL")[0].split(";\n")[0].split())
        text = re.sub(r"^\[[A-Z_.0-9]+\]\s*", "", text).removesuffix(" SQLSTATE: " + (err.getSqlState() or ""))
        position = re.search(r"line (\d+)[,, ]+pos(?:ition)? (\d+)", str(err))
        line = f":{position[1]}" if position else ""
        raise DeclarationError(Problem("SQL_ERROR", f"{where}{line}", text[:400], "SQL that Spark can run")) from err
