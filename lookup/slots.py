"""Which node of a Redis Cluster holds which key."""

import binascii
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from lookup.connect import Address
from schemas.errors import Problem, UnavailableError

SLOTS = 16_384


def slot_of(key: bytes) -> int:
    """CRC-16 (XMODEM) of the key, or of what its first braces enclose, modulo 16384.

    >>> slot_of(b"almanac:{flights}:head") == slot_of(b"almanac:{flights}:versions")
    True
    """
    start = key.find(b"{")
    if start >= 0 and (end := key.find(b"}", start + 1)) > start + 1:
        key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % SLOTS


class SlotMap:
    """The masters of a cluster, and the slots of each."""

    def __init__(self, reply: Iterable[Any], entry: Address) -> None:
        """What `CLUSTER SLOTS` answered to the node `entry`.

        Raises:
            UnavailableError: a slot is served by nobody.
        """
        self.masters: list[Address] = []
        self._owners = np.full(SLOTS, -1, np.int16)
        for first, last, master, *_ in reply:
            host, port = (master[0] or entry.host.encode()).decode(), int(master[1])
            address = entry._replace(host=host, port=port, path=None)
            if address not in self.masters:
                self.masters.append(address)
            self._owners[int(first) : int(last) + 1] = self.masters.index(address)
        if (unserved := np.flatnonzero(self._owners < 0)).size:
            found = f"slots {unserved[0]} to {unserved[-1]} are served by nobody"
            raise UnavailableError(Problem("STORE_PARTIAL", repr(entry), found, "a whole cluster"))

    def owner(self, key: bytes) -> Address:
        return self.masters[int(self._owners[slot_of(key)])]

    def owners(self, keys: Iterable[bytes]) -> npt.NDArray[np.int16]:
        """The position in `masters` of each key's node."""
        return self._owners[np.fromiter(map(slot_of, keys), np.int64)]

    def shares(self) -> list[float]:
        """The part of all slots that each master has."""
        counts = np.bincount(self._owners, minlength=len(self.masters))
        return [int(count) / SLOTS for count in counts]
