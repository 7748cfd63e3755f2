"""Spark SQL's own complaints, as one clear error of ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import (
    AnalysisException,
    ArithmeticException,
    ArrayIndexOutOfBoundsException,
    DateTimeException,
    NumberFormatException,
    ParseException,
    SparkRuntimeException,
)

from schemas.errors import DeclarationError, InputError, Problem, UnavailableError

_MAX_CHARACTERS = 400

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


_DAMAGED_INPUT = ("MALFORMED_RECORD", "FAILED_READ_FILE", "CANNOT_READ_FILE", "MALFORMED_CSV")


@contextmanager
def analysis_errors(where: str) -> Iterator[None]:
    """Turn what Spark says of declared SQL or of its inputs, when it is resolved or run, into one clear error.

    Raises:
        DeclarationError: Spark could not parse, resolve or evaluate the SQL.
        InputError: Spark could not read a row or a file of a source.
        UnavailableError: the job failed for another reason, such as a lost executor.
    """
    try:
        yield
    except _OF_THE_SQL as err:
        text = _first_sentence(str(err), err.getSqlState())
        position = re.search(r"line (\d+)[,, ]+pos(?:ition)? (\d+)", str(err))
        line = f":{position[1]}" if position else ""
        raise DeclarationError(Problem("SQL_ERROR", f"{where}{line}", text, "SQL that Spark can run")) from err
    except Py4JJavaError as err:
        causes = list(_causes(err))
        text = _first_sentence(causes[-1], None)
        if any(word in cause for cause in causes for word in _DAMAGED_INPUT):
            raise InputError(Problem("IN_BAD_FILE", where, text, "sources that Spark can read")) from err
        raise UnavailableError(Problem("SPARK_FAILED", where, text, "a Spark that runs its jobs")) from err


def _causes(err: Py4JJavaError) -> Iterator[str]:
    """What the Java exception says, and each that it names as its cause."""
    cause = err.java_exception
    while cause is not None:
        yield str(cause.toString())
        cause = cause.getCause()


def _first_sentence(text: str, state: str | None) -> str:
    text = " ".join(text.split("== SQL")[0].split(";\n")[0].split())
    text = re.sub(r"^(?:[\w.$]+(?:Exception|Error): )?\[[A-Z_.0-9]+\]\s*", "", text)
    return text.removesuffix(f" SQLSTATE: {state}")[:_MAX_CHARACTERS]
