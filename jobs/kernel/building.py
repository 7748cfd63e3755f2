"""Compiles the kernel: for hatchling, when the project is built or installed, and by `python -m jobs.kernel.building`.

Without a compiler the project is installed without it, and the library scores.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

# Run from its path by hatchling, before the project can be imported: it cannot ask library.py.
FOLDER = Path(__file__).parent
LIBRARY = FOLDER / "libtrees.so"
# No fused multiply-add: it would round once where LightGBM rounds twice.
_FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-ffp-contract=off")
_TIMEOUT_SECONDS = 300


class KernelHook(BuildHookInterface[Any]):
    """Adds the library to a wheel, which then is of this platform, and of any Python 3."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # hatchling's signature
        if self.target_name != "wheel":
            return
        if problem := compile_library(LIBRARY):
            self.app.display_warning(f"the tree kernel is left out, LightGBM itself will score: {problem}")
            LIBRARY.unlink(missing_ok=True)  # one of another source would be worse than none
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{next(iter(platform_tags()))}"
        build_data["artifacts"].append(str(LIBRARY.relative_to(self.root)))


def compile_library(target: Path) -> str | None:
    """Compile the kernel to `target`, which changes at once or not at all; or what kept it from that."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        return "no C compiler (cc, gcc or clang) is on PATH"
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    command = [*compiler.split(), *_FLAGS, "-o", str(fresh), str(FOLDER / "kernel.c"), "-lm"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_TIMEOUT_SECONDS
        )
        if done.returncode == 0:
            fresh.replace(target)
            return None
        return f"{compiler} on {platform.machine()}: {(done.stderr.strip().splitlines() or ['no word'])[0]}"
    except (OSError, subprocess.TimeoutExpired) as err:
        return f"{compiler}: {err}"
    finally:
        fresh.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(compile_library(LIBRARY))
