"""In a pipe no line is broken or cut; on a terminal the layout fits its width."""

import io

import pytest
from rich.console import Console as RichConsole

from jobs.console import Console
from schemas.errors import InputError, Problem

LONG = "/a/long/path/" + "x" * 100


def page(*, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(rich=RichConsole(file=out, width=40, force_terminal=terminal, color_system=None)), out


def test_a_pipe_gets_whole_lines() -> None:
    console, out = page(terminal=False)

    console.say(LONG)
    console.error(InputError(Problem("CODE", LONG, "is wrong")))
    with console.step("gate") as step:
        step.detail = LONG
    console.table(["path", "rows"], [(LONG, 1), ("b", 20)])

    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines[:2] == [LONG, f"✗ {LONG}: is wrong [CODE]"]
    assert lines[2].startswith(f"✓ gate           {LONG}  0.")
    assert lines[3:] == [f"path{' ' * 109}  rows", f"{LONG}     1", f"b{' ' * 112}    20"]


def test_a_terminal_gets_a_layout_of_its_width() -> None:
    console, out = page(terminal=True)

    console.say(LONG)
    console.table(["path", "rows"], [(LONG, 1)])

    assert max(map(len, out.getvalue().splitlines())) <= 40


def test_what_is_to_be_copied_is_whole_on_a_terminal_too() -> None:
    console, out = page(terminal=True)

    console.say(LONG, whole=True)

    assert out.getvalue() == f"{LONG}\n"


def test_a_line_of_json_is_one_line_and_for_programs_only(capsys: pytest.CaptureFixture[str]) -> None:
    Console().line({"url": "http://h"})
    Console(as_json=True).line({"url": "http://h", "tables": ["a"]})

    assert capsys.readouterr().out == '{"url": "http://h", "tables": ["a"]}\n'
