"""How far Spark is: the tasks of the stages at work, told every so often while somebody looks on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark import SparkContext

_SECONDS = 0.5


@contextmanager
def tasks_told(tell: Callable[[str], None], *, seconds: float = _SECONDS) -> Iterator[None]:
    """Tell of the tasks of this process's Spark while the block runs, once it has one.

    Args:
        tell: Called from another thread, for example with `5 of 8 tasks`.
        seconds: Between two times.
    """
    ended = Event()

    def watch() -> None:
        while not ended.wait(seconds):
            if (found := _tasks()) is not None:
                done, of = found
                tell(f"{done:,} of {of:,} tasks")

    thread = Thread(target=watch, name="tasks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tasks() -> tuple[int, int] | None:
    """Tasks that are done, and all, of the stages at work; None where none is."""
    # Not imported for this: a run that is already done starts no Spark, and does not load it.
    loaded = getattr(sys.modules.get("pyspark"), "SparkContext", None)
    context: SparkContext | None = loaded._active_spark_context if loaded else None
    if context is None:
        return None
    tracker = context.statusTracker()
    stages = [info for id_ in tracker.getActiveStageIds() if (info := tracker.getStageInfo(id_))]
    if not stages:
        return None
    return sum(info.numCompletedTasks for info in stages), sum(info.numTasks for info in stages)
