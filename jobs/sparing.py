"""What a Python worker of Spark is spared between its tasks."""

import gc
import sys
from functools import cache


def spare_modules() -> None:
    """Hide from the collector what is imported by now: Spark has it look through all there is after each task."""
    _hide(len(sys.modules))


@cache
def _hide(modules: int) -> None:  # noqa: ARG001  # once for each that were imported
    gc.collect()  # what is garbage now would never be found again
    gc.freeze()
