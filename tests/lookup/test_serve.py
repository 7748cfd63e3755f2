"""The server around the API: workers, ports, files, shutting down."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from lookup.api import Options, create_app
from lookup.embedded import free_port
from lookup.http11 import Connection
from lookup.keyring import Keyring
from lookup.misses import read_misses
from lookup.serve import Listening, serve
from schemas.errors import DeclarationError
from schemas.head import Head, Serving
from tests.redis_servers import wait_until

FLIGHT = "UA:1545:EWR:2013-07-01"
TABLES = {"flights": Serving()}

Client = redis.Redis
PutVersion = Callable[..., Head]


def _metric(server: Any, line: str) -> float:
    page = server.ask("GET", "/metrics").body.decode()
    return next((float(row.rpartition(" ")[2]) for row in page.splitlines() if row.startswith(line)), 0.0)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_several_workers_count_together_and_a_killed_one_is_replaced(
    run_server: Any, redis_server: str, redis_client: Client, put_version: PutVersion, tmp_path: Path
) -> None:
    put_version(redis_client, 3, {FLIGHT: 0.25})
    with run_server(tmp_path, redis_server, ["flights"], workers=2) as server:
        for _ in range(40):
            assert server.ask("GET", f"/v1/flights/{FLIGHT}").status == 200
        time.sleep(0.6)  # a worker tells the others every quarter of a second
        counts = {_metric(server, 'almanac_lookups_total{status="exact",table="flights"}') for _ in range(10)}

        victim = _children(server.process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            now = _children(server.process.pid)
            if len(now) == 2 and victim not in now:
                break
            time.sleep(0.05)
        server.wait_until_up()

        assert counts == {40.0}
        assert server.ask("GET", f"/v1/flights/{FLIGHT}").status == 200


def test_what_a_killed_worker_was_answering_is_in_flight_no_more(
    run_server: Any, redis_url: str, tmp_path: Path
) -> None:
    slow = b"POST /v1/flights/lookup HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"
    with run_server(tmp_path, redis_url, ["flights"], workers=2) as server, ExitStack() as stack:

        def in_flight() -> float:
            return _metric(server, "almanac_requests_in_flight")

        for _ in range(24):  # shared out among the two workers
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5)).sendall(slow)
        wait_until(lambda: in_flight() == 25, "all are in flight, and the one that asks")
        victims = _children(server.process.pid)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda gone=victim: gone not in _children(server.process.pid), "it is gone")
        wait_until(lambda: len(_children(server.process.pid)) == 2, "others are there")
        server.wait_until_up()

        assert in_flight() == 1


def test_a_server_that_was_killed_leaves_no_worker_behind(run_server: Any, redis_url: str, tmp_path: Path) -> None:
    with run_server(tmp_path, redis_url, ["flights"]) as server:
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and _listens(server.port):
            time.sleep(0.1)

        assert not _listens(server.port)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_stops_at_sigterm_with_success(run_server: Any, redis_url: str, tmp_path: Path) -> None:
    with run_server(tmp_path, redis_url, ["flights"]) as server:
        pass

    assert server.process.returncode == 0
    assert not _listens(server.port)


def test_a_port_in_use_is_named_with_what_to_do(run_server: Any, redis_url: str, tmp_path: Path) -> None:
    with run_server(tmp_path, redis_url, ["flights"]) as server:
        told = rf"port {server.port} of 127.0.0.1.*another --port \[CFG_PORT\]"
        with pytest.raises(DeclarationError, match=told):
            serve(redis_url, TABLES, Listening(port=server.port))


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_what_is_no_port_is_refused(redis_url: str, port: int) -> None:
    with pytest.raises(DeclarationError, match=f"port {port} .*CFG_PORT"):
        serve(redis_url, TABLES, Listening(port=port))


@pytest.mark.parametrize("host", ["x" * 64, "a..b", "no such host"])
def test_a_host_that_is_none_is_refused(redis_url: str, host: str) -> None:
    with pytest.raises(DeclarationError, match=f"port 8321 of {host}: cannot be opened .*CFG_PORT"):
        serve(redis_url, TABLES, Listening(host=host))


def test_serving_no_table_or_no_redis_is_refused(redis_url: str) -> None:
    with pytest.raises(DeclarationError, match="CFG_TABLES"):
        serve(redis_url, {}, Listening(port=free_port()))
    with pytest.raises(DeclarationError, match=r"'a:1:b' is no table's name.*CFG_TABLES"):
        serve(redis_url, {"a:1:b": Serving()}, Listening(port=free_port()))
    with pytest.raises(DeclarationError, match="CFG_REDIS_URL"):
        serve("http://127.0.0.1", TABLES, Listening(port=free_port()))


def test_requests_in_flight_are_answered_when_the_server_is_told_to_stop(
    run_server: Any, redis_url: str, redis_client: Client, put_version: PutVersion, tmp_path: Path
) -> None:
    put_version(redis_client, 3, {FLIGHT: 0.25})
    broken: list[bytes] = []
    answered: list[int] = []

    def ask_on(connection: socket.socket) -> None:
        request = f"GET /v1/flights/{FLIGHT} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        while True:
            try:
                connection.sendall(request)
                reply = connection.recv(65536)
            except OSError:
                return
            if not reply:
                return
            (answered if reply.endswith(b"}") else broken).append(len(reply))  # type: ignore[arg-type]

    with run_server(tmp_path, redis_url, ["flights"]) as server, ExitStack() as stack:
        open_ = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5)) for _ in range(8)]
        threads = [threading.Thread(target=ask_on, args=(connection,)) for connection in open_]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0
        for thread in threads:
            thread.join(10)

    assert broken == []
    assert len(answered) > 8


def _certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_the_api_is_served_over_tls(
    run_server: Any, redis_url: str, redis_client: Client, put_version: PutVersion, tmp_path: Path
) -> None:
    put_version(redis_client, 3, {FLIGHT: 0.25})
    cert, key = _certificate(tmp_path)
    with run_server(tmp_path, redis_url, ["flights"], tls_cert=cert, tls_key=key) as server:
        context = ssl.create_default_context(cafile=cert)
        trusted = httpx.get(f"https://127.0.0.1:{server.port}/v1/flights/{FLIGHT}", verify=context)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"https://127.0.0.1:{server.port}/healthz")

    assert trusted.json()["outputs"] == {"score": 0.25}


def test_half_a_pair_of_tls_files_and_files_that_are_none_are_refused(redis_url: str, tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")

    missing = {"tls_cert": cert, "tls_key": tmp_path / "none"}
    for given in ({"tls_cert": cert}, {"tls_cert": garbage, "tls_key": key}, missing):
        with pytest.raises(DeclarationError, match=r"--tls-cert and --tls-key: .*CFG_TLS"):
            serve(redis_url, TABLES, Listening(port=free_port(), **given))


def test_keys_open_their_tables_and_only_so_fast(
    run_server: Any, redis_url: str, redis_client: Client, put_version: PutVersion, tmp_path: Path
) -> None:
    put_version(redis_client, 3, {FLIGHT: 0.25})
    keys = tmp_path / "keys.yaml"
    digest = hashlib.sha256(b"alm_secret").hexdigest()
    keys.write_text(f"keys:\n  shop: {{sha256: {digest}, tables: [flights], requests_per_second: 0.01, burst: 3}}\n")
    key = {"Authorization": "Bearer alm_secret"}
    with run_server(tmp_path, redis_url, ["flights", "other"], keys=keys, access_log=True) as server:
        path = f"/v1/flights/{FLIGHT}"
        without = server.ask("GET", path)
        wrong = server.ask("GET", path, headers={"Authorization": "Bearer alm_wrong"})
        other = server.ask("GET", "/v1/other/x", headers=key)
        undeclared = server.ask("GET", "/v1/nowhere/x", headers=key)
        right = server.ask("GET", path, headers=key)
        body = json.dumps({"ids": [FLIGHT] * 2}).encode()
        batch = server.ask("POST", "/v1/flights/lookup", body, {**key, "Content-Type": "application/json"})
        fast = server.ask("GET", path, headers=key)
        open_ = server.ask("GET", "/healthz")
        log = server.log.read_text()
    named = [json.loads(line).get("key") for line in log.splitlines() if '"route":"entity"' in line]

    assert [reply.status for reply in (without, wrong, other, undeclared)] == [401, 401, 403, 403]
    assert len({reply.json["message"] for reply in (without, wrong, other, undeclared)}) == 1
    assert without.headers["www-authenticate"].startswith("Bearer")
    assert (right.status, batch.status, open_.status) == (200, 200, 200)
    assert (fast.status, fast.json["code"]) == (429, "API_KEY_RATE")
    assert int(fast.headers["retry-after"]) > 1
    assert named == [None, None, "shop", "shop", "shop", "shop"]
    assert "alm_" not in log


def test_a_request_without_a_key_is_told_so_before_its_body_is_looked_at(
    run_server: Any, redis_url: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("keys: {}\n")
    with run_server(tmp_path, redis_url, ["flights"], keys=keys) as server:
        replies = [server.lookup(body) for body in (b"[" * 1000, b'{"ids": []}', {"ids": ["UA:1"]})]

    assert [(reply.status, reply.json["code"]) for reply in replies] == [(401, "API_KEY")] * 3


def test_the_body_of_a_request_without_a_key_is_not_kept(redis_url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("keys: {}\n")
    app = create_app(redis_url, TABLES, Options(keyring=Keyring.load(keys)))
    transport = _Transport()
    loop = asyncio.new_event_loop()
    connection = Connection(app, set(), loop)
    connection.connection_made(transport)
    piece = bytes(1 << 16)

    tracemalloc.start()
    try:
        connection.data_received(b"POST /v1/flights/lookup HTTP/1.1\r\nHost: x\r\nContent-Length: 917504\r\n\r\n")
        for _ in range(13):
            connection.data_received(piece)
        before = b"".join(transport.written)  # all of it is read first, or the client would not see the answer
        connection.data_received(piece)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        connection.connection_lost(None)
        loop.close()

    assert before == b""
    assert b"".join(transport.written).startswith(b"HTTP/1.1 401 ")
    assert peak_bytes < 1 << 19


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False


def test_a_batch_that_is_none_costs_as_much_as_one_id(run_server: Any, redis_url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    digest = hashlib.sha256(b"alm_secret").hexdigest()
    keys.write_text(f"keys:\n  shop: {{sha256: {digest}, tables: [flights], requests_per_second: 0.01, burst: 3}}\n")
    headers = {"Authorization": "Bearer alm_secret", "Content-Type": "application/json"}
    with run_server(tmp_path, redis_url, ["flights"], keys=keys) as server:
        replies = [server.ask("POST", "/v1/flights/lookup", b"no JSON", headers) for _ in range(4)]

    assert [reply.status for reply in replies] == [400, 400, 400, 429]


def test_the_access_log_tells_each_request_with_its_trace_and_no_id(
    run_server: Any, redis_url: str, redis_client: Client, put_version: PutVersion, tmp_path: Path
) -> None:
    put_version(redis_client, 3, {FLIGHT: 0.25})
    parent = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    with run_server(tmp_path, redis_url, ["flights"], access_log=True) as server:
        traced = server.ask("GET", f"/v1/flights/{FLIGHT}", headers=parent)
        plain = server.ask("GET", f"/v1/flights/{FLIGHT}", headers={"traceparent": "00-zz-1-01"})
        server.ask("GET", "/v1/attack/x")
        lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]

    mine = next(line for line in lines if "trace_id" in line)
    assert {**mine, "time": "", "seconds": 0, "span_id": ""} == {
        "time": "", "method": "GET", "route": "entity", "table": "flights", "status": 200, "seconds": 0, "span_id": "",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }  # fmt: skip
    assert traced.headers["traceparent"] == f"00-4bf92f3577b34da6a3ce929d0e0e4736-{mine['span_id']}-01"
    assert "traceparent" not in plain.headers
    assert FLIGHT not in json.dumps(lines)
    assert "attack" not in json.dumps(lines)


def test_what_was_asked_for_and_is_not_known_is_kept_for_the_next_run(
    run_server: Any, redis_url: str, redis_client: Client, put_version: PutVersion, tmp_path: Path
) -> None:
    put_version(redis_client, 3, {FLIGHT: 0.25})
    with run_server(tmp_path, redis_url, ["flights"], misses=tmp_path / "store") as server:
        server.lookup({"ids": [FLIGHT, "UA:7", "UA:7", "UA:8"]})

    assert read_misses(tmp_path / "store", "flights").ids == {"UA:7": 2, "UA:8": 1}
