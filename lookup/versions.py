"""The versions of a table as Redis lists them: those being loaded, those that were checked, those being dropped."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, cast

from lookup.connect import Client, redis_errors
from lookup.scripts import ACCEPT, AMEND, CLAIM, FLIP
from schemas.errors import InputError, Problem, RefusedError
from schemas.head import Head, read_head
from schemas.keys import head_key, loading_key, versions_key


class Flip(StrEnum):
    """How a flip ended."""

    FLIPPED = "flipped"
    SAME = "same"
    GONE = "gone"
    OLDER = "older"


class Left(NamedTuple):
    """When readers left the versions that once were live, by Redis's clock in seconds since 1970.

    Attributes:
        at: Version -> when.
        now: The same of now.
    """

    at: Mapping[int, float]
    now: float


class Versions:
    """The lists of one table. Their keys are in one slot of a cluster, so that a script may change them together."""

    def __init__(self, client: Client, table: str) -> None:
        self._client = client
        self._table = table
        self._head_key, self._key, self._loading_key = head_key(table), versions_key(table), loading_key(table)
        self._left_key, self._dropping_key = f"{self._key}:left", f"{self._key}:dropping"

    def checked(self) -> dict[int, Head]:
        """Those that passed every check, and may be followed."""
        return self._heads(self._key)

    def loading(self) -> dict[int, Head]:
        """Those whose loading has begun and is not at its end; one that is loaded in place is a checked one too."""
        return self._heads(self._loading_key)

    def dropping(self) -> dict[int, Head]:
        """Those whose keys are being removed."""
        return self._heads(self._dropping_key)

    def left(self) -> Left:
        """When readers left each version that once was live."""
        with redis_errors(f"retiring versions of {self._table}"):
            at = {int(version): float(at) for version, at in self._client.hgetall(self._left_key).items()}
            seconds, microseconds = self._client.time()
        return Left(at, seconds + microseconds / 1e6)

    def was_live(self, version: int) -> bool:
        """Whether readers once followed that version, so that it was proven whole."""
        with redis_errors(f"table '{self._table}'"):
            return bool(self._client.hexists(self._left_key, str(version)))

    def accept(self, head: Head) -> bool:
        """List a version as checked; False where it was dropped, or lost, while it was checked."""
        script = self._client.register_script(ACCEPT)
        with redis_errors(f"accepting {self._table} version {head.version}"):
            keys = [self._loading_key, self._key, self._dropping_key]
            return bool(script(keys=keys, args=[head.version, head.model_dump_json()]))

    def flip(self, head: Head, *, allow_older: bool) -> Flip:
        """Make readers follow a checked version; see `RedisTable.flip`."""
        script = self._client.register_script(FLIP)
        outcome, detail = b"amended", b""
        while outcome == b"amended":  # an erasure came between the look and the flip
            with redis_errors(f"flipping {self._table} to version {head.version}"):
                listed = cast("bytes | None", self._client.hget(self._key, str(head.version)))
                now = _as_listed(head, listed).model_dump_json()
                date = "" if allow_older else head.date
                outcome, detail = script(
                    keys=[self._head_key, self._left_key, self._key],
                    args=[now, head.token, head.version, date, listed or b""],
                )
        if outcome == b"fenced":
            raise fenced(head, int(detail))
        if outcome == b"damaged":
            found, expected = f"not a head: {detail[:60]!r}", "the JSON that publish writes"
            raise InputError(Problem("STORE_POINTER_FORMAT", self._head_key, found, expected))
        return Flip(outcome.decode())

    def claim(self, head: Head) -> bool:
        """Take a version for dropping; False where readers follow it, or it is gone."""
        script = self._client.register_script(CLAIM)
        with redis_errors(f"dropping {self._table} version {head.version}"):
            keys = [self._head_key, self._key, self._dropping_key, self._left_key, self._loading_key]
            return bool(script(keys=keys, args=[head.version, head.run_id]))

    def forget(self, head: Head) -> None:
        """Note that all keys of a claimed version are removed."""
        with redis_errors(f"dropping {self._table} version {head.version}"):
            self._client.hdel(self._dropping_key, str(head.version))

    def amend(self, version: int, change: Callable[[Head], Head]) -> None:
        """Change what the heads of a version say, in its list and where readers follow it."""
        while not self._amended(version, change):
            pass  # a flip came between the look and the change

    def _amended(self, version: int, change: Callable[[Head], Head]) -> bool:
        script = self._client.register_script(AMEND)
        with redis_errors(f"amending {self._table} version {version}"):
            listed = self._client.hget(self._key, str(version))
            served = self._client.get(self._head_key)
            if listed is None:
                return True
            is_served = served is not None and read_head(cast("bytes", served), self._table).version == version
            args: list[Any] = [version]
            for raw in (listed, served if is_served else None):
                now = "" if raw is None else change(read_head(cast("bytes", raw), self._table)).model_dump_json()
                args += [raw or "", now]
            return bool(script(keys=[self._head_key, self._key], args=args))

    def _heads(self, key: str) -> dict[int, Head]:
        with redis_errors(f"table '{self._table}'"):
            found = self._client.hvals(key)
        heads = [read_head(cast("bytes", raw), self._table) for raw in found]
        return {head.version: head for head in heads}


def removable(versions: Mapping[int, Head], live: Head, left: Left, *, keep: int, grace_seconds: int) -> list[int]:
    """The versions that nobody can be reading, ascending.

    Args:
        versions: Every version that has rows.
        live: The head that readers follow.
        left: When readers left those that once were live.
        keep: How many of those that were live are kept, the live one among them.
        grace_seconds: How long at least one is kept that is no longer live.
    """
    at = left.at
    others = sorted(versions.keys() - {live.version}, key=lambda version: (at.get(version, 0), version), reverse=True)
    once_live = [version for version in others if version in at]
    old = {version for version in once_live[keep - 1 :] if left.now - at[version] >= grace_seconds}
    abandoned = {version for version in others if version not in at and versions[version].token < live.token}
    return sorted(old | abandoned)


def fenced(head: Head, token: int) -> RefusedError:
    """The refusal of a publication that one with a larger token came before."""
    where, found = head_key(head.table), f"a head with token {token}"
    return RefusedError(
        Problem("PUBLISH_FENCED", where, found, f"one below {head.token}: this publication was overtaken")
    )


def _as_listed(head: Head, listed: bytes | None) -> Head:
    """The head with as many rows as the list has for its version: an erasure may have come since it was made."""
    if listed is None:
        return head
    known = read_head(listed, head.table)
    return head.model_copy(update={"entities": known.entities, "priors": known.priors})
