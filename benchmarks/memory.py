"""Peak memory of a run by kind of process, sampled from /proc.

The figure is the proportional set size: a page that n processes share counts as 1/n in each, so that forked Python
workers can be added up. Reading it costs a few milliseconds a process: timings come from other runs.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from benchmarks.figure import Samples, Unmeasurable
from benchmarks.workplace import DATES, Process, Workplace

_PROC = Path("/proc")
_INTERVAL_SECONDS = 0.05
_MIB = 1024  # kB


def run_memory(place: Workplace) -> Samples:
    """Peaks of one `almanac run` in MiB."""
    if not (_PROC / "self/smaps_rollup").is_file():
        raise Unmeasurable("this system has no /proc/<pid>/smaps_rollup")
    peaks = Peaks()
    with place.store() as store:
        place.run(DATES[0], store=store, meanwhile=peaks.follow)
    return {f"run_{what}_mib": [round(kib / _MIB, 1)] for what, kib in peaks.kib.items()}


class Peaks:
    """The highest sums by kind of process: `driver`, `jvm`, `workers`; of one `worker`; of `all` at one moment."""

    def __init__(self) -> None:
        self.kib: Counter[str] = Counter()

    def follow(self, process: Process) -> None:
        """Sample a process and all of its session until it ends."""
        while process.poll() is None:
            started = time.monotonic()
            self._sample(process.pid)
            time.sleep(max(0.0, _INTERVAL_SECONDS - (time.monotonic() - started)))

    def _sample(self, root: int) -> None:
        now: Counter[str] = Counter()
        for pid in session_pids(root):
            try:
                kind, size = _kind(pid, root), _pss_kib(pid)
            except OSError:  # it ended meanwhile
                continue
            now[kind] += size
            now["all"] += size
            if kind == "workers":
                now["worker"] = max(now["worker"], size)
        self.kib |= now


def session_pids(root: int) -> list[int]:
    """The processes of a session: the program, its JVM and their workers, but not the Redis, which has its own."""
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[3]) == root:
                found.append(int(entry.name))
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """What these processes, and those that ended before them and were theirs, have used of the cores."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):  # it ended meanwhile
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _kind(pid: int, root: int) -> str:
    if pid == root:
        return "driver"
    command = (_PROC / str(pid) / "cmdline").read_bytes()
    if b"pyspark.daemon" in command:  # and what is forked from it
        return "workers"
    return "jvm" if command.partition(b"\0")[0].endswith(b"java") else "others"


def _pss_kib(pid: int) -> int:
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
