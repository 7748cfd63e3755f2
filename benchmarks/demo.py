"""The seconds of `make demo` from a fresh clone, the install and its downloads included."""

import os
import shutil
from pathlib import Path

from benchmarks.figure import Samples, Unmeasurable
from benchmarks.workplace import ROOT, Workplace, environment, run_command
from lookup.embedded import stop

_TIMEOUT_SECONDS = 420


def demo_with_uv(place: Workplace) -> Samples:
    environ = environment()
    if not shutil.which("uv", path=environ["PATH"]):
        raise Unmeasurable("uv is not on PATH")
    return {"demo_uv_seconds": [_demo_seconds(place.folder / "uv", environ)]}


def demo_with_pip(place: Workplace) -> Samples:
    environ = environment()
    return {"demo_pip_seconds": [_demo_seconds(place.folder / "pip", environ | {"PATH": _without_uv(place, environ)})]}


def _demo_seconds(folder: Path, environ: dict[str, str]) -> float:
    """Clone what is committed and run the demo, with no package cached."""
    clone = folder / "almanac"
    cold = {"UV_CACHE_DIR": str(folder / "uv-cache"), "PIP_CACHE_DIR": str(folder / "pip-cache")}
    folder.mkdir()
    try:
        cloned = run_command(["git", "clone", "--quiet", ROOT, clone], cwd=folder, environ=environ)
        shown = run_command(["make", "demo"], cwd=clone, environ=environ | cold, timeout_seconds=_TIMEOUT_SECONDS)
    finally:
        stop(clone / ".almanac" / "demo")  # the demo does so itself, unless it was killed
        shutil.rmtree(folder, ignore_errors=True)
    return round(cloned.seconds + shown.seconds, 3)


def _without_uv(place: Workplace, environ: dict[str, str]) -> str:
    """A PATH as it was, with each folder that holds uv replaced by links to everything else in it."""
    folders = []
    for number, folder in enumerate(map(Path, environ["PATH"].split(os.pathsep))):
        if not (folder / "uv").exists():
            folders.append(str(folder))
            continue
        links = place.folder / f"path-{number}"
        links.mkdir()
        for program in folder.iterdir():
            if program.name not in {"uv", "uvx"}:
                (links / program.name).symlink_to(program)
        folders.append(str(links))
    return os.pathsep.join(folders)
