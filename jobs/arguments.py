"""Arguments of commands and jobs, read strictly."""

import argparse
import datetime as dt
import logging
import re
import sys
from collections.abc import Callable

from jobs.logs import set_up_logs
from jobs.unexpected import explained
from schemas.binding import given_as_json, given_as_text
from schemas.errors import AlmanacError, DeclarationError, Problem
from schemas.settings import Settings

logger = logging.getLogger("almanac")

_FIRST_YEAR = 1900


def parse_date(text: str, *, option: str = "--date", today: dt.date | None = None) -> dt.date:
    """A logical date, which was given with `option`.

    Raises:
        DeclarationError: it is not YYYY-MM-DD, no such day exists, or it is in the future.
    """
    try:
        # fromisoformat alone would also take 20130701 and 2013-W27-1.
        date = dt.date.fromisoformat(text) if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) else None
    except ValueError:
        date = None
    if date is None:
        raise DeclarationError(Problem("CLI_DATE", option, f"'{text}'", "a day as YYYY-MM-DD"))
    if date.year < _FIRST_YEAR:
        raise DeclarationError(Problem("CLI_DATE", option, f"'{text}'", f"a day from {_FIRST_YEAR} on"))
    latest = today or dt.datetime.now(dt.UTC).date()
    if date > latest:
        raise DeclarationError(Problem("CLI_DATE_FUTURE", option, text, f"{latest} or earlier"))
    return date


def job_arguments(description: str, *, date: bool = True) -> argparse.ArgumentParser:
    """The parser of a job: `--pipeline`, and `--date` and `--run-id` where it works on a run."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--pipeline", required=True, help="name of the declared pipeline")
    if date:
        parser.add_argument("--date", required=True, help="logical date, YYYY-MM-DD")
        parser.add_argument(
            "--run-id", help="the run that an earlier stage worked on; refused where the inputs changed since"
        )
        add_parameters(parser)
    return parser


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """The options with which the parameters of a run are given; `given_parameters` reads them."""
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the run")
    parser.add_argument("--parameters", default="{}", metavar="JSON", help="several, as one JSON object")


def given_parameters(arguments: argparse.Namespace) -> dict[str, object]:
    """The parameters that the options give.

    Raises:
        DeclarationError: they cannot be read.
    """
    return given_as_json(arguments.parameters) | given_as_text(arguments.param)


def exit_with(work: Callable[[], None]) -> None:
    """Run a job: log to standard error, exit 0 or with the exit code of what went wrong."""
    try:
        set_up_logs(logging.INFO)
        work()
    except Exception as err:  # the outermost frame: a scheduler goes by the lines and the exit code
        error = explained(err, Settings.from_environment())
        if not isinstance(err, (AlmanacError, OSError)):
            logger.info("failed", exc_info=True)  # nobody foresaw it
        for line in str(error).splitlines():
            logger.error("%s", line)
        sys.exit(error.exit_code)
