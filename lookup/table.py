"""The Redis side of a release: versions loaded beside the live one, and one head to flip."""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import groupby, islice
from typing import Any, NamedTuple, cast

import redis

from lookup.connect import redis_errors
from schemas.errors import DeclarationError, InputError, Problem, RefusedError
from schemas.keys import Head, bucket_key, bucket_of, head_key, read_head, versions_key

_BUCKETS_PER_WRITE = 512

# KEYS: 1 the head, 2 when each version left it, 3 the versions. ARGV: 1 the new head, 2 its token, 3 its version, 4 its
# date, or nothing where an older date may replace a newer one.
# Atomic: token and date are compared, the version is seen to be there, the head is set, and the time at which the old
# version left is noted.
_FLIP = """
local current = redis.call('GET', KEYS[1])
if current == ARGV[1] then return {'same', ''} end
if redis.call('HEXISTS', KEYS[3], ARGV[3]) == 0 then return {'gone', ''} end
if current then
  local ok, head = pcall(cjson.decode, current)
  if not ok or type(head) ~= 'table' or type(head.token) ~= 'number' or type(head.version) ~= 'number' then
    return {'damaged', current}
  end
  if head.token > tonumber(ARGV[2]) then return {'fenced', tostring(head.token)} end
  if ARGV[4] ~= '' and tostring(head.date) > ARGV[4] then return {'older', tostring(head.date)} end
  if tostring(head.version) ~= ARGV[3] then
    redis.call('HSET', KEYS[2], tostring(head.version), redis.call('TIME')[1])
  end
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[3])
return {'flipped', ''}
"""

# KEYS: 1 the head, 2 the versions, 3 those that are being dropped, 4 when each left. ARGV: 1 a version, 2 its run.
# Atomic: a version of that run that is not the head's is moved from the versions to those being dropped; from then on
# no flip finds it, and its keys are never written again.
_CLAIM = """
local current = redis.call('GET', KEYS[1])
if current and tostring(cjson.decode(current).version) == ARGV[1] then return 0 end
local head = redis.call('HGET', KEYS[2], ARGV[1])
if not head or cjson.decode(head).run_id ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], head)
return 1
"""


class Flip(StrEnum):
    """How a flip ended."""

    FLIPPED = "flipped"
    SAME = "same"
    GONE = "gone"
    OLDER = "older"


class Row(NamedTuple):
    entity: str
    value: bytes


class RedisTable:
    """One table on one Redis."""

    def __init__(self, client: redis.Redis, table: str) -> None:
        self.name = table
        self._client = client
        self._left_key = f"{versions_key(table)}:left"
        self._dropping_key = f"{versions_key(table)}:dropping"

    def head(self) -> Head | None:
        """What readers follow now; None before the first publish, and where Redis lost its data."""
        with redis_errors(f"table '{self.name}'"):
            raw = self._client.get(head_key(self.name))
        return None if raw is None else read_head(cast("bytes", raw), self.name)

    def preflight(self) -> None:
        """Refuse a server that could drop predictions without a word.

        Raises:
            DeclarationError: its eviction policy is not noeviction.
        """
        with redis_errors(f"table '{self.name}'"):
            policy = self._client.info("memory")["maxmemory_policy"]
        if policy != "noeviction":
            raise DeclarationError(
                Problem("STORE_POLICY", "Redis maxmemory-policy", f"{policy} would drop predictions", "noeviction")
            )

    def load(self, head: Head, rows: Iterable[Row]) -> None:
        """Write a version's rows beside the live one. Writing it again changes nothing.

        Args:
            head: Of the version.
            rows: Grouped by bucket, ids ascending within one, as the store's files have them.

        Raises:
            InputError: an id comes twice, or the rows are not in that order.
            RefusedError: another publisher's head has a larger token, so that these rows may be gone already; or the
                version in Redis is another store's.
        """
        self._refuse_overtaken(head)
        known = self.versions().get(head.version)
        if known and known.run_id != head.run_id:
            where = f"{versions_key(self.name)} {head.version}"
            raise RefusedError(
                Problem("STORE_FOREIGN", where, f"run {known.run_id} of another store", f"this store's {head.run_id}")
            )
        with redis_errors(f"loading {self.name} version {head.version}"):
            groups = groupby(_in_order(head, rows), key=lambda row: bucket_of(row.entity, head.buckets))
            while True:
                pipeline = self._client.pipeline(transaction=False)
                # With every write, the first and the last: whoever dropped the version meanwhile finds these rows too.
                pipeline.hset(versions_key(self.name), str(head.version), head.model_dump_json())
                for bucket, group in islice(groups, _BUCKETS_PER_WRITE):
                    fields: dict[Any, Any] = {row.entity: row.value for row in group}
                    pipeline.hset(bucket_key(self.name, head.version, bucket), mapping=fields)
                if len(pipeline.execute()) == 1:
                    break
        self._refuse_overtaken(head)

    def count(self, head: Head) -> int:
        """Rows that Redis holds of a version: the sum of its buckets' lengths."""
        total = 0
        with redis_errors(f"counting {self.name} version {head.version}"):
            for keys in _chunks(self._bucket_keys(head)):
                pipeline = self._client.pipeline(transaction=False)
                for key in keys:
                    pipeline.hlen(key)
                total += sum(pipeline.execute())
        return total

    def differing(self, head: Head, sample: Sequence[Row]) -> list[str]:
        """The ids of the sample whose stored value is not the given one."""
        with redis_errors(f"reading back {self.name} version {head.version}"):
            pipeline = self._client.pipeline(transaction=False)
            for row in sample:
                pipeline.hget(bucket_key(self.name, head.version, bucket_of(row.entity, head.buckets)), row.entity)
            return [row.entity for row, found in zip(sample, pipeline.execute(), strict=True) if found != row.value]

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
        script = self._client.register_script(_FLIP)
        with redis_errors(f"flipping {self.name} to version {head.version}"):
            outcome, detail = script(
                keys=[head_key(self.name), self._left_key, versions_key(self.name)],
                args=[head.model_dump_json(), head.token, head.version, "" if allow_older else head.date],
            )
        if outcome == b"fenced":
            raise self._fenced(head, int(detail))
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
            left = {int(version): int(at) for version, at in self._client.hgetall(self._left_key).items()}
            now = int(self._client.time()[0])
        versions = self.versions()
        others = sorted(
            versions.keys() - {live.version}, key=lambda version: (left.get(version, 0), version), reverse=True
        )
        once_live = [version for version in others if version in left]
        old = {version for version in once_live[keep - 1 :] if now - left[version] >= grace_seconds}
        abandoned = {version for version in others if version not in left and versions[version].token < live.token}
        return [version for version in sorted(old | abandoned) if self.drop(versions[version])]

    def drop(self, head: Head) -> bool:
        """Remove a version's rows; False, and nothing is removed, where readers follow it or it is gone."""
        claim = self._client.register_script(_CLAIM)
        with redis_errors(f"dropping {self.name} version {head.version}"):
            keys = [head_key(self.name), versions_key(self.name), self._dropping_key, self._left_key]
            claimed = bool(claim(keys=keys, args=[head.version, head.run_id]))
        if claimed:
            self._unlink(head)
        return claimed

    def _unlink(self, head: Head) -> None:
        with redis_errors(f"dropping {self.name} version {head.version}"):
            for keys in _chunks(self._bucket_keys(head)):
                self._client.unlink(*keys)
            self._client.hdel(self._dropping_key, str(head.version))

    def _heads(self, key: str) -> dict[int, Head]:
        with redis_errors(f"table '{self.name}'"):
            found = self._client.hvals(key)
        heads = [read_head(cast("bytes", raw), self.name) for raw in found]
        return {head.version: head for head in heads}

    def _refuse_overtaken(self, head: Head) -> None:
        served = self.head()
        if served and served.token > head.token:
            raise self._fenced(head, served.token)

    def _fenced(self, head: Head, token: int) -> RefusedError:
        return RefusedError(
            Problem(
                "PUBLISH_FENCED",
                head_key(self.name),
                f"a head with token {token}",
                f"one below {head.token}: this publication was overtaken",
            )
        )

    def _bucket_keys(self, head: Head) -> Iterator[str]:
        return (bucket_key(self.name, head.version, bucket) for bucket in range(head.buckets))


def _chunks(keys: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(keys, _BUCKETS_PER_WRITE)):
        yield chunk


def _in_order(head: Head, rows: Iterable[Row]) -> Iterator[Row]:
    last: tuple[int, bytes] = (-1, b"")
    for row in rows:
        position = (bucket_of(row.entity, head.buckets), row.entity.encode())
        if position <= last:
            what = "an id twice" if position == last else "rows out of order"
            raise InputError(
                Problem("ROW_ORDER", f"{head.table} run {head.run_id}", what, "ids once, grouped by bucket, ascending")
            )
        last = position
        yield row
