"""The Redis side of a release: versions loaded beside the live one, and one head to flip."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any, cast

from lookup.bulk import RowsOf, checksum_of, count, exists, no_rows, unlink
from lookup.capacity import Plan, plan, refuse_eviction, refuse_what_does_not_fit, server_of
from lookup.connect import Client, address_of_client, redis_errors
from lookup.follower import row_commands
from lookup.loader import Load, Loaded, in_threads, list_version, load_priors, method_of
from lookup.rows import Part, Row, Rows
from lookup.scripts import AMEND, CLAIM, FLIP
from lookup.wire import packed
from lookup.wires import Wires
from schemas.errors import InputError, Problem, RefusedError
from schemas.head import Head, read_head
from schemas.keys import head_key, versions_key

Spread = Callable[[Callable[[Part], Loaded], Sequence[Part]], list[Loaded]]
"""Calls the loader with each part, in order or not, and returns what became of each, in order."""


class Flip(StrEnum):
    """How a flip ended."""

    FLIPPED = "flipped"
    SAME = "same"
    GONE = "gone"
    OLDER = "older"


class RedisTable:
    """One table on one Redis."""

    def __init__(self, client: Client, table: str, *, rows_of: RowsOf = no_rows) -> None:
        """The table of that name.

        Args:
            client: A connection that may write it.
            table: Its name.
            rows_of: Finds the rows of a version, whose keys in the layout `string` only they tell.
        """
        self.name = table
        self._client = client
        self._address = address_of_client(client)
        self._rows_of = rows_of
        self._left_key = f"{versions_key(table)}:left"
        self._dropping_key = f"{versions_key(table)}:dropping"

    def head(self) -> Head | None:
        """What readers follow now; None before the first publish, and where Redis lost its data."""
        with redis_errors(f"table '{self.name}'"):
            raw = self._client.get(head_key(self.name))
        return None if raw is None else read_head(cast("bytes", raw), self.name)

    def plan(self, head: Head, rows: Rows) -> list[Plan]:
        """What loading the version needs, for each server that gets a part of it."""
        with Wires(self._address) as wires:
            servers = [server_of(info) for info in wires.info("memory", "server")]
        return [plan(head, rows, server, share=1 / len(servers)) for server in servers]

    def preflight(self) -> None:
        """Refuse a server that could drop predictions without a word.

        Raises:
            DeclarationError: its eviction policy is not noeviction.
        """
        with Wires(self._address) as wires:
            for info in wires.info("memory"):
                refuse_eviction(info["maxmemory_policy"])

    def load(self, head: Head, rows: Rows, *, spread: Spread = in_threads, replicas: int | None = None) -> list[Row]:
        """Write a version's rows beside the live one. Writing it again changes nothing.

        Args:
            head: Of the version.
            rows: Grouped by bucket, ids ascending within one, as the store's files have them.
            spread: Loads the parts: in threads of this process, or wherever else.
            replicas: How many must have the rows; all that are connected, when left out.

        Returns:
            Some of the rows, to be read back.

        Raises:
            InputError: an id comes twice, or the rows are not in that order.
            RefusedError: another publisher's head has a larger token, so that these rows may be gone already; or the
                version in Redis is another store's, or its keys are another program's.
            UnavailableError: Redis does not answer or has no room, or too few replicas have the rows.
        """
        served = self._refuse_overtaken(head)
        known = self.versions().get(head.version) or (served if served and served.version == head.version else None)
        if known and known.run_id != head.run_id:
            where = f"{versions_key(self.name)} {head.version}"
            raise RefusedError(
                Problem("STORE_FOREIGN", where, f"run {known.run_id} of another store", f"this store's {head.run_id}")
            )
        if known is None and exists(self._address, head, rows):
            where, found = f"{self.name} version {head.version}", "another program's keys under names of ours"
            raise RefusedError(Problem("STORE_FOREIGN", where, found, "keys that only Almanac writes; remove them"))
        for needed in self.plan(head, rows):
            refuse_what_does_not_fit(needed, f"loading {self.name} version {head.version}")
        method = method_of(self._address, head) if head.layout == "bucket" else "hset"
        wanted = self._replicas() if replicas is None else replicas
        loaded = spread(Load(self._address, head, method, wanted), rows.parts)
        if not any(part.rows for part in loaded):  # a version of no rows is one too
            with Wires(self._address) as wires:
                list_version(wires, head)
        load_priors(self._address, head, rows.priors)
        refuse_overlap(head, loaded)
        self._refuse_overtaken(head)
        return [row for part in loaded for row in part.sample]

    def count(self, head: Head) -> int:
        """Rows that Redis holds of a version: the sum of its buckets' lengths, or of the keys that exist."""
        return count(self._address, head, self._rows_of)

    def checksum(self, head: Head) -> str:
        """The checksum of all rows that Redis holds of a version: that of the store, where they are the same."""
        return checksum_of(self._address, head, self._rows_of)

    def differing(self, head: Head, sample: Sequence[Row]) -> list[str]:
        """The ids of the sample whose stored value is not the given one."""
        commands = row_commands(head, [row.entity for row in sample])
        with Wires(self._address) as wires:
            found = wires.ask([command[1].encode() for command in commands], [packed(*each) for each in commands])
        return [row.entity for row, value in zip(sample, found, strict=True) if value != row.value]

    def flip(self, head: Head, *, allow_older: bool = False) -> Flip:
        """Make readers follow `head`.

        Args:
            head: Of a version that is loaded.
            allow_older: Whether its date may be before that of the head it replaces.

        Returns:
            SAME where readers follow it already, GONE where the version was retired meanwhile, OLDER where a newer
            date is served and stays.

        Raises:
            RefusedError: a publication or rollback with a larger token came first.
            InputError: the head in Redis is not one of ours.
        """
        script = self._client.register_script(FLIP)
        with redis_errors(f"flipping {self.name} to version {head.version}"):
            outcome, detail = script(
                keys=[head_key(self.name), self._left_key, versions_key(self.name)],
                args=[head.model_dump_json(), head.token, head.version, "" if allow_older else head.date],
            )
        if outcome == b"fenced":
            raise fenced(head, int(detail))
        if outcome == b"damaged":
            found, expected = f"not a head: {detail[:60]!r}", "the JSON that publish writes"
            raise InputError(Problem("STORE_POINTER_FORMAT", head_key(self.name), found, expected))
        return Flip(outcome.decode())

    def was_live(self, version: int) -> bool:
        """Whether readers once followed that version, so that it was proven whole."""
        with redis_errors(f"table '{self.name}'"):
            return bool(self._client.hexists(self._left_key, str(version)))

    def versions(self) -> dict[int, Head]:
        """Every version that has keys in Redis and is not being dropped."""
        return self._heads(versions_key(self.name))

    def retire(self, *, keep: int, grace_seconds: int) -> list[int]:
        """Remove the versions that nobody can be reading, by the names of their buckets, and say which.

        Kept are the live one, the `keep - 1` that were live last, and any that left less than `grace_seconds` ago.
        A version that never was live is removed once the head has a larger token: its publisher is fenced out.
        """
        live = self.head()
        if live is None:
            return []
        for head in self._heads(self._dropping_key).values():
            self._unlink(head)  # of a publisher that was killed while it dropped
        with redis_errors(f"retiring versions of {self.name}"):
            left = {int(version): float(at) for version, at in self._client.hgetall(self._left_key).items()}
            seconds, microseconds = self._client.time()
            now = seconds + microseconds / 1e6
        versions = self.versions()
        old = removable(versions, live, left, now, keep=keep, grace_seconds=grace_seconds)
        return [version for version in old if self.drop(versions[version])]

    def drop(self, head: Head) -> bool:
        """Remove a version's rows; False, and nothing is removed, where readers follow it or it is gone."""
        claim = self._client.register_script(CLAIM)
        with redis_errors(f"dropping {self.name} version {head.version}"):
            keys = [head_key(self.name), versions_key(self.name), self._dropping_key, self._left_key]
            claimed = bool(claim(keys=keys, args=[head.version, head.run_id]))
        if claimed:
            self._unlink(head)
        return claimed

    def erase(self, entity: str, entities_of: Callable[[Head], int]) -> int:
        """Remove an entity's row from every version, and say from how many; readers find it unknown from then on.

        Args:
            entity: Its id.
            entities_of: How many rows a version has without it, as the store says.
        """
        erased = 0
        with Wires(self._address) as wires:
            for head in [*self.versions().values(), *self._heads(self._dropping_key).values()]:
                ((_, key, *field),) = row_commands(head, [entity])
                erased += wires.of(key).ask("HDEL" if field else "UNLINK", key, *field)
        for version in self.versions():
            while not self._amend(version, entities_of):
                pass  # a flip came between the look and the change
        return erased

    def _amend(self, version: int, entities_of: Callable[[Head], int]) -> bool:
        """Make the heads of a version say how many rows it has; False where they changed meanwhile."""
        amend = self._client.register_script(AMEND)
        with redis_errors(f"amending {self.name} version {version}"):
            listed = self._client.hget(versions_key(self.name), str(version))
            served = self._client.get(head_key(self.name))
            if listed is None:
                return True
            is_served = served is not None and read_head(cast("bytes", served), self.name).version == version
            args: list[Any] = [version]
            for raw in (listed, served if is_served else None):
                head = None if raw is None else read_head(cast("bytes", raw), self.name)
                now = head.model_copy(update={"entities": entities_of(head)}).model_dump_json() if head else ""
                args += [raw or "", now]
            return bool(amend(keys=[head_key(self.name), versions_key(self.name)], args=args))

    def _unlink(self, head: Head) -> None:
        unlink(self._address, head, self._rows_of)
        with redis_errors(f"dropping {self.name} version {head.version}"):
            self._client.hdel(self._dropping_key, str(head.version))

    def _heads(self, key: str) -> dict[int, Head]:
        with redis_errors(f"table '{self.name}'"):
            found = self._client.hvals(key)
        heads = [read_head(cast("bytes", raw), self.name) for raw in found]
        return {head.version: head for head in heads}

    def _refuse_overtaken(self, head: Head) -> Head | None:
        """The head that is served, which is not one with a larger token."""
        served = self.head()
        if served and served.token > head.token:
            raise fenced(head, served.token)
        return served

    def _replicas(self) -> int:
        with Wires(self._address) as wires:
            return min(int(info.get("connected_slaves", 0)) for info in wires.info("replication"))


def removable(
    versions: Mapping[int, Head], live: Head, left: Mapping[int, float], now: float, *, keep: int, grace_seconds: int
) -> list[int]:
    """The versions that nobody can be reading, ascending.

    Args:
        versions: Every version that has rows.
        live: The head that readers follow.
        left: When readers left each version that once was live, in seconds since 1970.
        now: The same of now.
        keep: How many of those that were live are kept, the live one among them.
        grace_seconds: How long at least one is kept that is no longer live.
    """
    others = sorted(versions.keys() - {live.version}, key=lambda version: (left.get(version, 0), version), reverse=True)
    once_live = [version for version in others if version in left]
    old = {version for version in once_live[keep - 1 :] if now - left[version] >= grace_seconds}
    abandoned = {version for version in others if version not in left and versions[version].token < live.token}
    return sorted(old | abandoned)


def fenced(head: Head, token: int) -> RefusedError:
    """The refusal of a publication that one with a larger token came before."""
    where, found = head_key(head.table), f"a head with token {token}"
    return RefusedError(
        Problem("PUBLISH_FENCED", where, found, f"one below {head.token}: this publication was overtaken")
    )


def refuse_overlap(head: Head, loaded: Sequence[Loaded]) -> None:
    """Refuse parts that share a bucket: an id could be in two of them.

    Raises:
        InputError: two do.
    """
    spans = [(part.first, part.last) for part in loaded if part.rows]
    if any(before[1] >= after[0] for before, after in pairwise(spans)):
        where = f"{head.table} run {head.run_id}"
        raise InputError(Problem("ROW_ORDER", where, "a bucket in two files", "each bucket in one, in order"))
