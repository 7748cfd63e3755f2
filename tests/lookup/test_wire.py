"""A connection that sends while it reads: against real servers."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from lookup.connect import address_of
from lookup.embedded import free_port
from lookup.wire import Wire, packed
from schemas.errors import DeclarationError, InputError, UnavailableError


@pytest.fixture
def wire(redis_url: str) -> Iterator[Wire]:
    with Wire(address_of(redis_url), timeout_seconds=5) as opened:
        yield opened


def test_a_command_is_answered_and_so_is_the_one_after_an_error(wire: Wire) -> None:
    wire.ask("RPUSH", "list", "theirs")

    with pytest.raises(InputError, match=r"another program wrote under this one \[STORE_TYPE\]"):
        wire.ask("GET", "list")

    assert wire.ask("LLEN", "list") == 1


def test_replies_come_in_the_order_of_the_commands(wire: Wire) -> None:
    assert wire.ask_all([packed("ECHO", number) for number in range(5000)]) == [b"%d" % n for n in range(5000)]


def test_the_first_error_is_told_once_all_replies_were_read(wire: Wire, redis_client: redis.Redis) -> None:
    commands = packed("SET", "a", 1) + packed("LPUSH", "a", 1) + packed("NO-SUCH") + packed("SET", "b", 2)

    with pytest.raises(InputError, match="STORE_TYPE"):
        wire.send(commands, 4)

    assert redis_client.mget("a", "b") == [b"1", b"2"]
    assert wire.ask("PING") == b"PONG"


def test_more_goes_both_ways_at_once_than_any_socket_holds(wire: Wire) -> None:
    """Each side would wait for the other for ever, if it did not read while it sends."""
    big = b"x" * 100_000

    replies = wire.ask_all([packed("ECHO", big)] * 400)

    assert len(replies) == 400
    assert set(replies) == {big}


def test_nobody_at_the_address_is_told() -> None:
    with pytest.raises(UnavailableError, match=r"expected a Redis that answers \[STORE_DOWN\]"):
        Wire(address_of(f"redis://127.0.0.1:{free_port()}/0")).__enter__()


def test_a_password_is_sent_and_a_wrong_one_is_not_shown(own_redis: Callable[..., Any]) -> None:
    url = own_redis("--requirepass", "s3cret").url
    with Wire(address_of(url.replace("//", "//:s3cret@").replace("/0", "/3"))) as wire:
        assert b"db=3" in wire.ask("CLIENT", "LIST")

    with pytest.raises(DeclarationError, match="STORE_AUTH") as error:
        Wire(address_of(url.replace("//", "//:wr0ng@"))).__enter__()

    assert "wr0ng" not in str(error.value)


def test_a_server_that_dies_while_it_is_sent_to_is_told(own_redis: Callable[..., Any]) -> None:
    server = own_redis()
    with Wire(address_of(server.url), timeout_seconds=5) as wire:
        killer = threading.Timer(0.1, server.kill)
        killer.start()
        with pytest.raises(UnavailableError, match="STORE_DOWN"):  # noqa: PT012  # until it dies
            while True:
                wire.send(packed("SET", "k", "v" * 1000) * 200, 200)
        killer.join()
