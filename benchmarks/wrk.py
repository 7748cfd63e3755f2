"""What a server answers under load: wrk with prepared requests, one of them at random each time."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.servers import tool
from benchmarks.workplace import Meanwhile, environment, run_command

CONNECTIONS = 64
_TIMEOUT_SECONDS = 20
# Arguments: method, target, a file of ids (GET) or bodies (POST), one a line.
_SCRIPT = """
local requests = {}
function init(args)
  math.randomseed(1)
  for line in io.lines(args[3]) do
    local headers = {["Host"] = "127.0.0.1", ["Content-Type"] = "application/json"}
    if args[1] == "GET" then
      requests[#requests + 1] = wrk.format("GET", args[2] .. line, headers)
    else
      requests[#requests + 1] = wrk.format("POST", args[2], headers, line)
    end
  end
end
function request() return requests[math.random(#requests)] end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\\n{"answers": %d, "microseconds": %d, "failed": %d, "p50": %d, "p99": %d}\\n',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""
# A connection thinks before each request, for a time drawn evenly from 0 to twice the mean.
_THINKING = "function delay() return math.random(0, {}) end\n"


class Target(NamedTuple):
    """Requests to a server.

    Attributes:
        method: GET, with a line behind the path, or POST, with it as the body.
        lines: Ids or bodies; one is drawn at random for each request.
    """

    port: int
    method: str
    path: str
    lines: Sequence[str]


class Load(NamedTuple):
    """What a server did under load; `failed` are answers other than 2xx, and those that never came."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int


def load(target: Target, *, seconds: int, think_ms: int = 0, meanwhile: Meanwhile = None) -> Load:
    """Load a server over 64 connections.

    Args:
        target: What is asked.
        seconds: For how long.
        think_ms: How long each connection waits between answer and request, on average.
        meanwhile: Called with wrk's process while it runs.
    """
    with TemporaryDirectory(prefix="almanac-wrk-") as folder:
        script, lines = Path(folder) / "requests.lua", Path(folder) / "lines"
        script.write_text(_SCRIPT + (_THINKING.format(2 * think_ms) if think_ms else ""))
        lines.write_text("\n".join(target.lines) + "\n")
        options: list[str | Path] = [
            "-t1",
            f"-c{CONNECTIONS}",
            f"-d{seconds}s",
            "--timeout",
            f"{_TIMEOUT_SECONDS}s",
            "-s",
            script,
        ]
        url = f"http://127.0.0.1:{target.port}"
        ended = run_command(
            [tool("wrk"), *options, url, "--", target.method, target.path, lines],
            cwd=Path(folder),
            environ=environment(),
            meanwhile=meanwhile,
        )
    found = json.loads(ended.out.strip().splitlines()[-1])
    return Load(
        per_second=round(found["answers"] / found["microseconds"] * 1e6, 1),
        p50_ms=found["p50"] / 1000,
        p99_ms=found["p99"] / 1000,
        failed=found["failed"],
    )
