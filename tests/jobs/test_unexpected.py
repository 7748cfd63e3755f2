"""An error that no part foresaw still says where, what and what to do."""

import errno
from pathlib import Path

import pytest

from jobs.unexpected import check_store, explained
from schemas.settings import Settings

SETTINGS = Settings(pipelines=Path("/team/dags"), store=Path("/team/.almanac"))


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        (errno.ENOTDIR, 2),
        (errno.EEXIST, 2),
        (errno.EACCES, 2),
        (errno.EROFS, 2),
        (errno.EPERM, 2),
        (errno.ENOSPC, 1),
        (errno.EIO, 1),
    ],
)
def test_an_error_of_the_disk_names_its_path(number: int, exit_code: int) -> None:
    error = explained(OSError(number, "the reason", "/team/.almanac/x"), SETTINGS)

    (problem,) = error.problems
    assert (problem.code, problem.where, problem.found) == ("ENV_STORE", "/team/.almanac/x", "the reason")
    assert error.exit_code == exit_code


def test_an_error_of_the_disk_without_a_path_names_the_store() -> None:
    (problem,) = explained(OSError(errno.ENOSPC, "No space left on device"), SETTINGS).problems

    assert (problem.code, problem.where, problem.expected) == ("ENV_STORE", "/team/.almanac", "room on the disk")


@pytest.mark.parametrize(
    ("err", "found"),
    [
        (ValueError("\n  \n the first line \nanother"), "the first line"),
        (ValueError(), "no reason given"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "[Errno 104] reset"),
    ],
)
def test_any_other_error_is_told_by_its_first_line(err: Exception, found: str) -> None:
    error = explained(err, SETTINGS)

    assert (error.problems[0].code, error.problems[0].found, error.exit_code) == ("UNEXPECTED", found, 1)


def test_a_file_above_the_store_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        check_store(Settings(pipelines=tmp_path, store=tmp_path / "file" / "store"))
    settings = Settings(pipelines=tmp_path, store=tmp_path / "not" / "yet")
    assert check_store(settings) is settings
