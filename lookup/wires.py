"""Connections for bulk work: to one Redis, or to every master of a cluster."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookup.connect import Address
from lookup.rows import flat
from lookup.slots import SlotMap
from lookup.wire import Wire, packed
from schemas.errors import Problem, UnavailableError

_WAIT_SECONDS = 10


class Wires:
    """Connections to a Redis, or to all masters of a cluster."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._slots: SlotMap | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            first = stack.enter_context(Wire(self._address))
            if self._address.is_cluster:
                self._slots = SlotMap(first.ask("CLUSTER", "SLOTS"), self._address)
                self._wires = [stack.enter_context(Wire(master)) for master in self._slots.masters]
            else:
                self._wires = [first]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.close()

    def of(self, key: str) -> Wire:
        """The connection to the node that holds a key."""
        return self._wires[self._slots.owners([key.encode()])[0] if self._slots else 0]

    def info(self, *sections: str) -> list[dict[str, str]]:
        """What each server says of itself; sections are asked one by one, as Redis 6 takes no more."""
        found = []
        for wire in self._wires:
            lines = [line for section in sections for line in wire.ask("INFO", section).decode().splitlines()]
            found.append(dict(line.split(":", 1) for line in lines if ":" in line))
        return found

    def owners(self, keys: Sequence[bytes]) -> npt.NDArray[np.int16]:
        """The position of each key's server among those that `info` tells of."""
        return self._slots.owners(keys) if self._slots else np.zeros(len(keys), np.int16)

    def shares(self) -> list[float]:
        """The part of all keys that each server has, as its slots say; in the order of `info`."""
        return self._slots.shares() if self._slots else [1.0]

    def send(self, keys: Sequence[bytes], commands: Any, replies: int = 1) -> None:
        """Send commands for each key.

        Args:
            keys: Where each goes.
            commands: Binary array, packed, those for one key together.
            replies: How many they have for each key.
        """
        if self._slots is None:
            self._wires[0].send(_joined(commands), len(keys) * replies)
            return
        owners = self._slots.owners(keys)
        for position, wire in enumerate(self._wires):
            mask = owners == position
            if mask.any():
                count = int(mask.sum()) * replies
                wire.send(_joined(commands.filter(pa.array(mask))), count)

    def ask(self, keys: Sequence[bytes], commands: Sequence[bytes]) -> list[Any]:
        """The replies to one command for each key, in their order.

        Args:
            keys: Where each goes.
            commands: Packed, one each.

        Raises:
            AlmanacError: one is an error.
        """
        if self._slots is None:
            return self._wires[0].ask_all(commands)
        owners, replies = self._slots.owners(keys), [None] * len(keys)
        for position, wire in enumerate(self._wires):
            mine = np.flatnonzero(owners == position).tolist()
            for index, reply in zip(mine, wire.ask_all([commands[index] for index in mine]), strict=True):
                replies[index] = reply
        return replies

    def unlink(self, keys: Sequence[bytes]) -> None:
        """Remove these keys; each master is told of its own in one write."""
        if self._slots is None:
            self._wires[0].ask("UNLINK", *keys)
        else:  # a command may name keys of one slot only
            self.ask(keys, [packed("UNLINK", key) for key in keys])

    def wait(self, replicas: int) -> None:
        """Wait until so many replicas of each node have what was sent.

        Raises:
            UnavailableError: fewer have it after some seconds.
        """
        for wire in self._wires if replicas else ():
            if (found := wire.ask("WAIT", replicas, _WAIT_SECONDS * 1000)) < replicas:
                what = f"{found} replicas have the rows after {_WAIT_SECONDS} s"
                raise UnavailableError(Problem("STORE_REPLICAS", repr(self._address), what, f"{replicas}"))


def _joined(commands: Any) -> Any:
    data, offsets = flat(commands)
    return data[offsets[0] : offsets[-1]]
