"""The peer: Feast with its Redis online store, installed by the benchmark alone, into an environment of its own."""

import datetime as dt
import hashlib
import os
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.entities import Entities
from benchmarks.feast_rows import ROWS
from benchmarks.figure import Unmeasurable
from benchmarks.servers import listens, running
from benchmarks.workplace import ROOT, MeasurementError, environment, run_command
from lookup.embedded import free_port

PEER_ROWS = 100_000  # it takes 25 to 60 microseconds for each
_INSTALL_SECONDS = 900
_CACHE = "ALMANAC_BENCH_CACHE"
_REPOSITORY = """project: bench
registry: registry.db
provider: local
online_store:
  type: redis
  connection_string: {address}
offline_store:
  type: file
entity_key_serialization_version: 3
"""


class Feast:
    """A Feast repository on one Redis, with some of the rows that ours has."""

    def __init__(self, folder: Path, redis_url: str, entities: Entities) -> None:
        self._folder = folder / f"feast-{urlsplit(redis_url).port}"
        self._folder.mkdir()
        self.rows = min(PEER_ROWS, entities.count)
        parts = pa.concat_tables(pq.read_table(part.path) for part in entities.rows().parts)
        # Neighbours in the files share a bucket; these come from all of them.
        chosen = parts.take(pa.array(range(0, entities.count, entities.count // self.rows))).slice(0, self.rows)
        self.ids: list[str] = chosen["entity_id"].to_pylist()
        scored_at = pa.array([dt.datetime(2013, 7, 1, 4)] * self.rows, pa.timestamp("us", tz="UTC"))
        pq.write_table(chosen.append_column("event_timestamp", scored_at), self._folder / ROWS)
        address = urlsplit(redis_url)
        (self._folder / "feature_store.yaml").write_text(
            _REPOSITORY.format(address=f"{address.hostname}:{address.port}")
        )
        self._run("apply")

    @cached_property
    def _bin(self) -> Path:
        return _installed() / "bin"

    def write(self) -> float:
        """The seconds of `write_to_online_store` with all of its rows."""
        return float(self._run("write"))

    @contextmanager
    def serve(self) -> Iterator[int]:
        """The port of `feast serve`, one worker."""
        port = free_port()
        # A worker that starts anew after each 1,000 requests, as it would, could not be compared.
        options = ["--port", str(port), "--workers", "1", "--no-access-log", "--max-requests", "0"]
        command = [str(self._bin / "feast"), "serve", *options]
        with running(command, folder=self._folder, environ=_environment(), is_up=lambda: listens(port)):
            yield port

    def _run(self, action: str) -> str:
        script = Path(__file__).with_name("feast_rows.py")
        command: list[str | Path] = [
            self._bin / "python",
            "-P",
            script,
            action,
            self._folder,
        ]  # -P: modules beside it are not Feast's
        return run_command(command, cwd=self._folder, environ=_environment()).out.strip()


def _environment() -> dict[str, str]:
    return {**environment(), "FEAST_USAGE": "False"}


def _installed() -> Path:
    """The environment with what the extra `bench` asks for, made once for each machine.

    Raises:
        Unmeasurable: it cannot be installed.
    """
    return _environment_of("bench", finish=lambda _: None)


def environment_with_ours(extra: str) -> Path:
    """An environment with what that extra asks for, and behind it what this one has, in the same versions.

    Raises:
        Unmeasurable: it cannot be installed.
    """
    site = sysconfig.get_paths()["purelib"]

    def lend(folder: Path) -> None:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        (folder / "lib" / version / "site-packages" / "zz-ours.pth").write_text(f"{site}\n")

    return _environment_of(extra, finish=lend)


def _environment_of(extra: str, *, finish: Callable[[Path], None]) -> Path:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted: list[str] = project["optional-dependencies"][extra]
    cache = Path(os.environ.get(_CACHE) or Path.home() / ".cache" / "almanac-bench")
    name = hashlib.sha256(f"{sys.version_info[:2]} {sys.prefix} {wanted}".encode()).hexdigest()[:12]
    folder = cache / f"peers-{name}"
    done = folder / ".installed"
    if done.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        run_command([sys.executable, "-m", "venv", folder], cwd=ROOT, environ=environment())
        finish(folder)
        pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted]
        run_command(pip, cwd=ROOT, environ=environment(), timeout_seconds=_INSTALL_SECONDS)
    except MeasurementError as err:
        raise Unmeasurable(f"{', '.join(wanted)} cannot be installed: {err}") from err
    done.touch()
    return folder
