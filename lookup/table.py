"""The Redis side of a release: versions loaded beside the live one, and one head to flip."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

from lookup.bulk import RowsOf, checksum_of, counts, exists, no_rows, priors_of, unlink
from lookup.capacity import Plan, plan, refuse_eviction, refuse_what_does_not_fit, server_of
from lookup.commands import RowCommands
from lookup.connect import Client, address_of_client, redis_errors
from lookup.loader import Load, Loaded, in_threads, list_version, load_priors, method_of
from lookup.rows import Part, Row, Rows
from lookup.versions import Flip, Versions, fenced, removable
from lookup.wire import packed
from lookup.wires import Wires
from schemas.errors import InputError, Problem, RefusedError, UnavailableError
from schemas.head import Head, read_head
from schemas.keys import bucket_of, head_key, priors_key, versions_key

Spread = Callable[[Callable[[Part], Loaded], Sequence[Part]], list[Loaded]]
"""Calls the loader with each part, in order or not, and returns what became of each, in order."""


class Remains(NamedTuple):
    """What a version has without an erased entity.

    Attributes:
        entities: Rows.
        priors: The fields of all its priors.
    """

    entities: int
    priors: frozenset[str] = frozenset()


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
        self._versions = Versions(client, table)

    def head(self) -> Head | None:
        """What readers follow now; None before the first publish, and where Redis lost its data."""
        with redis_errors(f"table '{self.name}'"):
            raw = self._client.get(head_key(self.name))
        return None if raw is None else read_head(cast("bytes", raw), self.name)

    def plan(self, head: Head, rows: Rows) -> list[Plan]:
        """What loading the version needs beside what is there of it, for each server that gets a part of it."""
        with Wires(self._address) as wires:
            servers = [server_of(info) for info in wires.info("memory", "server")]
            shares = wires.shares()
        known = self._known(head, self.head())
        is_known = known is not None and known.run_id == head.run_id
        held = counts(self._address, head, lambda _: rows) if is_known else [0] * len(servers)
        return [
            plan(head, rows, server, share=share, held=here)
            for server, share, here in zip(servers, shares, held, strict=True)
        ]

    def preflight(self) -> None:
        """Refuse a server that could drop predictions without a word.

        Raises:
            DeclarationError: its eviction policy is not noeviction.
        """
        with Wires(self._address) as wires:
            for info in wires.info("memory"):
                refuse_eviction(info["maxmemory_policy"])

    def load(self, head: Head, rows: Rows, *, spread: Spread = in_threads, replicas: int | None = None) -> None:
        """Write a version's rows and priors beside the live one, check them, and list it as one that may be followed.

        Until every check has passed it is listed as being loaded only, and no flip and no pin takes it. Writing it
        again changes nothing.

        Args:
            head: Of the version.
            rows: Grouped by bucket, ids ascending within one, as the store's files have them.
            spread: Loads the parts: in threads of this process, or wherever else.
            replicas: How many must have the rows; all that are connected, when left out.

        Raises:
            InputError: an id comes twice, or the rows are not in that order; or Redis then holds others.
            RefusedError: another publisher's head has a larger token, so that these rows may be gone already; or the
                version in Redis is another store's, or its keys are another program's.
            UnavailableError: Redis does not answer, has no room or lost the rows, or too few replicas have them.
        """
        served = self._refuse_overtaken(head)
        known = self._known(head, served)
        is_gentle = served is not None
        self._refuse_foreign(head, rows, known, is_gentle=is_gentle)
        refuse_overlap(head, rows.parts)
        for needed in self.plan(head, rows):
            refuse_what_does_not_fit(needed, f"loading {self.name} version {head.version}")
        method = method_of(self._address, head) if head.layout == "bucket" else "hset"
        wanted = self._replicas() if replicas is None else replicas
        with Wires(self._address) as wires:
            list_version(wires, head)
            load_priors(wires, head, rows.priors)
            wires.wait(wanted)
        loaded = spread(Load(self._address, head, method, wanted, known is not None, is_gentle), rows.parts)
        self._refuse_overtaken(head)
        self._check(head, rows, [row for part in loaded for row in part.sample], is_gentle=is_gentle)
        if not self._versions.accept(head):
            where, found = f"{self.name} version {head.version}", "its rows were lost while they were loaded"
            raise UnavailableError(Problem("STORE_COUNT", where, found, f"{head.entities}; publish again"))

    def count(self, head: Head) -> int:
        """Rows that Redis holds of a version: the sum of its buckets' lengths, or of the keys that exist."""
        return sum(counts(self._address, head, self._rows_of))

    def is_whole(self, head: Head) -> bool:
        """Whether Redis holds as many rows and priors of a version as its head says."""
        return self.count(head) == head.entities and len(priors_of(self._address, head)) == head.priors

    def checksum(self, head: Head) -> str:
        """The checksum of all that Redis holds of a version: that of the store, where they are the same."""
        return checksum_of(self._address, head, self._rows_of)

    def differing(self, head: Head, sample: Sequence[Row]) -> list[str]:
        """The ids of the sample whose stored value is not the given one."""
        commands = RowCommands(head).listed([row.entity for row in sample])
        with Wires(self._address) as wires:
            found = wires.ask([command[1].encode() for command in commands], [packed(*each) for each in commands])
        return [row.entity for row, value in zip(sample, found, strict=True) if value != row.value]

    def flip(self, head: Head, *, allow_older: bool = False) -> Flip:
        """Make readers follow `head`, with as many entities as are listed for its version.

        Args:
            head: Of a version that is loaded.
            allow_older: Whether its date may be before that of the head it replaces.

        Returns:
            SAME where readers follow it already, GONE where the version was retired meanwhile or is not checked, OLDER
            where a newer date is served and stays.

        Raises:
            RefusedError: a publication or rollback with a larger token came first.
            InputError: the head in Redis is not one of ours.
        """
        return self._versions.flip(head, allow_older=allow_older)

    def was_live(self, version: int) -> bool:
        """Whether readers once followed that version, so that it was proven whole."""
        return self._versions.was_live(version)

    def versions(self) -> dict[int, Head]:
        """Every version that passed its checks and is not being dropped."""
        return self._versions.checked()

    def unfinished(self) -> dict[int, Head]:
        """Every version whose loading has begun and was not brought to its end; one loaded in place is both."""
        return self._versions.loading()

    def dropping(self) -> dict[int, Head]:
        """Every version that was claimed for removal, and has keys still."""
        return self._versions.dropping()

    def removable(self, *, keep: int, grace_seconds: int) -> list[Head]:
        """The versions that nobody can be reading, as `retire` removes them."""
        live = self.head()
        if live is None:
            return []
        left, versions = self._versions.left(), self._listed()
        old = removable(versions, live, left, keep=keep, grace_seconds=grace_seconds)
        return [versions[version] for version in old]

    def retire(self, *, keep: int, grace_seconds: int) -> list[int]:
        """Remove the versions that nobody can be reading, by the names of their buckets, and say which.

        Kept are the live one, the `keep - 1` that were live last, and any that left less than `grace_seconds` ago.
        A version that never was live is removed once the head has a larger token: its publisher is fenced out.
        """
        if self.head() is None:
            return []
        for head in self.dropping().values():
            self._unlink(head)  # of a publisher that was killed while it dropped
        old = self.removable(keep=keep, grace_seconds=grace_seconds)
        return [head.version for head in old if self.drop(head)]

    def drop(self, head: Head) -> bool:
        """Remove a version's rows; False, and nothing is removed, where readers follow it or it is gone."""
        claimed = self._versions.claim(head)
        if claimed:
            self._unlink(head)
        return claimed

    def erase(self, entity: str, remains: Callable[[Head], Remains]) -> int:
        """Remove an entity's row from every version, and say from how many; readers find it unknown from then on.

        Args:
            entity: Its id.
            remains: What a version has without it, as the store says.
        """
        erased = 0
        with Wires(self._address) as wires:
            for head in [*self._listed().values(), *self._versions.dropping().values()]:
                ((_, key, *field),) = RowCommands(head).listed([entity])
                erased += wires.of(key).ask("HDEL" if field else "UNLINK", key, *field)
                said = {prior for prior, _ in head.serving.prior_fields(entity)} if head.priors else set()
                if said and (gone := said - remains(head).priors):
                    key = priors_key(self.name, head.version)
                    wires.of(key).ask("HDEL", key, *sorted(gone))
        for version in self.versions():
            self._versions.amend(version, lambda head: amended(head, remains(head)))
        return erased

    def _listed(self) -> dict[int, Head]:
        """Every version that has keys in Redis and is not being dropped."""
        return {**self._versions.loading(), **self._versions.checked()}

    def _known(self, head: Head, served: Head | None) -> Head | None:
        """What Redis says of the version with that head's number; its lists may be lost while it is served."""
        return self._listed().get(head.version) or (served if served and served.version == head.version else None)

    def _check(self, head: Head, rows: Rows, sample: Sequence[Row], *, is_gentle: bool) -> None:
        """Read back how many rows there are, a sample of them, and all priors."""
        where = f"{self.name} version {head.version}"
        if (found := sum(counts(self._address, head, lambda _: rows, is_gentle=is_gentle))) != head.entities:
            raise InputError(Problem("STORE_COUNT", where, f"{found} rows in Redis", f"{head.entities}"))
        held = priors_of(self._address, head)
        if wrong := sum(held.get(field) != rows.priors.get(field) for field in {*held, *rows.priors}):
            what = f"{wrong} of {len(rows.priors)} priors differ"
            raise InputError(Problem("STORE_ROWS", where, what, "the store's"))
        if different := self.differing(head, sample):
            what = f"{len(different)} of {len(sample)} sampled rows differ"
            raise InputError(Problem("STORE_ROWS", where, what, "the store's"))

    def _unlink(self, head: Head) -> None:
        unlink(self._address, head, self._rows_of)
        self._versions.forget(head)

    def _refuse_foreign(self, head: Head, rows: Rows, known: Head | None, *, is_gentle: bool) -> None:
        """Refuse a version that another store or program has under its number."""
        if known and known.run_id != head.run_id:
            where = f"{versions_key(self.name)} {head.version}"
            raise RefusedError(
                Problem("STORE_FOREIGN", where, f"run {known.run_id} of another store", f"this store's {head.run_id}")
            )
        if known is None and exists(self._address, head, rows, is_gentle=is_gentle):
            where, found = f"{self.name} version {head.version}", "another program's keys under names of ours"
            raise RefusedError(Problem("STORE_FOREIGN", where, found, "keys that only Almanac writes; remove them"))

    def _refuse_overtaken(self, head: Head) -> Head | None:
        """The head that is served, which is not one with a larger token."""
        served = self.head()
        if served and served.token > head.token:
            raise fenced(head, served.token)
        return served

    def _replicas(self) -> int:
        with Wires(self._address) as wires:
            return min(int(info.get("connected_slaves", 0)) for info in wires.info("replication"))


def amended(head: Head, remains: Remains) -> Head:
    """The head of a version that an entity was erased from."""
    return head.model_copy(update={"entities": remains.entities, "priors": len(remains.priors)})


def refuse_overlap(head: Head, parts: Sequence[Part]) -> None:
    """Refuse parts that share a bucket: an id could be in two of them. Each is in order, as its own load sees.

    Raises:
        InputError: two do.
    """
    ends = [found for part in parts if (found := part.ends())]
    spans = [(bucket_of(first, head.buckets), bucket_of(last, head.buckets)) for first, last in ends]
    if any(before[1] >= after[0] for before, after in pairwise(spans)):
        where = f"{head.table} run {head.run_id}"
        raise InputError(Problem("ROW_ORDER", where, "a bucket in two files", "each bucket in one, in order"))
