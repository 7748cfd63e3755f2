"""What a Redis that is away, hung, locked or of another kind is answered with."""

import os
import signal
import time
from typing import Any

import pytest
import redis

from lookup.connect import address_of, connect, redis_errors
from lookup.embedded import free_port
from lookup.table import RedisTable
from schemas.errors import DeclarationError, InputError, Problem, UnavailableError
from schemas.keys import bucket_key


def _ask(url: str, **options: Any) -> None:
    with connect(url, **options) as client:
        RedisTable(client, "flights").head()


def test_nobody_at_the_address_is_told_within_bounded_time() -> None:
    started = time.monotonic()

    with pytest.raises(UnavailableError, match=r"table 'flights': .*expected a Redis that answers \[STORE_DOWN\]"):
        _ask(f"redis://127.0.0.1:{free_port()}/0")

    assert time.monotonic() - started < 10


def test_a_cluster_that_is_away_is_told() -> None:
    with pytest.raises(UnavailableError, match="STORE_DOWN"):
        connect("redis+cluster://127.0.0.1:1")


def test_a_host_that_does_not_exist_is_told() -> None:
    with pytest.raises(UnavailableError, match=r"STORE_DOWN|STORE_TIMEOUT"):
        _ask("redis://no-such-host.invalid:6379/0")


def test_a_server_that_hangs_is_told_within_the_time_given(own_redis: Any) -> None:
    server = own_redis()
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(UnavailableError, match=r"expected an answer in time \[STORE_TIMEOUT\]"):
            _ask(server.url, timeout_seconds=0.2)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def test_a_server_that_dies_between_two_requests_is_told(own_redis: Any) -> None:
    server = own_redis()
    with connect(server.url) as client:
        table = RedisTable(client, "flights")
        table.head()
        server.kill()

        with pytest.raises(UnavailableError, match="STORE_DOWN"):
            table.head()


@pytest.mark.parametrize("credentials", ["", ":wr0ng@", "nobody:wr0ng@"])
def test_a_wrong_or_missing_password_is_told_and_never_shown(own_redis: Any, credentials: str) -> None:
    server = own_redis("--requirepass", "s3cret")

    with pytest.raises(
        DeclarationError, match=r"expected a user and password that Redis takes \[STORE_AUTH\]"
    ) as error:
        _ask(server.url.replace("//", f"//{credentials}"))

    assert "wr0ng" not in str(error.value)
    assert "s3cret" not in str(error.value)


def test_the_right_password_is_taken(own_redis: Any) -> None:
    _ask(own_redis("--requirepass", "s3cret").url.replace("//", "//:s3cret@"))


def test_a_user_without_the_rights_is_told(own_redis: Any) -> None:
    server = own_redis()
    with connect(server.url) as client:
        client.acl_setuser("reader", enabled=True, passwords=["+s3cret"], categories=["-@all"], commands=["+hget"])

    with pytest.raises(DeclarationError, match="STORE_ACL") as error:
        _ask(server.url.replace("//", "//reader:s3cret@"))

    assert "s3cret" not in str(error.value)


def test_a_cluster_node_is_told(own_redis: Any) -> None:
    with pytest.raises((DeclarationError, UnavailableError), match=r"\[STORE_(IS_CLUSTER|PARTIAL)\]"):
        _ask(own_redis("--cluster-enabled", "yes", "--appendonly", "no").url)


def test_an_error_that_has_no_name_here_is_told_with_its_own_words(redis_client: redis.Redis) -> None:
    with (
        pytest.raises(UnavailableError, match=r"asking: ResponseError: unknown command.*STORE_ERROR"),
        redis_errors("asking"),
    ):
        redis_client.execute_command("NO-SUCH-COMMAND")


def test_an_error_of_ours_passes_as_it_is() -> None:
    ours = InputError(Problem("ROW_ORDER", "here", "an id twice"))

    with pytest.raises(InputError) as error, redis_errors("asking"):
        raise ours

    assert error.value is ours


def test_an_error_of_the_network_is_told() -> None:
    with (
        pytest.raises(UnavailableError, match=r"asking: no route; expected a Redis that answers \[STORE_DOWN\]"),
        redis_errors("asking"),
    ):
        raise OSError("no route")


def test_a_failed_pipeline_shows_neither_an_entity_id_nor_a_row(redis_client: redis.Redis) -> None:
    redis_client.set(bucket_key("flights", 1, 0), "theirs")

    with pytest.raises(InputError, match="STORE_TYPE") as error, redis_errors("loading"):
        redis_client.pipeline(transaction=False).hset(bucket_key("flights", 1, 0), "UA:1", "row").execute()

    assert "UA:1" not in str(error.value)


@pytest.mark.parametrize("make", [connect, address_of])
@pytest.mark.parametrize(
    "url",
    ["localhost:6379", "http://127.0.0.1", "redis://:p4/ss@127.0.0.1:6379/0", "redis://h:1/0?socket_timeout=soon", ""],
)
def test_a_url_that_is_none_is_told_without_its_password(make: Any, url: str) -> None:
    with pytest.raises(DeclarationError, match=r"ALMANAC_REDIS_URL: .*expected redis://.*\[CFG_REDIS_URL\]") as error:
        make(url)

    assert "p4" not in error.value.problems[0].found


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:12/s3cret@127.0.0.1:6379/0",
        "redis://:12?s3cret@127.0.0.1",
        "redis://:12#s3cret@127.0.0.1",
        "redis://:[s3cret@127.0.0.1",
        "redis://:s3cret\u2100@127.0.0.1:6379/0",
        "unix://:1/s3cret@/run/redis.sock",
    ],
)
def test_a_password_that_was_not_escaped_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(DeclarationError, match="CFG_REDIS_URL") as error:
        connect(url)

    assert "s3cret" not in str(error.value)
    assert "12" not in str(error.value).replace("127", "")


@pytest.mark.parametrize("url", ["unix:///run/redis@1.sock", "redis://h:1/0?password=p@ss", "redis://:p@ss@h:1/0"])
def test_a_url_with_an_at_in_its_place_is_taken(url: str) -> None:
    connect(url).close()
