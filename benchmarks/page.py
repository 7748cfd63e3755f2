"""docs/benchmarks.md: each figure as it was measured last, and the machine."""

import datetime as dt
import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.figure import Figure, Measured
from benchmarks.records import Record
from benchmarks.workplace import ROOT


def machine() -> list[str]:
    """Facts about this machine now, one a line."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    java = _said("java", "-version")
    version = re.search(r'version "([^"]+)"', java)
    return [
        f"{os.cpu_count()} cores, {memory_gib:.0f} GiB of memory, {platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}, Java {version[1] if version else 'unknown'}, "
        f"Spark {importlib.metadata.version('pyspark')}",
    ]


def conditions() -> str:
    """What may differ from run to run: the time, what is measured, and what else the machine does."""
    changed = " with changes that are not committed" if _said("git", "status", "--porcelain") else ""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    commit = _said("git", "rev-parse", "--short", "HEAD") or "unknown"
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC, commit {commit}{changed}, load average {load}"


def page(figures: Sequence[Figure], records: Mapping[str, Record]) -> str:
    """The page, in Markdown, of those of the figures that were measured once."""
    known = {name: record.of(figure) for figure in figures if (record := records.get(name := figure.name))}
    unmeasured = [Measured(figure=figure, note="nobody has yet") for figure in figures if figure.name not in known]
    measured = [*known.values()]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Written by `make bench`, which measures every figure by running the real program as a person does, in a",
            "scratch folder with stores of its own; `make bench ARGS='--only NAME'` measures some of them anew. Do not",
            "edit.",
            "",
            *(f"- {fact}" for fact in machine()),
            "",
            "| figure | measured | peer | ratio | bar | met | what |",
            "|---|---:|---:|---:|---:|---|---|",
            *(_row(found) for found in measured),
            "",
            *(f"- {when}: {names}" for when, names in _times(records, known).items()),
            "",
            "A figure that was measured several times is the median of the samples behind it. A peer is measured in",
            "turns with ours, on this machine, and the ratio is ours to the peer's; a bar with an `x` is its.",
            "Memory of a run is the proportional set size (of a page that n processes share, each has 1/n), sampled",
            "every 50 ms in a run of its own.",
            "",
            *_verdict([*measured, *unmeasured]),
            *_notes(measured),
            "",
        ]
    )


def write(text: str, file: Path = ROOT / "docs" / "benchmarks.md") -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _times(records: Mapping[str, Record], known: Iterable[str]) -> dict[str, str]:
    """Which figures were measured when."""
    found: dict[str, list[str]] = {}
    for name in known:
        found.setdefault(records[name].at, []).append(f"`{name}`")
    return {when: ", ".join(names) for when, names in found.items()}


def _row(found: Measured) -> str:
    figure, met = found.figure, {True: "yes", False: "**no**", None: ""}[found.met]
    ours = _of(found.samples) or "not measured"
    ratio = "" if found.ratio is None else f"{found.ratio:.3g}"
    return f"| `{figure.name}` | {ours} | {_of(found.peers)} | {ratio} | {_bar(figure)} | {met} | {figure.what} |"


def _of(samples: Sequence[float]) -> str:
    """The median, and the samples behind it where there are several."""
    if not samples:
        return ""
    each = f" ({', '.join(map(_number, samples))})" if len(samples) > 1 else ""
    return _number(statistics.median(samples)) + each


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:g}"


def _bar(figure: Figure) -> str:
    if figure.bar is None:
        return ""
    return f"{'≤' if figure.sense == 'at most' else '≥'} {figure.bar:g}{' x' if figure.judged == 'ratio' else ''}"


def _verdict(measured: Sequence[Measured]) -> list[str]:
    missed = [
        f"- `{m.figure.name}` misses its bar: {m.judged:.4g} against {_bar(m.figure)}{f' ({m.note})' if m.note else ''}"
        f"{f': {m.figure.why}' if m.figure.why else ''}"
        for m in measured
        if m.met is False
    ]
    unknown = [f"- `{found.figure.name}` was not measured: {found.note}" for found in measured if found.ours is None]
    return [*missed, *unknown] or ["Every bar is met."]


def _notes(measured: Sequence[Measured]) -> list[str]:
    """How what met its bar was measured, where there is something to say."""
    told = [f"- `{m.figure.name}`: {m.note}" for m in measured if m.note and m.ours is not None and m.met is not False]
    return ["", "## How it was measured", "", *told] if told else []


def _said(*command: str) -> str:
    """What a command prints, on either stream; nothing where it cannot be run."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else ""
