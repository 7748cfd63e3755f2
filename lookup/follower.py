"""What to ask Redis for, and what its replies mean: the protocol of all readers, without any I/O."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lookup.commands import Command, Commands, RowCommands
from lookup.fallback import Seen
from schemas.errors import InputError, Problem, RowDecodeError, UnavailableError
from schemas.head import Head, read_head
from schemas.keys import first_id_problem, head_key, priors_key, versions_key
from schemas.run import ROUTE_COLUMNS

ATTEMPTS = 5


class Asked(NamedTuple):
    """A version that rows are asked of.

    Attributes:
        raw: Its head, as Redis holds it.
        seen: The version; without its priors while they are on their way.
        rows: How its rows are asked for.
        with_priors: Whether this request asks for its priors too.
    """

    raw: bytes
    seen: Seen
    rows: RowCommands
    with_priors: bool

    def commands(self, ids: Sequence[str], guard: Command) -> Commands:
        head = self.seen.head
        priors = [("HGETALL", priors_key(head.table, head.version))] if self.with_priors else []
        return Commands([*priors, guard], self.rows, ids)


class Found(NamedTuple):
    """Rows of one version, in the order in which their ids were asked: bytes, or None where there is none."""

    seen: Seen
    rows: Sequence[Any]


class Follower:
    """Follows the head of one table.

    A request asks for the rows of the version last seen, and behind them, in the same write, for the head. If the head
    still is, byte for byte, the one that the rows were asked under, the version was live when they were read, so that
    none of its rows can have been removed: a row that is not there is no gap. If it has moved, the rows are asked for
    again under the new one.
    """

    def __init__(self, table: str) -> None:
        self.table = table
        self._guard = ("GET", head_key(table))
        self._asked: Asked | None = None

    @property
    def seen(self) -> Seen | None:
        """The version last proven live, its priors known, as far as Redis has them; kept when Redis is away."""
        asked = self._asked
        return asked.seen if asked and (asked.seen.priors or not asked.with_priors) else None

    def ask(self, ids: Sequence[str]) -> tuple[Asked | None, Commands]:
        """The commands of a request, and what its replies must be settled with."""
        asked = self._asked
        return asked, asked.commands(ids, self._guard) if asked else Commands([self._guard])

    def settle(self, asked: Asked | None, replies: Sequence[Any]) -> Found | None:
        """What the replies say, or None where the head moved and all must be asked again.

        Raises:
            UnavailableError: there is no head: nothing has been published yet, or Redis lost its data.
            InputError: the head is damaged or of a newer format.
        """
        raw = replies[-1]
        if raw is None:
            raise no_version(self.table)
        if asked and raw == asked.raw:
            known, rows = _with_priors(asked, replies[:-1])
            if known is not asked:
                self._asked = known
            return Found(known.seen, rows)
        head = readable(raw, self.table)
        self._asked = _asked(head, raw)
        return None

    def moving(self) -> UnavailableError:
        where = head_key(self.table)
        return UnavailableError(
            Problem("STORE_POINTER", where, f"moved {ATTEMPTS} times in one request", "a steady head")
        )


class Pin:
    """Follows one release, as long as Redis keeps a version of it."""

    def __init__(self, table: str, release: int) -> None:
        self.table = table
        self.release = release
        self._asked: Asked | None = None

    def ask(self, ids: Sequence[str]) -> tuple[Asked | None, Commands]:
        """The commands of a request: rows, and behind them whether their version still is there."""
        asked = self._asked
        if asked is None:
            return None, Commands([("GET", head_key(self.table)), ("HVALS", versions_key(self.table))])
        return asked, asked.commands(ids, ("HGET", versions_key(self.table), str(asked.seen.head.version)))

    def settle(self, asked: Asked | None, replies: Sequence[Any]) -> Found | None:
        """What the replies say, or None where all must be asked (again).

        Raises:
            UnavailableError: nothing is published, or Redis lost its data.
            InputError: `RELEASE_UNKNOWN` where the release was never published here, `RELEASE_GONE` where Redis keeps
                no version of it any more.
        """
        if asked is None:
            self._asked = self._kept(replies[0], replies[1])
            return None
        if replies[-1] != asked.raw:
            self._asked = None  # removed since, or its head was written anew: look once more
            return None
        self._asked, rows = _with_priors(asked, replies[:-1])
        return Found(self._asked.seen, rows)

    def moving(self) -> UnavailableError:
        where = versions_key(self.table)
        return UnavailableError(
            Problem("STORE_POINTER", where, f"moved {ATTEMPTS} times in one request", "a steady version")
        )

    def _kept(self, live: bytes | None, versions: Sequence[bytes]) -> Asked:
        if live is None:
            raise no_version(self.table)
        newest = readable(live, self.table)
        kept = {head.version: (head, raw) for raw in versions for head in [readable(raw, self.table)]}
        of_release = [version for version, (head, _) in kept.items() if head.release == self.release]
        if of_release:
            head, raw = kept[max(of_release)]
            return _asked(head, raw)
        published = max(head.release for head in (newest, *(head for head, _ in kept.values())))
        code, found = (
            ("RELEASE_UNKNOWN", "no such release")
            if self.release > published
            else ("RELEASE_GONE", "not kept any more")
        )
        expected = ", ".join(sorted({str(head.release) for head, _ in kept.values()}, key=int))
        raise InputError(Problem(code, f"{self.table}: release {self.release}", found, f"one of {expected}"))


def _with_priors(asked: Asked, replies: Sequence[Any]) -> tuple[Asked, Sequence[Any]]:
    """What was asked, with the priors that came where they were asked for too, and the rows alone.

    While there are fewer than the head says, each request asks again: a restoration is putting them back.
    """
    if not asked.with_priors:
        return asked, replies
    priors = _priors(asked.seen.head, replies[-1])
    seen = Seen(asked.seen.head, priors)
    return asked._replace(seen=seen, with_priors=len(priors) < seen.head.priors), replies[:-1]


def _asked(head: Head, raw: bytes) -> Asked:
    return Asked(raw, Seen(head), RowCommands(head), with_priors=head.priors > 0)


def readable(raw: bytes, table: str) -> Head:
    """A head that answers can be made from.

    Raises:
        InputError: it is damaged, of a newer format, or lacks a column that every row has.
    """
    head = read_head(raw, table)
    if missing := sorted(set(ROUTE_COLUMNS) - {column.name for column in head.columns}):
        found = f"no column {', '.join(missing)}"
        raise InputError(Problem("STORE_POINTER_FORMAT", head_key(table), found, "the head that publish writes"))
    return head


def no_version(table: str) -> UnavailableError:
    return UnavailableError(Problem("NO_VERSION", f"table '{table}'", "no version is published", "a published release"))


def check_ids(ids: Sequence[str]) -> None:
    """Refuse what no entity can be called: what cannot be sent would take the lookups beside it along.

    Raises:
        InputError: one of them is that.
    """
    if found := first_id_problem(ids):
        position, why = found
        raise InputError(Problem("ENTITY_ID", f"ids[{position}]", why, "an entity id of docs/lookup.md"))


def _priors(head: Head, reply: Any) -> Mapping[str, bytes]:
    """An HGETALL reply as field -> row: redis-py makes a dict of it, the bare protocol an array."""
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    try:
        return {field.decode(): value for field, value in pairs}
    except UnicodeDecodeError as err:
        found = f"a field that is not UTF-8: {err.object[:40].hex()}"
        raise RowDecodeError(
            Problem("ROW_DECODE", priors_key(head.table, head.version), found, "the fields that publish writes")
        ) from err
