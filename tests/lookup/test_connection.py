"""The bare connection to Redis when its server hangs, goes or refuses it, in the very tick in which more is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest

from lookup.connect import address_of, connect
from lookup.resp import Connection, Request
from schemas.errors import AlmanacError

Outcome = list[Any] | AlmanacError


@asynccontextmanager
async def _server(replies: list[bytes]) -> AsyncIterator[Connection]:
    """A connection to a server that answers each of its connections, in turn, with these bytes; with none it hangs."""
    writers: list[asyncio.StreamWriter] = []
    tasks: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.append(cast("asyncio.Task[None]", asyncio.current_task()))
        answer = replies[len(writers) - 1]
        with suppress(ConnectionError):
            while await reader.read(65536):
                writer.write(answer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = Connection(address_of(f"redis://127.0.0.1:{port}/0"), timeout_seconds=0.2)
    yield connection
    connection.close()
    server.close()
    for writer in writers:
        writer.close()
    await asyncio.gather(*tasks)


def _asked(connection: Connection) -> "asyncio.Future[Outcome]":
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    connection.send(Request([("PING",)], told.set_result))
    return told


async def _sent_at_once_after_a_hang(replies: list[bytes]) -> list[Outcome]:
    async with _server(replies) as connection:
        second: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        first: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def again(outcome: Outcome) -> None:
            first.set_result(outcome)
            connection.send(Request([("PING",)], second.set_result))

        connection.send(Request([("PING",)], again))
        return [await first, await second]


def test_what_is_sent_when_a_hung_connection_is_dropped_goes_over_the_next_one() -> None:
    hung, answered = asyncio.run(_sent_at_once_after_a_hang([b"", b"+PONG\r\n"]))

    assert isinstance(hung, AlmanacError)
    assert hung.problems[0].code == "STORE_TIMEOUT"
    assert answered == [b"PONG"]


async def _sent_at_once_after_no_connect() -> list[Outcome]:
    async with _server([b"+PONG\r\n"]) as connection:
        waiting = _asked(connection)
        connection.close()  # while it connects
        return [await waiting, await _asked(connection)]


def test_what_is_sent_when_connecting_was_given_up_connects_again() -> None:
    dropped, answered = asyncio.run(_sent_at_once_after_no_connect())

    assert isinstance(dropped, AlmanacError)
    assert dropped.problems[0].code == "STORE_DOWN"
    assert answered == [b"PONG"]


async def _told_behind_a_refused_handshake(url: str) -> list[Outcome]:
    told: list[Outcome] = []
    connection = Connection(address_of(url))
    connection.send(Request([("PING",)], told.append), Request([("PING",), ("PING",)], told.append))
    while not told:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    connection.close()
    return told


@pytest.mark.parametrize(("database", "user", "code"), [("99", "", "STORE_ERROR"), ("0", "other:wrong@", "STORE_AUTH")])
def test_replies_behind_a_refused_handshake_are_nobodys(own_redis: Any, database: str, user: str, code: str) -> None:
    # Whoever may connect without a password is answered all the same, of database 0.
    store = own_redis()
    with connect(store.url) as client:
        client.execute_command("ACL", "SETUSER", "other", "on", ">secret")
    url = f"redis://{user}127.0.0.1:{store.port}/{database}"

    told = asyncio.run(_told_behind_a_refused_handshake(url))

    assert [outcome.problems[0].code for outcome in told if isinstance(outcome, AlmanacError)] == [code, code]
    assert len(told) == 2
