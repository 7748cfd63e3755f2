"""API keys of the read API: who may read which table, and how fast."""

import datetime as dt
import hashlib
import logging
import math
import re
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, field_validator, model_validator

from schemas.declared import validated
from schemas.errors import AlmanacError
from schemas.strict import NAME_PATTERN, Declared, Name, invalid
from schemas.yamlfile import read_document

logger = logging.getLogger(__name__)

EVERY_TABLE = "*"
KEY_PREFIX = "alm_"  # scanners of repositories and logs find a leaked key by it

_LOOK_SECONDS = 1.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TABLE = rf"^\*$|{NAME_PATTERN}"
# One text for all three, so that it tells nothing of which tables and keys there are.
_CLOSED = "expected 'Authorization: Bearer KEY' with a key that may read this table"


class KeyEntry(Declared):
    """What one API key may do."""

    sha256: str = Field(description="Of the key, in lower-case hex; the key itself is kept nowhere.")
    tables: list[Annotated[str, Field(pattern=_TABLE)]] = Field(
        min_length=1, description="Tables that it reads, or `*` for every one."
    )
    requests_per_second: float = Field(gt=0, description="Ids that it may ask for: a batch costs as many as it has.")
    burst: float | None = Field(
        None, ge=1, description="Ids that it may ask for at once; those of one second when left out."
    )
    expires: dt.date | None = Field(None, description="From this day (UTC) on it is refused.")

    @field_validator("sha256", mode="before")
    @classmethod
    def _digest(cls, found: Any) -> Any:
        # A ValueError's text has no input in it: what stands here by mistake may be the key.
        if not isinstance(found, str) or not _SHA256.fullmatch(found):
            raise ValueError("not the SHA-256 of a key, in 64 lower-case hex digits; `almanac key` prints one")
        return found

    @field_validator("tables", mode="before")
    @classmethod
    def _every(cls, found: Any) -> Any:
        return [found] if found == EVERY_TABLE else found

    @field_validator("expires", mode="before")
    @classmethod
    def _day(cls, found: Any) -> Any:
        return dt.date.fromisoformat(found) if isinstance(found, str) else found  # JSON has no dates


class KeysFile(Declared):
    """The keys of the read API, by name. No keys at all is a way to close it."""

    keys: dict[Name, KeyEntry]

    @model_validator(mode="after")
    def _one_name_a_key(self) -> "KeysFile":
        names: dict[str, str] = {}
        for name, entry in self.keys.items():
            if (first := names.setdefault(entry.sha256, name)) != name:
                raise invalid(f"the same key as '{first}'", "keys", name)
        return self


class Granted(NamedTuple):
    """A request that may go on.

    Attributes:
        name: Of its key.
    """

    name: str


class Refusal(NamedTuple):
    """A request that may not, as its client is told.

    Attributes:
        retry_after_seconds: When it may, where it came too fast.
    """

    status: int
    code: str
    message: str
    retry_after_seconds: float | None = None

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What HTTP has beside the status: how to identify oneself, or when to come again."""
        if self.status == 401:
            return [("www-authenticate", "Bearer")]
        if self.retry_after_seconds is not None:
            return [("retry-after", str(max(1, math.ceil(self.retry_after_seconds))))]
        return []


_NO_KEY = Refusal(401, "API_KEY", _CLOSED)
_NO_RIGHT = Refusal(403, "API_KEY_TABLE", _CLOSED)


class _Account:
    """One key, and its token bucket."""

    def __init__(self, name: str, entry: KeyEntry, workers: int, now: float) -> None:
        self.granted = Granted(name)
        self.tables = frozenset(entry.tables)
        self.expires_epoch = math.inf
        if entry.expires:
            self.expires_epoch = dt.datetime.combine(entry.expires, dt.time(), dt.UTC).timestamp()
        self.per_second = entry.requests_per_second / workers
        self.burst = max(1.0, (entry.burst or entry.requests_per_second) / workers)
        self.level = self.burst
        self.at = now

    def wait(self, cost: int, now: float, *, paid: int) -> float:
        """Take `cost` tokens and return 0, or return the seconds until they may be had.

        Tokens that are `paid` already are given back before. A batch larger than the bucket takes a full one, and
        leaves a debt: it would never be answered otherwise, and over time the rate is kept.
        """
        self.level = min(self.burst, self.level + (now - self.at) * self.per_second + paid)
        self.at = now
        missing = min(cost, self.burst) - self.level
        if missing > 0:
            return missing / self.per_second
        self.level -= cost
        return 0.0


class Keyring:
    """The keys in a file, read again when it changes.

    A key has 256 random bits: no list of guesses finds it from its digest, so that one SHA-256 keeps it as safe as a
    slow hash would, which is for passwords, and costs a microsecond. Keys are found by digest in a dict. How long that
    takes tells of the digest of a guess at most, which nobody can steer towards that of a key: it need not be constant.

    Limits are counted in this process: each of `workers` grants its share of a key's rate.
    """

    def __init__(
        self, path: Path, *, workers: int, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._workers = workers
        self._clock = clock
        self._wall_clock = wall_clock
        self._looked_at = clock()
        self._stamp = _stamp(path)
        self._accounts: Mapping[bytes, _Account] = {}
        self._read()

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> "Keyring":
        """The keys in that file.

        Raises:
            DeclarationError: it cannot be read, or something in it is wrong.
        """
        return cls(path, workers=workers, clock=clock, wall_clock=wall_clock)

    def check(self, authorization: str | None, table: str, cost: int, *, paid: int = 0) -> Refusal | Granted:
        """Whether the request may go on; what it costs is taken from its key's bucket.

        Args:
            authorization: The header of that name.
            table: That is asked, whether it exists or not.
            cost: How many ids are asked for.
            paid: What of it was taken before, when it was not known yet how many.
        """
        now = self._clock()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            self._look()
        account = self._account(authorization)
        if account is None or self._wall_clock() >= account.expires_epoch:
            return _NO_KEY
        if table not in account.tables and EVERY_TABLE not in account.tables:
            return _NO_RIGHT
        if wait_seconds := account.wait(cost, now, paid=paid):
            message = f"too many ids for this key; try again in {wait_seconds:.3g} s"
            return Refusal(429, "API_KEY_RATE", message, wait_seconds)
        return account.granted

    def name_of(self, authorization: str | None) -> str | None:
        """The name of the key in that header, for the access log; None where it is none of ours."""
        account = self._account(authorization)
        return account.granted.name if account else None

    def _account(self, authorization: str | None) -> _Account | None:
        scheme, _, key = (authorization or "").partition(" ")
        return self._accounts.get(_digest(key.strip())) if scheme.lower() == "bearer" else None

    def _look(self) -> None:
        """Read the file again where it is another; a wrong one changes nothing, and is told once."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._read()
        except AlmanacError as err:
            logger.error("the API keys stay as they were: %s", err)  # its lines say all
        else:
            logger.info("read %d API keys again", len(self._accounts))

    def _read(self) -> None:
        keys = read_keys(self._path).keys
        # The file holds no secret, so that anybody may read it; who writes it lets himself in.
        if self._stamp and self._stamp[0] & stat.S_IWOTH:
            logger.warning("%s can be written by every user of this machine", self._path)
        now, before = self._clock(), self._accounts
        accounts = {}
        for name, entry in keys.items():
            digest = bytes.fromhex(entry.sha256)
            account = accounts[digest] = _Account(name, entry, self._workers, now)
            if (old := before.get(digest)) is not None:
                account.level, account.at = min(old.level, account.burst), old.at  # a new file refills no bucket
        self._accounts = accounts


def read_keys(path: Path) -> KeysFile:
    """What a keys file says; it is YAML, of which JSON is a part.

    Raises:
        DeclarationError: it cannot be read, or something in it is wrong.
    """
    return validated(KeysFile, read_document(path, name=path.name))


def key_digest(key: str) -> str:
    """What is kept of a key: the hex of its SHA-256."""
    return _digest(key).hex()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()  # a header may hold anything


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    """What of a file changes when it is written or replaced; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mode, found.st_mtime_ns, found.st_size, found.st_ino
