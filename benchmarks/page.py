"""docs/benchmarks.md: the figures of one whole `make bench` and the machine they were measured on."""

import datetime as dt
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figure import Measured
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


def page(measured: Sequence[Measured], *, before: str, seconds: float) -> str:
    """The page, in Markdown; `before` are the conditions when it began."""
    facts = [*machine(), f"Before: {before}", f"After, with its own work in the load: {conditions()}"]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"Written by `make bench`, which measured every figure here in {seconds / 60:.0f} minutes by running the",
            "real program as a person does, in a scratch folder with stores of its own. Do not edit.",
            "",
            *(f"- {fact}" for fact in facts),
            "",
            "| figure | measured | bar | met | what |",
            "|---|---:|---:|---|---|",
            *(_row(found) for found in measured),
            "",
            "A figure that was measured several times is the median of the samples behind it. Memory is the",
            "proportional set size (of a page that n processes share, each has 1/n), sampled every 50 ms in a run of",
            "its own.",
            "",
            *_verdict(measured),
            "",
        ]
    )


def write(text: str, file: Path = ROOT / "docs" / "benchmarks.md") -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _row(found: Measured) -> str:
    figure, met = found.figure, {True: "yes", False: "**no**", None: ""}[found.met]
    samples = f" ({', '.join(f'{sample:g}' for sample in found.samples)})" if len(found.samples) > 1 else ""
    ours = "not measured" if found.ours is None else f"{found.ours:g}{samples}"
    bar = "" if figure.bar is None else f"≤ {figure.bar:g}"
    return f"| `{figure.name}` | {ours} | {bar} | {met} | {figure.what} |"


def _verdict(measured: Sequence[Measured]) -> list[str]:
    missed = [
        f"- `{m.figure.name}` misses its bar: {m.ours:g} against {m.figure.bar:g}" for m in measured if m.met is False
    ]
    unknown = [f"- `{found.figure.name}` was not measured: {found.note}" for found in measured if found.ours is None]
    return [*missed, *unknown] or ["Every bar is met."]


def _said(*command: str) -> str:
    """What a command prints, on either stream; nothing where it cannot be run."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else ""
