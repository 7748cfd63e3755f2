"""What a person sees: steps with their seconds, tables, and errors; or one JSON document instead."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console as RichConsole
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.table import Table
from rich.text import Text

from schemas.errors import AlmanacError, bounded

_UNLIMITED = 1_000_000


class Step:
    """A step under way; set `detail` to say what it found."""

    def __init__(self, title: str, status: Status | None = None) -> None:
        self.title = title
        self.detail = ""
        self._status = status

    def progress(self, text: str) -> None:
        """Show on a terminal how far it is."""
        if self._status:
            self._status.update(Text.assemble((self.title, "bold"), " ", text))


class Bar:
    """How far a long piece of work is, on a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, detail: str) -> None:
        """One more is done."""
        self._progress.update(self._task, advance=1, detail=detail)


class Console:
    """Prints for people on standard error and results on standard output.

    Lines are wrapped and tables fitted where somebody looks at them: on a terminal and in a recorded page. In a pipe or
    a file nothing is broken or cut, so that what reads it finds whole lines.

    Args:
        as_json: Print nothing but one JSON document, on standard output.
        rich: Where pages go; a recording console makes the pictures of the docs.

    Attributes:
        seconds: What each finished step took.
    """

    def __init__(self, *, as_json: bool = False, rich: RichConsole | None = None) -> None:
        self.as_json = as_json
        self.rich = rich or RichConsole(stderr=as_json, highlight=False)
        self.seconds: dict[str, float] = {}
        self._wraps = self.rich.is_terminal or self.rich.record

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show `title` with a spinner while the block runs, then with a mark, its detail and its seconds."""
        started = time.monotonic()
        status = None if self.as_json else self.rich.status(Text(title, style="bold"))
        step = Step(title, status)
        try:
            with status or nullcontext():
                yield step
        except BaseException:
            self._line("✗", "red", step, time.monotonic() - started)
            raise
        seconds = time.monotonic() - started
        self.seconds[title.replace(" ", "_")] = round(seconds, 3)
        self._line("✓", "green", step, seconds)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Show a bar while the block runs; what is printed meanwhile stands above it. Nothing is shown in a pipe."""
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        hidden = self.as_json or not self.rich.is_terminal
        with Progress(*columns, console=self.rich, disable=hidden, transient=True) as progress:
            yield Bar(progress, progress.add_task(title, total=total, detail=""))

    def _line(self, mark: str, style: str, step: Step, seconds: float) -> None:
        if self.as_json:
            return
        if not self._wraps:
            self.say(f"{mark} {step.title:<14} {step.detail}  {seconds:.1f} s")
            return
        # A grid, so that a long detail wraps inside its own column.
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(width=1)
        line.add_column(width=14, no_wrap=True)
        line.add_column(ratio=1, overflow="fold")
        line.add_column(justify="right", width=8)
        line.add_row(
            Text(mark, style=style),
            Text(step.title, style="bold"),
            Text(step.detail),
            Text(f"{seconds:.1f} s", style="dim"),
        )
        self.rich.print(line)

    def say(self, text: str, *, style: str = "", whole: bool = False) -> None:
        """Print a line of text; markup in it is not read.

        Args:
            text: The line.
            style: Its colour, in rich's words.
            whole: Leave its wrapping to the terminal, so that it can be copied: a path, a command.
        """
        if not self.as_json:
            self.rich.print(Text(text, style=style), soft_wrap=whole or not self._wraps)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table; columns whose cells are all numbers are right-aligned."""
        if self.as_json:
            return
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for index, name in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
            table.add_column(name, justify="right" if numeric else "left")
        for row in rows:
            table.add_row(*(Text(_cell(value)) for value in row))
        if not self._wraps:
            options = self.rich.options.update(width=_UNLIMITED)
            table.width = Measurement.get(self.rich, options, table).maximum
        self.rich.print(table, soft_wrap=not self._wraps)

    def result(self, value: Any) -> None:
        """Print the JSON document of a command run with --json."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")

    def line(self, value: Any) -> None:
        """Print a line of JSON, at once: what reads a command that goes on does not wait for its end."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def error(self, error: AlmanacError) -> None:
        """Print an error: where, what was found, what was expected."""
        if self.as_json:
            problems = [problem._asdict() for problem in error.problems]
            self.result({"error": type(error).__name__, "exit_code": error.exit_code, "problems": problems})
            return
        apart = self.rich.file is sys.stdout and not self.rich.record  # a recorded page shows its errors too
        err = RichConsole(stderr=True, highlight=False) if apart else self.rich
        lines = bounded([str(problem) for problem in error.problems])
        for line in lines:
            err.print(Text.assemble(("✗ ", "red"), line), soft_wrap=not (err.is_terminal or err.record))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else str(value)
