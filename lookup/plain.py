"""The JSON of many plain rows' answers at once: the bytes that encoding one answer after the other would give."""

import struct
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

import msgspec

from schemas.answer import Answer, Status
from schemas.head import Head
from schemas.row import PlainDecoder
from schemas.run import ROUTE_COLUMNS, SCORED

_encode = msgspec.json.Encoder().encode
_BEGIN = b'{"id":"'


class PlainAnswers:
    """Answers of one version whose rows are plain, scored in its run, and of one status.

    A batch of a hundred ids is mostly the making of a hundred answers: as objects, they take four times as long.
    """

    def __init__(self, head: Head, plain: PlainDecoder, route: tuple[int, int, int], outputs: Sequence[str]) -> None:
        self._head, self._plain = head, plain
        self._model, self._variant, self._how = route
        self._outputs = [_encode(name) for name in outputs]
        self._names = tuple(outputs)
        self._unpack = struct.Struct(f"{plain.layout}{plain.enums}s").iter_unpack
        self._ends: dict[tuple[str, ...], bytes] = {}
        self._ends_of: tuple[Status, float | None] | None = None

    def one(self, entity: str, row: bytes, status: Status, age: float | None) -> bytes | None:
        """The answer of one; None where it is of another kind."""
        if (plain := self._plain(row)) is None or (end := self._end(plain.choices, status, age)) is None:
            return None
        outputs = _encode(dict(zip(self._names, plain.numbers, strict=True)))[:-1]
        return b'{"id":%b,"status":"%b","outputs":%b%b' % (_encode(entity), status.encode(), outputs, end)

    def many(self, ids: Sequence[str], rows: Sequence[bytes | None], status: Status, age: float | None) -> bytes | None:
        """The answers, with commas between them; None where one of them is of another kind."""
        count = len(rows)
        if None in rows or set(map(len, rows)) != {self._plain.size}:  # type: ignore[arg-type]
            return None
        data = b"".join(rows)  # type: ignore[arg-type]
        if not self._plain.are_tagged(data, count):
            return None
        *numbers, routes = zip(*self._unpack(data), strict=True)
        ends: dict[Any, bytes] = {}
        for route in set(routes):
            choices = self._plain.choices(route)
            if choices is None or (end := self._end(choices, status, age)) is None:
                return None
            ends[route] = end + b"," + _BEGIN
        names = [b'","status":"%b","outputs":{%b:' % (status.encode(), self._outputs[0])]
        names += [b",%b:" % name for name in self._outputs[1:]]
        parts: list[Any] = [_inside(ids)]
        for name, values in zip(names, numbers, strict=True):
            parts += (repeat(name, count), _encode(values)[1:-1].split(b","))
        parts.append(map(ends.__getitem__, routes))
        return _BEGIN + b"".join(chain.from_iterable(zip(*parts, strict=True)))[: -len(_BEGIN) - 1]

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
