"""Errors say where, what and what else; they cross processes and stay short."""

import pickle

import pytest

from schemas.errors import (
    AlmanacError,
    BlockedError,
    DeclarationError,
    InputError,
    Problem,
    RefusedError,
    RowDecodeError,
    UnavailableError,
    bounded,
)

TREE = {DeclarationError: 2, InputError: 2, RowDecodeError: 2, RefusedError: 2, BlockedError: 3, UnavailableError: 1}


@pytest.mark.parametrize("kind", TREE)
def test_an_error_survives_a_pickle_with_its_problems(kind: type[AlmanacError]) -> None:
    error = kind(Problem("A", "here", "that", "this"), Problem("B", "there", "nothing"))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes, as Spark passes them
    assert type(copy) is kind
    assert copy.problems == error.problems
    assert str(copy) == "here: that; expected this [A]\nthere: nothing [B]"


@pytest.mark.parametrize(("kind", "code"), TREE.items())
def test_the_exit_code_says_whether_a_retry_helps(kind: type[AlmanacError], code: int) -> None:
    assert kind.exit_code == code


def test_no_more_than_ten_problems_are_shown_and_the_rest_counted() -> None:
    error = InputError(*(Problem("A", f"row {n}", "bad") for n in range(500)))
    lines = str(error).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 490 more"


def test_exactly_the_limit_has_no_rest() -> None:
    assert bounded(["a", "b"], limit=2) == ["a", "b"]
    assert bounded(["a", "b", "c"], limit=2) == ["a", "b", "... and 1 more"]
