"""Rows of a version that a test writes down itself."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from lookup.loader import Loaded
from lookup.rows import Chunk, Part, Row
from schemas.head import Head
from schemas.keys import bucket_of


class GivenPart:
    """Some of them, as a file of them would be read."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = list(rows)

    def read(self) -> Chunk:
        ids = pa.array([row.entity.encode() for row in self._rows], pa.binary())
        return Chunk(ids, pa.array([row.value for row in self._rows], pa.binary()))

    def pieces(self, rows: int) -> Iterator[Chunk]:
        whole = self.read()
        for start in range(0, len(whole.ids), rows):
            yield whole.slice(start, rows)

    def ends(self) -> tuple[str, str] | None:
        return (self._rows[0].entity, self._rows[-1].entity) if self._rows else None


class InterruptedPart(GivenPart):
    """The same, and something happens before they are read."""

    def __init__(self, rows: Iterable[Row], happens: Callable[[], object]) -> None:
        super().__init__(rows)
        self._happens = happens

    def read(self) -> Chunk:
        self._happens()
        return super().read()


def halves(head: Head, rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    """The rows in two, cut between two buckets."""
    half = next(
        index
        for index in range(len(rows) // 2, len(rows))
        if bucket_of(rows[index].entity, head.buckets) != bucket_of(rows[index - 1].entity, head.buckets)
    )
    return rows[:half], rows[half:]


class GivenRows(list[Row]):
    """The rows, in one part unless `cuts` says where others begin."""

    def __init__(
        self, rows: Iterable[Row], *, cuts: Iterable[int] = (), priors: dict[str, bytes] | None = None
    ) -> None:
        super().__init__(rows)
        self.priors = priors or {}
        bounds = [0, *cuts, len(self)]
        self.parts: list[Part] = [GivenPart(self[a:b]) for a, b in pairwise(bounds)]


def in_order(head: Head, rows: Iterable[Row], **options: Any) -> GivenRows:
    """The rows in the order in which the store's files have them."""
    return GivenRows(
        sorted(rows, key=lambda row: (bucket_of(row.entity, head.buckets), row.entity.encode())), **options
    )


def one_by_one(load: Callable[[Part], Loaded], parts: Sequence[Part]) -> list[Loaded]:
    """Loads part after part, so that what happens between them does."""
    return [load(part) for part in parts]
