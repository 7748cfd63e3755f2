"""What a Python worker of Spark is spared between its tasks."""

import gc
import sys
from functools import cache


def spare_modules() -> None:
    """Hide from the collector what is imported by now: Spark has it look through all there is after each task.

    `gc.freeze` makes no difference between modules and the rest: all that is alive at that moment is hidden, also what
    a task holds just then. What nobody refers to any more is freed as ever; only a cycle among it stays for good.
    """
    _hide(len(sys.modules))


@cache
def _hide(modules: int) -> None:  # noqa: ARG001  # once for each that were imported
    gc.collect()  # what is garbage now would never be found again
    gc.freeze()
