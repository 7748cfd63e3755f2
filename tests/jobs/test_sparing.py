"""What a Spark worker has imported is not looked through for garbage after each of its tasks."""

import subprocess
import sys

TASKS = """
import gc, sys, weakref
from jobs.tasks import told

class Loop: ...

gc.disable()
loop = Loop()
loop.itself, seen = loop, weakref.ref(loop)
del loop

def hidden():
    list(told(lambda: {"rows": 1}))
    return gc.get_freeze_count()

first, more, again = hidden(), [[number] for number in range(99)], hidden()
print(first > 1000, seen() is None, again == first)
import colorsys
print(hidden() >= first + len(more))
"""


def test_after_a_task_the_collector_sees_no_module_and_no_garbage_is_hidden_from_it() -> None:
    ended = subprocess.run([sys.executable, "-c", TASKS], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["True"] * 4
