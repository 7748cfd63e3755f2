"""The one tree of errors, split by what the reader must do about them."""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

MAX_PROBLEMS_SHOWN = 10


class Problem(NamedTuple):
    """One thing that is wrong: a stable code, where it is, what was found, what was expected."""

    code: str
    where: str
    found: str
    expected: str = ""

    def __str__(self) -> str:
        expected = f"; expected {self.expected}" if self.expected else ""
        return f"{self.where}: {self.found}{expected} [{self.code}]"


class AlmanacError(Exception):
    """Any error that Almanac raises on purpose.

    The problems are the exception's own arguments, so that it pickles across Spark processes.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)

    @property
    def problems(self) -> tuple[Problem, ...]:
        # An exception that crossed a process boundary may carry the problems as plain tuples.
        return tuple(Problem(*problem) for problem in self.args)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems]
        return "\n".join(bounded(lines))


class DeclarationError(AlmanacError):
    """The declaration is wrong: fix a file of the pipeline's folder, a flag or a setting."""

    exit_code = 2


class InputError(AlmanacError):
    """The data, bundle or request is wrong: look at what was read."""

    exit_code = 2


class RefusedError(AlmanacError):
    """The state forbids it (rolled back, fenced out, not verified): do not retry as is."""

    exit_code = 2


class BlockedError(AlmanacError):
    """A gate said no: the live release was left alone."""

    exit_code = 3


class UnavailableError(AlmanacError):
    """Something outside did not answer (Redis, the disk): a retry may help."""

    exit_code = 1


class RowDecodeError(InputError):
    """The bytes of a published row are not those of its version's columns."""


def bounded(lines: Iterable[str], limit: int = MAX_PROBLEMS_SHOWN) -> list[str]:
    """The first `limit` lines, and one more that counts the rest."""
    every = list(lines)
    rest = len(every) - limit
    return [*every[:limit], f"... and {rest} more"] if rest > 0 else every
