"""A connection that sends millions of ready-made commands, and reads the replies as it goes."""

import select
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, cast

import hiredis

from lookup.connect import CONNECT_SECONDS, PUBLISH_SECONDS, Address, connection_error, reply_error

_SLICE_BYTES = 1 << 18
_READ_BYTES = 1 << 16


class Wire:
    """One blocking connection to one server.

    What is sent goes in slices, and the replies that have come are read between them: neither side then holds more
    than a slice's worth of the other's.
    """

    def __init__(self, address: Address, *, timeout_seconds: float = PUBLISH_SECONDS) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._replies = hiredis.Reader()

    def __enter__(self) -> Self:
        try:
            self._socket = self._connect()
        except OSError as err:
            raise connection_error(repr(self._address), err) from err
        try:
            for command in self._address.handshake:
                self.ask(*command)
        except BaseException:  # who cannot enter does not leave either
            self._socket.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, *command: str | bytes | int) -> Any:
        """The reply to one command.

        Raises:
            AlmanacError: it is an error, or none came.
        """
        reply: list[Any] = []
        self._send(hiredis.pack_command(cast("Any", command)), 1, reply)
        return reply[0]

    def ask_all(self, commands: Sequence[bytes]) -> list[Any]:
        """The replies to commands that are packed already.

        Raises:
            AlmanacError: one is an error, or they did not come.
        """
        replies: list[Any] = []
        self._send(b"".join(commands), len(commands), replies)
        return replies

    def send(self, commands: Any, count: int) -> None:
        """Send so many commands, already packed, and see that none is answered with an error.

        Args:
            commands: Packed, one behind the other.
            count: How many there are.

        Raises:
            AlmanacError: for the first error; all replies were read.
        """
        self._send(commands, count, None)

    def _send(self, data: Any, count: int, kept: list[Any] | None) -> None:
        view = memoryview(data)
        first: str | None = None
        try:
            for start in range(0, len(view), _SLICE_BYTES):
                self._socket.sendall(view[start : start + _SLICE_BYTES])
                while count and self._has_come():
                    count, first = self._read(count, kept, first)
            while count:
                count, first = self._read(count, kept, first)
        except OSError as err:
            raise connection_error(repr(self._address), err) from err
        if first is not None:
            raise reply_error(repr(self._address), first)

    def _has_come(self) -> bool:
        pending = getattr(self._socket, "pending", None)  # of a TLS connection: read from the socket, not yet from it
        return bool(pending and pending()) or bool(select.select([self._socket], [], [], 0)[0])

    def _read(self, count: int, kept: list[Any] | None, first: str | None) -> tuple[int, str | None]:
        """Read what is there; how many replies are still to come, and the first error."""
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the connection was closed")
        self._replies.feed(data)
        while count and (reply := self._replies.gets()) is not False:
            count -= 1
            if isinstance(reply, hiredis.ReplyError):
                first = first or str(reply)
            elif kept is not None:
                kept.append(reply)
        return count, first

    def _connect(self) -> socket.socket:
        address = self._address
        if address.path is not None:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(CONNECT_SECONDS)
            try:
                plain.connect(address.path)
            except OSError:
                plain.close()
                raise
        else:
            plain = socket.create_connection((address.host, address.port), timeout=CONNECT_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = address.context
        connection = plain if context is None else context.wrap_socket(plain, server_hostname=address.host)
        connection.settimeout(self._timeout_seconds)
        return connection


def packed(*command: str | bytes | int) -> bytes:
    """One command as it goes over the wire."""
    return cast("bytes", hiredis.pack_command(cast("Any", command)))
