"""Worker processes: replaced when they die, not in a frenzy, and stopped whenever that is."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lookup.workers import listen
from tests.redis_servers import wait_until

RUN = """
import logging, os, sys, time
from lookup.workers import run_workers
logging.basicConfig(stream=sys.stdout)
def work():
    os.write(1, b"at work\\n")  # at once, so that two do not mix
    {work}
run_workers({count}, work)
print("ended", flush=True)
"""


def start(tmp_path: Path, work: str, count: int = 1) -> "tuple[subprocess.Popen[bytes], Path]":
    """The process of such workers, in a group of its own, and what it says."""
    log = tmp_path / "log.txt"
    with log.open("wb") as output:
        code = RUN.format(work=work, count=count)
        return subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=output, start_new_session=True), log


def end(process: "subprocess.Popen[bytes]") -> float:
    """Tell it to stop; the seconds that takes."""
    started = time.monotonic()
    process.terminate()
    assert process.wait(20) == 0
    return time.monotonic() - started


def test_a_worker_that_cannot_begin_is_replaced_later_and_later(tmp_path: Path) -> None:
    process, log = start(tmp_path, "os._exit(3)")
    wait_until(lambda: b"ended with 3" in log.read_bytes(), "the first ended")
    time.sleep(2)
    seconds = end(process)

    said = log.read_text()
    assert 3 <= said.count("ended with 3") <= 8
    assert seconds < 2
    assert said.endswith("ended\n")


def test_workers_that_have_no_handlers_yet_stop_at_once(tmp_path: Path) -> None:
    process, log = start(tmp_path, "time.sleep(60)", 2)
    wait_until(lambda: log.read_bytes().count(b"at work") == 2, "both are at work")
    seconds = end(process)

    assert seconds < 5
    assert "killed" not in log.read_text()


def test_ctrl_c_in_the_terminal_ends_all_and_is_no_error(tmp_path: Path) -> None:
    process, log = start(tmp_path, "time.sleep(60)", 2)
    wait_until(lambda: log.read_bytes().count(b"at work") == 2, "both are at work")

    os.killpg(process.pid, signal.SIGINT)

    assert process.wait(10) == 0
    assert log.read_text().splitlines() == ["at work", "at work", "ended"]


def test_a_worker_that_is_told_to_stop_is_replaced_and_the_others_go_on(tmp_path: Path) -> None:
    process, log = start(tmp_path, "time.sleep(60)", 2)
    wait_until(lambda: log.read_bytes().count(b"at work") == 2, "both are at work")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    first, second = map(int, children.read_text().split())

    os.kill(first, signal.SIGTERM)

    wait_until(lambda: log.read_bytes().count(b"at work") == 3, "there is another")
    assert str(second) in children.read_text().split()
    assert f"worker {first} ended with -15" in log.read_text()
    end(process)


def test_sockets_of_one_port_share_it_and_a_name_of_ipv6_is_listened_on() -> None:
    with listen("127.0.0.1", 0) as first, listen("127.0.0.1", first.getsockname()[1]) as second:
        assert first.getsockname() == second.getsockname()
    try:
        six = listen("::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with six:
        assert six.family is socket.AF_INET6
