"""What Spark's Python workers answer, brought to the driver."""

import re

from pyspark.errors import PythonException
from pyspark.sql import DataFrame, Row

from schemas.errors import DeclarationError, Problem

_MISSING = re.compile(r"ModuleNotFoundError: (No module named '[\w.]+')")


def collect(frame: DataFrame) -> list[Row]:
    """All rows.

    Raises:
        DeclarationError: the workers do not have this code, or a package that it needs.
    """
    try:
        return frame.collect()
    except PythonException as err:
        if not (missing := _MISSING.search(str(err))):
            raise
        expected = "this code (--py-files almanac.zip) and its packages on every executor; see docs/deployment.md"
        raise DeclarationError(Problem("SPARK_PYTHON", "Spark's Python workers", missing[1], expected)) from err
