"""Makes `.venv` from requirements.lock: checks the machine, installs, and leaves `.venv/.ready` as its last act.

Standard library only, and written for Python 3.8, so that an unsupported Python is told so in a sentence.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence  # noqa: UP035 (Python 3.8 has no other to subscribe)

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
READY = VENV / ".ready"
LOCK = ROOT / "requirements.lock"
KERNEL = ROOT / "jobs" / "kernel" / "libtrees.so"

SUPPORTED = ((3, 12), (3, 11))
OLDEST_JAVA = 17
NEEDED_BYTES = 2_000_000_000

# What an installer's last words mean, first match first; the last row matches anything.
CAUSES = (
    ("No space left", "The disk is full: the environment needs about 2 GB. Free some, then run make again."),
    (
        "(?i)do not match the hashes|hash mismatch",
        "The package index serves other files than requirements.lock names: use one that serves the originals.",
    ),
    (
        "(?i)connect|timed? ?out|resolution|network|dns|proxy|certificate|no matching distribution|not found in",
        "The package index did not give the packages: check the network, the proxy (HTTPS_PROXY) and the index "
        "that is set (PIP_INDEX_URL, UV_DEFAULT_INDEX), then run make again.",
    ),
    ("", "The packages could not be installed. The lines above say why: mend that, then run make again."),
)


class UnreadyError(Exception):
    """What the machine lacks, and what to do about it, in one sentence."""


class Interpreter(NamedTuple):
    """A Python that runs: its program and its version."""

    program: str
    version: tuple[int, int]


def main() -> None:
    try:
        set_up()
    except UnreadyError as error:
        sys.exit(complain(str(error), 2))
    except KeyboardInterrupt:
        sys.exit(complain("Interrupted: the next make starts the set-up again.", 130))


def set_up() -> None:
    if not LOCK.is_file():
        raise UnreadyError(f"{LOCK} is missing: take a whole checkout of the project, or write it with `make lock`.")
    python = find_python()
    with LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two makes at once, the second finds the work done
        digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
        if not is_current(digest, python):
            check_java()
            check_disk()
            build(python)
        elif READY.stat().st_mtime < max(path.stat().st_mtime for path in installed_from()):
            install_project()
        READY.write_text(digest)


def installed_from() -> list[Path]:
    """What an editable install is made of beside the sources themselves: its declaration, and what is compiled."""
    return [ROOT / "pyproject.toml", *ROOT.glob("jobs/kernel/*.[ch]")]


def is_current(digest: str, python: Interpreter) -> bool:
    """Whether a finished environment of this lock is there, of the Python asked for if one was."""
    there = probe(str(VENV_PYTHON))
    asked = {python.version} if os.environ.get("PYTHON") else SUPPORTED
    installable = shutil.which("uv") or (VENV / "bin" / "pip").exists()  # uv puts no pip in what it makes
    finished = READY.is_file() and READY.read_text() == digest
    return bool(there and there.version in asked and installable and finished)


def find_python() -> Interpreter:
    """The Python that runs this, else a supported one on PATH unless PYTHON asks for this one."""
    # Never the Python of an active environment: that may be the one about to be replaced.
    own = sys.executable if sys.prefix == sys.base_prefix else f"{sys.base_prefix}/bin/python{dotted(sys.version_info)}"
    others = [] if os.environ.get("PYTHON") else [f"python{dotted(version)}" for version in SUPPORTED]
    for name in (own, *others):
        found = probe(name)
        if found and found.version in SUPPORTED:
            return found
    raise UnreadyError(
        f"Almanac needs Python 3.11 or 3.12, and {sys.executable} is {dotted(sys.version_info)}: install one of them, "
        "and name it where it is not on PATH, for example `make demo PYTHON=/opt/python3.12/bin/python3.12`."
    )


def probe(program: str) -> Interpreter | None:
    """The Python behind a name; None where it does not run, as names left by a version manager."""
    code, output = capture(program, "-c", "import sys; print(*sys.version_info[:2], sys.executable)")
    if code != 0:
        return None
    major, minor, executable = output.strip().split(" ", 2)
    return Interpreter(executable, (int(major), int(minor)))


def check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java") or "java"
    code, output = capture(java, "-version")
    version = re.search(r'version "(?:1\.)?(\d+)', output)
    if code != 0 or not version:
        found = f"JAVA_HOME is {home}, where bin/java does not run" if home else "no java on PATH runs"
    elif int(version.group(1)) < OLDEST_JAVA:
        found = f"{java} is Java {version.group(1)}"
    elif capture(java, "--add-modules=jdk.incubator.vector", "-version")[0] != 0:
        found = f"{java} is a cut-down Java, without the module jdk.incubator.vector"
    else:
        return
    raise UnreadyError(
        f"Spark needs Java {OLDEST_JAVA} or later, and {found}: install one (Debian: apt-get install "
        "openjdk-17-jre-headless), or set JAVA_HOME to one."
    )


def check_disk() -> None:
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES:
        needed = f"The environment needs about {NEEDED_BYTES / 1e9:.0f} GB"
        raise UnreadyError(
            f"{needed}, and the disk of {ROOT} has {free / 1e9:.1f} GB free: free some, then run make again."
        )


def check_venv_module(python: Interpreter) -> None:
    if capture(python.program, "-c", "import venv, ensurepip")[0] != 0:
        package = f"python{dotted(python.version)}-venv"
        raise UnreadyError(
            f"{python.program} cannot make environments: install its venv module (Debian: apt-get install {package}), "
            "or uv."
        )


def build(python: Interpreter) -> None:
    """Make the environment anew: what an interrupted set-up left behind is not to be trusted."""
    start = time.monotonic()
    uv = shutil.which("uv")
    tool = "uv" if uv else "pip"
    say(f"Setting up .venv with Python {dotted(python.version)} and {tool}, once; this takes a minute or two\n")
    if uv:
        create = [uv, "venv", "--clear", "--no-project", "--python", python.program, str(VENV)]
    else:
        check_venv_module(python)
        create = [python.program, "-m", "venv", "--clear", str(VENV)]
    run("an empty environment", create)
    # Nothing but the lock decides what comes in: a package of Airflow's would bring pyspark-client, whose files
    # overwrite those of pyspark.
    run("the packages of requirements.lock", [*installer(), "--require-hashes", "--no-deps", "-r", str(LOCK)])
    install_project()
    provide_libgomp()
    say(f"Ready after {time.monotonic() - start:.0f} s\n")


def install_project() -> None:
    run("almanac itself, editable", [*installer(), "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    if KERNEL.parent.is_dir() and not KERNEL.is_file():
        say("  without the tree kernel: LightGBM will score, more slowly (Debian: apt-get install gcc libc6-dev)\n")


def installer() -> list[str]:
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", str(VENV_PYTHON)]
    # Not compiled here: most modules are never imported, the others are compiled when they are.
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--no-compile"]
    return [str(VENV_PYTHON), "-m", "pip", "install", *options]


def provide_libgomp() -> None:
    """Give LightGBM the OpenMP library that it expects of the system, where the system has none.

    The wheel of scikit-learn carries one under a name of its own. A copy gets the usual name back (the shorter name
    fits in the string table) and is loaded whenever this environment's Python starts: the dynamic linker then takes
    it for the one that LightGBM asks for. LD_LIBRARY_PATH would have to be set before Python starts.
    """
    if sys.platform != "linux" or loads_libgomp():
        return
    with timed("libgomp.so.1, which this machine lacks"):
        for carried in VENV.glob("lib/python*/site-packages/scikit_learn.libs/libgomp-*.so.*"):
            name = carried.name.encode() + b"\0"
            library = VENV / "lib" / "libgomp.so.1"
            library.write_bytes(carried.read_bytes().replace(name, b"libgomp.so.1\0".ljust(len(name), b"\0")))
            hook = carried.parent.parent / "almanac_libgomp.pth"
            hook.write_text("import ctypes, sys; ctypes.CDLL(sys.prefix + '/lib/libgomp.so.1')\n")
    if not loads_libgomp():
        raise UnreadyError(
            "LightGBM needs the library libgomp.so.1: install it (Debian: apt-get install libgomp1), "
            "then run make again."
        )


def loads_libgomp() -> bool:
    return capture(str(VENV_PYTHON), "-c", "import ctypes; ctypes.CDLL('libgomp.so.1')")[0] == 0


def run(what: str, command: list[str]) -> None:
    """Run a step of the set-up. Its own words are shown where it fails only; the last of them say why."""
    with timed(what):
        code, output = capture(*command)
    if code != 0:
        last = "\n".join(line[:200] for line in output.splitlines()[-8:])
        complain(last, code)
        raise UnreadyError(next(sentence for pattern, sentence in CAUSES if re.search(pattern, last)))


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Tell of a step when it starts, and its seconds when it ends."""
    start = time.monotonic()
    say(f"  {what:<40}")
    try:
        yield
    finally:
        say(f"{time.monotonic() - start:6.1f} s\n")


def capture(*command: str) -> tuple[int, str]:
    """The exit code and all output of a command; 127 where it does not start."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout


def dotted(version: Sequence[int | str]) -> str:
    return f"{version[0]}.{version[1]}"


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def complain(text: str, code: int) -> int:
    sys.stderr.write(text + "\n")
    return code


if __name__ == "__main__":
    main()
