"""A table in memory, for the unit tests of services: what it is told and answers is as of one in Redis."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lookup.capacity import Plan
from lookup.commands import Command
from lookup.follower import ATTEMPTS, Follower, Pin
from lookup.loader import Loaded, refuse_disorder
from lookup.resp import Request
from lookup.rows import Part, Row, Rows, checksum
from lookup.table import Remains, Spread, amended, refuse_overlap
from lookup.versions import Flip, Left, fenced, removable
from schemas.answer import Answer
from schemas.errors import Problem, RefusedError
from schemas.head import ColumnSpec, Head
from schemas.keys import bucket_count, bucket_of, head_key, versions_key
from schemas.row import encode_rows

_MODEL = "in memory"


def one_by_one(load: Callable[[Part], Loaded], parts: Sequence[Part]) -> list[Loaded]:
    """Load part after part."""
    return [load(part) for part in parts]


class MemoryTable:
    """One table, for one thread.

    It has the methods of `RedisTable`, and those of a connection: `AsyncReader(Lookups(table), name)` reads it.
    """

    def __init__(self, table: str, *, clock: Callable[[], float] = time.time) -> None:
        self.name = table
        self._clock = clock
        self._served: Head | None = None
        self._versions: dict[int, Head] = {}
        self._left: dict[int, int] = {}
        self._rows: dict[int, dict[str, bytes]] = {}
        self._priors: dict[int, dict[str, bytes]] = {}

    def publish(self, predictions: Mapping[str, Mapping[str, float]]) -> Head:
        """Make these the live release: entity id -> its outputs, the same ones for each."""
        number = max(self._versions, default=0) + 1
        names = list(next(iter(predictions.values()), {}))
        columns = (
            *(ColumnSpec(name=name, type="float64") for name in names),
            ColumnSpec(name="model", type="enum", values=(_MODEL,)),
            ColumnSpec(name="variant", type="enum", values=("champion",)),
            ColumnSpec(name="status", type="enum", values=("scored",)),
        )
        routed = [[value] * len(predictions) for value in (_MODEL, "champion", "scored")]
        values = [[row[name] for row in predictions.values()] for name in names]
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        head = Head(
            table=self.name, release=number, date=at[:10], version=number, token=number,
            buckets=bucket_count(len(predictions)), entities=len(predictions), columns=columns,
            run_id=f"{at[:10]}-{number:012x}", scored_at=at,
        )  # fmt: skip
        self._versions[number] = head
        self._rows[number] = dict(zip(predictions, encode_rows(columns, [*values, *routed]), strict=True))
        self.flip(head, allow_older=True)
        return head

    def lookup(self, ids: Sequence[str], *, release: int | None = None) -> tuple[Head, list[Answer]]:
        """The answers in the order of `ids`; see `Reader.lookup`."""
        follower = Follower(self.name) if release is None else Pin(self.name, release)
        for _ in range(ATTEMPTS):
            asked, commands = follower.ask(ids)
            if found := follower.settle(asked, [self._reply(command) for command in commands]):
                now, seen = self._clock(), found.seen
                return seen.head, seen.answers(ids, found.rows, now)
        raise follower.moving()

    def send(self, *requests: Request) -> None:
        """Answer requests as Redis does."""
        for request in requests:
            request.done([self._reply(command) for command in request.commands])

    def close(self) -> None:
        """Nothing is open."""

    def head(self) -> Head | None:
        """What readers follow now; None before the first publish."""
        return self._served

    def plan(self, head: Head, rows: Rows) -> list[Plan]:  # noqa: ARG002  # as RedisTable has it
        """Nothing: no server gets a part of the version."""
        return []

    def preflight(self) -> None:
        """Nothing is ever evicted."""

    def load(
        self,
        head: Head,
        rows: Rows,
        *,
        spread: Spread = one_by_one,
        replicas: int | None = None,  # noqa: ARG002  # as RedisTable has it
    ) -> None:
        """Keep a version's rows beside the live one.

        Raises:
            InputError: an id comes twice, or the rows are not in order.
            RefusedError: another publisher's head has a larger token, or the version is another store's.
        """
        self._refuse_overtaken(head)
        known = self._versions.get(head.version)
        if known and known.run_id != head.run_id:
            where = f"{versions_key(self.name)} {head.version}"
            raise RefusedError(
                Problem("STORE_FOREIGN", where, f"run {known.run_id} of another store", f"this store's {head.run_id}")
            )
        loaded: list[Row] = []

        def load(part: Part) -> Loaded:
            chunk = part.read()
            if len(chunk.ids) == 0:
                return Loaded(0, ())
            buckets = chunk.buckets(head.buckets)
            refuse_disorder(chunk, buckets, f"{head.table} run {head.run_id}")
            loaded.extend(chunk)
            return Loaded(len(chunk.ids), ())

        refuse_overlap(head, rows.parts)
        spread(load, rows.parts)
        self._refuse_overtaken(head)
        self._versions[head.version] = head
        self._rows[head.version] = dict(loaded)
        self._priors[head.version] = {**rows.priors}

    def count(self, head: Head) -> int:
        """Rows that are held of a version."""
        return len(self._rows.get(head.version, {}))

    def is_whole(self, head: Head) -> bool:
        """Whether as many rows and priors are held of a version as its head says."""
        return (self.count(head), len(self._priors.get(head.version, {}))) == (head.entities, head.priors)

    def checksum(self, head: Head) -> str:
        """The checksum of all that is held of a version: that of the store, where they are the same."""
        rows = [(entity.encode(), value) for entity, value in self._rows.get(head.version, {}).items()]
        if head.layout == "bucket":
            rows.sort(key=lambda row: (bucket_of(row[0].decode(), head.buckets), row[0]))
        return checksum(rows, self._priors.get(head.version, {}))

    def differing(self, head: Head, sample: Sequence[Row]) -> list[str]:
        """The ids of the sample whose value is not the given one."""
        held = self._rows.get(head.version, {})
        return [row.entity for row in sample if held.get(row.entity) != row.value]

    def flip(self, head: Head, *, allow_older: bool = False) -> Flip:
        """Make readers follow `head`; see `RedisTable.flip`."""
        served = self._served
        if served == head:
            return Flip.SAME
        if head.version not in self._versions:
            return Flip.GONE
        if served:
            self._refuse_overtaken(head)
            if served.date > head.date and not allow_older:
                return Flip.OLDER
            if served.version != head.version:
                self._left[served.version] = int(self._clock())
        self._served = head
        self._left.pop(head.version, None)
        return Flip.FLIPPED

    def was_live(self, version: int) -> bool:
        """Whether readers once followed that version."""
        return version in self._left

    def versions(self) -> dict[int, Head]:
        """Every version that has rows."""
        return {**self._versions}

    def unfinished(self) -> dict[int, Head]:
        """None: rows are all there at once."""
        return {}

    def retire(self, *, keep: int, grace_seconds: int) -> list[int]:
        """Remove the versions that nobody can be reading, and say which; see `RedisTable.retire`."""
        if self._served is None:
            return []
        left = Left(self._left, int(self._clock()))
        old = removable(self._versions, self._served, left, keep=keep, grace_seconds=grace_seconds)
        return [version for version in old if self.drop(self._versions[version])]

    def drop(self, head: Head) -> bool:
        """Remove a version's rows; False, and nothing is removed, where readers follow it or it is gone."""
        known = self._versions.get(head.version)
        is_served = self._served is not None and self._served.version == head.version
        if is_served or known is None or known.run_id != head.run_id:
            return False
        for held in (self._versions, self._rows, self._priors, self._left):
            held.pop(head.version, None)
        return True

    def erase(self, entity: str, remains: Callable[[Head], Remains]) -> int:
        """Remove an entity's row from every version, and say from how many; see `RedisTable.erase`."""
        erased = sum(rows.pop(entity, None) is not None for rows in self._rows.values())
        for version, head in self._versions.items():
            found = remains(head)
            for field in {field for field, _ in head.serving.prior_fields(entity)} - found.priors:
                self._priors[version].pop(field, None)
            self._versions[version] = amended(head, found)
            if self._served and self._served.version == version:
                self._served = amended(self._served, found)
        return erased

    def _refuse_overtaken(self, head: Head) -> None:
        if self._served and self._served.token > head.token:
            raise fenced(head, self._served.token)

    def _reply(self, command: Command) -> Any:
        """What Redis replies to a command of a reader."""
        name, key, *field = command
        if key == head_key(self.name):
            return None if self._served is None else self._served.model_dump_json().encode()
        if key == versions_key(self.name):
            heads = {str(version): head.model_dump_json().encode() for version, head in self._versions.items()}
            return list(heads.values()) if name == "HVALS" else heads.get(field[0])
        _, _, version, *entity = key.split(":", 4)  # a bucket's key, a row's, or that of the priors
        if name == "HGETALL":
            return [
                text for field, value in self._priors.get(int(version), {}).items() for text in (field.encode(), value)
            ]
        return self._rows.get(int(version), {}).get(field[0] if field else entity[1])
