"""Letting others have the core between two pieces of work."""

import os


def breathe() -> None:
    """Let who answers have this core, where one waits for it.

    Linux may preempt lazily: who is woken then gets the core of a process of low priority at that one's next call of
    the kernel, or else at the next tick of the clock, milliseconds later. Arithmetic makes no such call.
    """
    os.sched_yield()
