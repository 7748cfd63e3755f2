"""The JSON of many plain rows' answers at once: the bytes that encoding one answer after the other would give."""

import struct
from collections.abc import Sequence
from itertools import chain

import msgspec

from schemas.answer import Answer, Status
from schemas.head import Head
from schemas.row import PlainDecoder
from schemas.run import ROUTE_COLUMNS, SCORED

_encode = msgspec.json.Encoder().encode
_BEGIN = b'{"id":"'
_BETWEEN = b"," + _BEGIN
_BLOCK = 16  # rows, unpacked together


class PlainAnswers:
    """Answers of one version whose rows are plain, scored in its run, and of one status.

    A batch of a hundred ids is mostly the making of a hundred answers: as objects, they take four times as long.
    """

    def __init__(self, head: Head, plain: PlainDecoder, route: tuple[int, int, int], outputs: Sequence[str]) -> None:
        self._head, self._plain = head, plain
        self._model, self._variant, self._how = route
        self._outputs = [_encode(name) for name in outputs]
        order, row = plain.layout[:1], f"{plain.layout[1:]}{plain.enums}s"
        self._unpack_block = struct.Struct(order + row * _BLOCK).iter_unpack
        self._unpack = struct.Struct(order + row).iter_unpack
        self._ends: dict[tuple[str, ...], bytes] = {}
        self._ends_of: tuple[Status, float | None] | None = None

    def each(
        self, ids: Sequence[str], rows: Sequence[bytes | None], status: Status, age: float | None
    ) -> list[bytes | None]:
        """Each answer by itself; None where it is of another kind."""
        plain = [at for at, row in enumerate(rows) if row is not None and len(row) == self._plain.size]
        if len(plain) < len(rows):
            found: list[bytes | None] = [None] * len(rows)
            of_plain = self.each([ids[at] for at in plain], [rows[at] for at in plain], status, age) if plain else []
            for at, answer in zip(plain, of_plain, strict=True):
                found[at] = answer
            return found
        if (pieces := self._pieces(ids, rows, status, age)) is None:
            if len(rows) == 1:
                return [None]
            return [self.each([entity], [row], status, age)[0] for entity, row in zip(ids, rows, strict=True)]
        begun, routes, ends = pieces
        return [
            None if (end := ends[route]) is None else _BEGIN + beginning + end
            for beginning, route in zip(begun, routes, strict=True)
        ]

    def many(
        self,
        ids: Sequence[str],
        rows: Sequence[bytes | None],
        status: Status,
        age: float | None,
        around: tuple[bytes, bytes] = (b"", b""),
    ) -> bytes | None:
        """The answers, with commas between them and `around` them; None where one of them is of another kind."""
        if None in rows or set(map(len, rows)) != {self._plain.size}:  # type: ignore[arg-type]
            return None
        if (pieces := self._pieces(ids, rows, status, age)) is None:
            return None
        begun, routes, found = pieces
        ends = {route: end for route, end in found.items() if end is not None}
        if len(ends) < len(found):
            return None
        if len(ends) == 1:  # nearly always
            (end,) = ends.values()
            between = end + _BETWEEN
        else:
            begun = [beginning + ends[route] for beginning, route in zip(begun, routes, strict=True)]
            end, between = b"", _BETWEEN
        # Here, where it is a few bytes: what comes of it is copied once.
        begun[0] = around[0] + _BEGIN + begun[0]
        begun[-1] += end + around[1]
        return between.join(begun)

    def _pieces(
        self, ids: Sequence[str], rows: Sequence[bytes | None], status: Status, age: float | None
    ) -> tuple[list[bytes], Sequence[bytes], dict[bytes, bytes | None]] | None:
        """Of rows that all have the size of plain ones, what stands between the beginning of each answer and the end of
        its outputs, its route, and what follows the outputs of a route: None where that is of another kind. None where
        a row is not of these columns.
        """
        data = b"".join(rows)  # type: ignore[arg-type]
        if not self._plain.are_tagged(data, len(rows)):
            return None
        whole = len(rows) // _BLOCK * _BLOCK * self._plain.size
        values = list(chain.from_iterable(chain(self._unpack_block(data[:whole]), self._unpack(data[whole:]))))
        step = 1 + len(self._outputs)
        routes = values[step - 1 :: step]
        ends: dict[bytes, bytes | None] = {}
        for route in set(routes):
            choices = self._plain.choices(route)
            ends[route] = None if choices is None else self._end(choices, status, age)
        begun, before = _inside(ids), b'","status":"%b","outputs":{' % status.encode()
        for at, name in enumerate(self._outputs):
            between = b"%b%b:" % (before, name)
            begun = list(map(between.join, zip(begun, _encode(values[at::step])[1:-1].split(b","), strict=True)))
            before = b","
        return begun, routes, ends

    def _end(self, choices: tuple[str, ...], status: Status, age: float | None) -> bytes | None:
        """What follows the outputs; None where the row is not one that was scored.

        Kept for as long as the age is the same: in a millisecond there are dozens of answers.
        """
        if self._ends_of != (status, age):
            self._ends, self._ends_of = {}, (status, age)
        if (known := self._ends.get(choices)) is None:
            if choices[self._how] != SCORED:
                return None
            answer = Answer(
                id="", status=status, outputs={}, release=self._head.release, model=choices[self._model],
                variant=choices[self._variant], scored_at=self._head.scored_at, age_seconds=age,
            )  # fmt: skip
            known = self._ends[choices] = _encode(answer).partition(b'"outputs":{')[2]
        return known


def _inside(ids: Sequence[str]) -> list[bytes]:
    """The ids as JSON has them, without their quotes."""
    encoded = _encode(ids)
    if b"\\" in encoded:  # behind an id that ends in `",`, what stands between two is not the first `","`
        return [_encode(entity)[1:-1] for entity in ids]
    return encoded[2:-2].split(b'","')


def route_positions(names: Sequence[str]) -> tuple[int, int, int] | None:
    """Where model, variant and status stand among the enums of a row; None where one does not."""
    if any(name not in names for name in ROUTE_COLUMNS):
        return None
    model, variant, how = (names.index(name) for name in ROUTE_COLUMNS)
    return model, variant, how
