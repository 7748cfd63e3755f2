"""Ways in which what a command or a stage needs is wrong, and how its error is compared with the one expected."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from lookup.store import Store
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import PIPELINE, flights_file

NOBODY = "redis://127.0.0.1:1"  # no server answers there


def folder(settings: Settings) -> Path:
    return settings.pipelines / PIPELINE


def bundle_folder(settings: Settings) -> Path:
    bundles = Store(settings.store, PIPELINE).bundles
    return bundles / (bundles / "latest.txt").read_text().strip()


def nothing(_: Settings) -> None:
    pass


def unknown_key(settings: Settings) -> None:
    rewrite(folder(settings) / "pipeline.yaml", ("owner: flight", "ownr: flight"))


def one_name_twice(settings: Settings) -> None:
    shutil.copytree(folder(settings), settings.pipelines / "other")


def bad_sql(settings: Settings) -> None:
    rewrite(folder(settings) / "features.sql", ("FROM flights", "FROM flight"))


def no_bundle(settings: Settings) -> None:
    shutil.rmtree(Store(settings.store, PIPELINE).bundles)


def damaged_bundle(settings: Settings) -> None:
    model = bundle_folder(settings) / "model.txt"
    model.write_bytes(model.read_bytes()[:-10])


def other_outputs(settings: Settings) -> None:
    rewrite(folder(settings) / "pipeline.yaml", ("default: {score: 0.25}", "default: {delay: 0.25}"))


def store_is_a_file(settings: Settings) -> None:
    shutil.rmtree(settings.store)
    settings.store.write_text("")


def half_written(settings: Settings) -> None:
    (flights_file(settings).parent / "_temporary").mkdir()


def hole(settings: Settings) -> None:
    for day in ("2013-01-06", "2013-01-19"):
        shutil.rmtree(settings.root / "data" / "flights" / f"date={day}")


def no_source(settings: Settings) -> None:
    shutil.rmtree(settings.root / "data" / "planes")


def empty_partition(settings: Settings) -> None:
    (settings.root / "data" / "flights" / "date=2013-01-18" / "part-0.parquet").unlink()


def cut_file(settings: Settings) -> None:
    (settings.root / "data" / "flights" / "date=2013-01-18" / "part-0.parquet").write_bytes(b"PAR1")


def gap_in_the_log(settings: Settings) -> None:
    log = Store(settings.store, PIPELINE).folder / "releases"
    log.mkdir()
    (log / "00000002.json").write_text("{}")


class Case(NamedTuple):
    """One thing that is wrong: how it came so, the arguments, the exit code, and the error's line."""

    arrange: Callable[[Settings], None]
    arguments: tuple[str, ...]
    code: int
    line: str

    @property
    def error(self) -> str:
        """The code at the end of its line."""
        return self.line.rpartition("[")[2].rstrip("]")


def is_like(line: str, wanted: str) -> bool:
    """Whether the line is the one wanted, in which `...` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, wanted.split("..."))), line) is not None


def files_of(root: Path) -> dict[str, bytes]:
    """Every file but the locks, which are there for good."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Callable[..., None]]:
    """The folder on a disk of its own, which can be mounted anew; only root may."""
    if os.getuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root mounts a small disk")

    def mount(options: str, *more: str) -> None:
        command = ["mount", "-t", "tmpfs", *more, "-o", options, "tmpfs", str(folder)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            pytest.skip(f"no small disk: {ended.stderr.strip()}")

    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    mount(f"size={size_bytes}")
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield lambda options: mount(f"remount,{options}")


def assert_refused(case: Case, place: Settings, act: Callable[..., tuple[int, list[str]]]) -> None:
    """What is wrong has its exit code and its line, and nothing is changed.

    Args:
        case: What is wrong.
        place: Where.
        act: Does what is refused with the case's arguments; the exit code, and the lines of its error.
    """
    bundle = bundle_folder(place).name
    case.arrange(place)
    before = files_of(place.root)

    code, lines = act(*case.arguments)

    wanted = case.line.format(root=place.root, bundle=bundle)
    assert code == case.code, lines
    assert any(is_like(line, wanted) for line in lines), lines
    assert files_of(place.root) == before
