"""Log lines: each names its run, as text or as JSON, whichever thread wrote it."""

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jobs.logs import Subject, logging_of, run_is, set_up_logs
from schemas.errors import DeclarationError
from validation.gate import evaluated

_log = logging.getLogger("jobs.somewhere")


@contextmanager
def logging_as(form: str = "") -> Iterator[io.StringIO]:
    """Logs set up as by a command, to a text; pytest's own handlers are put aside meanwhile."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", io.StringIO())
        try:
            set_up_logs(logging.INFO, environ={"ALMANAC_LOG_FORMAT": form})
            yield sys.stderr  # type: ignore[misc]
        finally:
            root.handlers[:] = before
            root.setLevel(level)


def test_a_line_names_its_run_and_one_of_no_run_names_none() -> None:
    with logging_as() as lines:
        _log.info("before")
        with logging_of(Subject("flight_delay", "score", "2013-07-01-abc")):
            _log.info("scored %d", 3)
        _log.info("after")
    assert [line.split(" ", 2)[2] for line in lines.getvalue().splitlines()] == [
        "INFO jobs.somewhere: before",
        "INFO jobs.somewhere [2013-07-01-abc]: scored 3",
        "INFO jobs.somewhere: after",
    ]


def test_a_json_line_is_one_document_whatever_the_message_holds() -> None:
    with logging_as("json") as lines, logging_of(Subject("flight_delay", "verify")):
        run_is("2013-07-01-abc")
        try:
            raise ValueError("a\nb")
        except ValueError:
            _log.exception('two\nlines, "quoted"')
    (line,) = lines.getvalue().splitlines()
    document = json.loads(line)
    assert document.pop("time").endswith("Z")
    assert document.pop("exception").endswith("ValueError: a\nb")
    assert document == {
        "level": "ERROR",
        "logger": "jobs.somewhere",
        "pipeline": "flight_delay",
        "stage": "verify",
        "run_id": "2013-07-01-abc",
        "message": 'two\nlines, "quoted"',
    }


def test_two_runs_of_one_process_do_not_sign_each_others_lines() -> None:
    both = threading.Barrier(2)

    def work(run_id: str) -> None:
        with logging_of(Subject(run_id=run_id)):
            both.wait()
            _log.info("by %s", run_id)

    threads = [threading.Thread(target=work, args=(run_id,)) for run_id in ("one", "two")]
    with logging_as() as lines:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told = sorted(line.split("somewhere ")[1] for line in lines.getvalue().splitlines())
    assert told == ["[one]: by one", "[two]: by two"]


def test_a_check_with_a_limit_of_time_signs_its_lines_too() -> None:
    with logging_as() as lines, logging_of(Subject(run_id="one")):
        evaluated("c", "inputs", lambda: _log.info("looked"), limit_seconds=5)
    assert lines.getvalue().endswith("INFO jobs.somewhere [one]: looked\n")


@pytest.mark.parametrize("name", ["jsno", "JSON", "text", " "])
def test_a_form_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        set_up_logs(logging.INFO, environ={"ALMANAC_LOG_FORMAT": name})
    assert str(caught.value) == f"ALMANAC_LOG_FORMAT: '{name}'; expected plain or json [CFG_LOG_FORMAT]"
