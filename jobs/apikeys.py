"""New keys of the read API, and the file that they are added to."""

import datetime as dt
import fcntl
import json
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lookup.keyring import KEY_PREFIX, KeysFile, key_digest, read_keys
from schemas.content import write_atomically
from schemas.declared import validated
from schemas.errors import DeclarationError, Problem
from schemas.yamlfile import Document, read_document

_KEY_BYTES = 32


class NewKey(NamedTuple):
    """A key, which is shown this one time, and what is kept of it.

    Attributes:
        entry: Text for the `keys:` of a keys file.
    """

    name: str
    key: str
    values: dict[str, Any]

    @property
    def entry(self) -> str:
        lines = [f"    {name}: {_yaml(value)}" for name, value in self.values.items()]
        return "\n".join([f"  {self.name}:", *lines]) + "\n"


def new_key(
    name: str, *, tables: Sequence[str], rate: float, burst: float | None = None, expires: dt.date | None = None
) -> NewKey:
    """A key of 256 random bits.

    Raises:
        DeclarationError: one of the values is not what a keys file may say.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    values: dict[str, Any] = {"sha256": key_digest(key), "tables": list(tables), "requests_per_second": rate}
    values |= {"burst": burst} if burst is not None else {}
    values |= {"expires": expires} if expires else {}
    validated(KeysFile, Document({"keys": {name: values}}, "almanac key", {(): 1}))
    return NewKey(name, key, values)


def add_key(path: Path, key: NewKey) -> None:
    """Add a key to a file, whole or not at all; comments stay.

    Raises:
        DeclarationError: the file is wrong, has the name already, or would be wrong with the key.
    """
    path = path.resolve()  # what a link names is replaced, not the link
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two who add at once would lose one key
        temporary = path.with_name(f".{path.name}.new")
        try:
            write_atomically(temporary, _with(path, key) if path.exists() else f"keys:\n{key.entry}")
            read_keys(temporary)
            if path.exists():
                temporary.chmod(path.stat().st_mode & 0o7777)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _with(path: Path, key: NewKey) -> str:
    """The file's text and the key."""
    known = read_keys(path).keys
    if key.name in known:
        raise DeclarationError(Problem("CFG_DUPLICATE_KEY", f"{path.name}: keys.{key.name}", "is there", "a new name"))
    text = path.read_text("utf-8-sig")
    if text.lstrip().startswith("{"):
        data = read_document(path, name=path.name).data
        return json.dumps({"keys": data["keys"] | {key.name: key.values}}, indent=2, default=str) + "\n"
    if not known:
        text = re.sub(r"^keys:\s*\{\s*\}", "keys:", text, flags=re.MULTILINE)
    return f"{text.rstrip()}\n{key.entry}"


def _yaml(value: Any) -> str:
    return str(value) if isinstance(value, dt.date) else json.dumps(value)
