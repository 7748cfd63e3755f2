"""Least rights, TLS, secrets that are shown nowhere, and keys that no name can reach: on real servers."""

import asyncio
import datetime as dt
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from lookup.acl import PUBLISHER, User, publisher, reader
from lookup.coalesce import AsyncReader, Lookups
from lookup.connect import Client, address_of, connect, redis_errors
from lookup.embedded import free_port
from lookup.publisher import Outcome, Publisher
from lookup.reader import Reader
from lookup.resp import Connection
from lookup.table import RedisTable
from schemas.answer import Answer
from schemas.errors import AlmanacError, DeclarationError, UnavailableError
from schemas.head import Head
from schemas.keys import bucket_key, bucket_of, head_key, id_problem, priors_key, row_key, versions_key
from schemas.strict import NAME_PATTERN
from tests.redis_servers import PASSWORD, Certificates, has_tls, make_certificates, make_user, programs

PROGRAMS = programs()
MONDAY, TUESDAY, WEDNESDAY = (dt.date(2013, 7, day) for day in (1, 2, 3))
ENTITY = "UA:1"


class Guarded(NamedTuple):
    """A server with the users that `almanac acl` prints, and one version of `flights` and of `trains`."""

    url: str
    reader_url: str
    publisher_url: str
    flights_url: str


@pytest.fixture(params=sorted(PROGRAMS))
def guarded(request: pytest.FixtureRequest, own_redis: Any, put_version: Any) -> Guarded:
    is_6 = request.param.startswith("redis-6")
    # Redis 7 refuses DEBUG to everybody unless told otherwise: here the rights alone shall refuse it.
    options = [] if is_6 else ["--enable-debug-command", "yes"]
    url = own_redis(*options, program=PROGRAMS[request.param]).url
    with connect(url) as client:
        for table in ("flights", "trains"):
            head = put_version(client, 1, {ENTITY: 0.25}, table)
            client.hset(versions_key(table), str(head.version), head.model_dump_json())
        client.set("session:1", "another program's")
    return Guarded(
        url,
        make_user(url, reader(redis_6=is_6)),
        make_user(url, publisher()),
        make_user(url, reader("flights", redis_6=is_6)),
    )


def ask(url: str, *, release: int | None = None, table: str = "flights") -> Answer:
    with connect(url) as client:
        return Reader(client, table).lookup([ENTITY], release=release)[1][0]


async def ask_async(url: str) -> Answer:
    connection = Connection(address_of(url), timeout_seconds=2)
    lookups = Lookups(connection)
    try:
        return (await AsyncReader(lookups, "flights").lookup([ENTITY]))[1][0]
    finally:
        lookups.close()


@pytest.mark.parametrize("release", [None, 1])
def test_the_reader_reads_the_live_release_and_a_named_one(guarded: Guarded, release: int | None) -> None:
    assert ask(guarded.reader_url, release=release).outputs == {"score": 0.25}


def test_the_reader_reads_rows_that_have_keys_of_their_own_and_priors(guarded: Guarded, put_version: Any) -> None:
    with connect(guarded.url) as client:
        rows: Head = put_version(client, 2, {ENTITY: 0.5})
        row = client.hget(bucket_key("flights", rows.version, bucket_of(ENTITY, rows.buckets)), ENTITY)
        head = rows.model_copy(update={"layout": "string", "format": 2, "priors": 1, "version": 77})
        client.set(row_key("flights", 77, ENTITY), row)
        client.hset(priors_key("flights", 77), "0:DL", row)
        client.set(head_key("flights"), head.model_dump_json())

    assert ask(guarded.reader_url).outputs == {"score": 0.5}
    assert asyncio.run(ask_async(guarded.reader_url)).outputs == {"score": 0.5}


def test_the_reader_may_use_another_database(guarded: Guarded, put_version: Any) -> None:
    with connect(guarded.url.replace("/0", "/3")) as client:
        put_version(client, 1, {ENTITY: 0.75})

    assert ask(guarded.reader_url.replace("/0", "/3")).outputs == {"score": 0.75}


def test_the_api_serves_as_the_reader(guarded: Guarded, run_server: Any, tmp_path: Path) -> None:
    with run_server(tmp_path, guarded.reader_url, ["flights"]) as server:
        assert server.ask("GET", f"/v1/flights/{ENTITY}").json["outputs"] == {"score": 0.25}


_BUCKET = bucket_key("flights", 11, 0)
_ADMIN = [
    "FLUSHALL", "FLUSHDB", "SCAN 0", "KEYS *", "RANDOMKEY", "CONFIG GET requirepass", "CONFIG SET maxmemory 1",
    "DEBUG SLEEP 0", "ACL LIST", "ACL SETUSER default on nopass", "SHUTDOWN NOSAVE", "SWAPDB 0 1", "MONITOR",
    "REPLICAOF 127.0.0.1 1", "CLIENT KILL TYPE normal", "CLUSTER RESET", "SCRIPT FLUSH", "PUBLISH almanac x",
    "SUBSCRIBE almanac", "MODULE LIST", "SAVE", "SORT session:1", f"RENAME {head_key('flights')} x",
    f"COPY {head_key('flights')} x", "GET session:1", "SET session:1 x", "DEL session:1",
]  # fmt: skip
_WRITES = [
    f"SET {head_key('flights')} x", f"SET {row_key('flights', 11, ENTITY)} x", f"HSET {_BUCKET} a b",
    f"HDEL {_BUCKET} {ENTITY}", f"DEL {_BUCKET}", f"UNLINK {_BUCKET}", f"EXPIRE {_BUCKET} 1",
    f"RESTORE {_BUCKET} 0 x REPLACE", f"DUMP {_BUCKET}", f"HSCAN {_BUCKET} 0", f"APPEND {head_key('flights')} x",
    f"GETDEL {head_key('flights')}", f"GETEX {head_key('flights')} EX 1", f"INCR {row_key('flights', 11, 'n')}",
]  # fmt: skip


def refused(client: Client, command: str) -> bool:
    try:
        client.execute_command(*command.split())
    except redis.exceptions.NoPermissionError:
        return True
    except redis.ResponseError as err:
        return "NOPERM" in str(err)  # any other error is that of a command that was let through
    return False


def everything(url: str) -> dict[bytes, Any]:
    """All that a server holds."""
    with connect(url) as client:
        keys: list[Any] = sorted(client.scan_iter())
        return {key: client.dump(key) for key in keys}


def test_the_reader_can_do_nothing_else(guarded: Guarded) -> None:
    before = everything(guarded.url)

    with connect(guarded.reader_url) as client:
        allowed = [
            command for command in [*_ADMIN, *_WRITES, "EVAL return{} 0", "INFO"] if not refused(client, command)
        ]

    assert allowed == []
    assert everything(guarded.url) == before


def test_the_reader_of_one_table_reads_no_other(guarded: Guarded) -> None:
    assert ask(guarded.flights_url).outputs == {"score": 0.25}

    others = [
        f"GET {head_key('trains')}",
        f"HGET {bucket_key('trains', 11, 0)} {ENTITY}",
        f"HVALS {versions_key('trains')}",
    ]
    likes = [f"GET {head_key('flights_eu')}", f"HGET {bucket_key('flights_eu', 1, 0)} x", "GET almanac:flights"]
    with connect(guarded.flights_url) as client:
        assert [command for command in [*others, *likes] if not refused(client, command)] == []
    with pytest.raises(DeclarationError, match="STORE_ACL"):
        ask(guarded.flights_url, table="trains")


def publish_as(url: str, staging: Any) -> None:
    """Publish three days, go back a day, and retire what nobody can be reading."""
    with connect(url) as client:
        table = Publisher(staging.store, RedisTable(client, "flights"), keep=2, grace_seconds=0)
        for day, score in ((MONDAY, 0.25), (TUESDAY, 0.5), (WEDNESDAY, 0.75)):
            published = table.publish(staging.run(day, {f"UA:{number}": score for number in range(200)}))
            assert published.outcome is Outcome.LIVE
        assert published.retired
        assert table.roll_back().release == 2


@pytest.fixture
def empty(guarded: Guarded) -> Guarded:
    """The same users, and nothing that another store published."""
    with connect(guarded.url) as client:
        client.flushall()
        client.set("session:1", "another program's")
    return guarded


def test_the_publisher_publishes_retires_and_rolls_back(empty: Guarded, staging: Any) -> None:
    publish_as(empty.publisher_url, staging)

    assert ask(empty.reader_url).outputs == {"score": 0.5}
    assert ask(empty.reader_url).release == 2


def test_a_publisher_without_restore_publishes_the_same(empty: Guarded, staging: Any) -> None:
    plain = User("plain", tuple(rule for rule in publisher().rules if rule != "+restore"))

    publish_as(make_user(empty.url, plain), staging)

    assert "restore" in PUBLISHER
    assert ask(empty.reader_url).outputs == {"score": 0.5}


@pytest.mark.parametrize("right", ["+evalsha", "+time", "+hset", "+unlink"])
def test_a_right_that_the_publisher_lacks_is_told(empty: Guarded, staging: Any, right: str) -> None:
    lacking = User("lacking", tuple(rule for rule in publisher().rules if rule != right))

    with pytest.raises(DeclarationError, match="STORE_ACL"):
        publish_as(make_user(empty.url, lacking), staging)


def test_both_users_do_their_work_in_a_cluster(own_redis: Any, staging: Any) -> None:
    program = next(path for name, path in PROGRAMS.items() if not name.startswith("redis-6"))
    url = own_redis("--cluster-enabled", "yes", program=program).url
    with connect(url) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            time.sleep(0.05)
    reads, writes = (make_user(url, user).replace("redis:", "redis+cluster:") for user in (reader(), publisher()))

    publish_as(writes, staging)

    assert ask(reads).outputs == {"score": 0.5}


def test_the_publisher_of_one_table_publishes_it_and_reaches_no_other(empty: Guarded, staging: Any) -> None:
    url = make_user(empty.url, publisher("flights"))

    publish_as(url, staging)

    others = [f"SET {head_key('trains')} x", f"HSET {bucket_key('trains', 1, 0)} a b", f"GET {head_key('trains')}"]
    with connect(url) as client:
        assert [command for command in others if not refused(client, command)] == []


def test_the_publisher_can_do_nothing_else(guarded: Guarded) -> None:
    before = everything(guarded.url)

    with connect(guarded.publisher_url) as client:
        allowed = [command for command in [*_ADMIN, "EVAL return{} 0"] if not refused(client, command)]

    assert allowed == []
    assert everything(guarded.url) == before


def test_a_script_of_the_publisher_has_no_more_rights_than_it(guarded: Guarded) -> None:
    before = everything(guarded.url)
    with connect(guarded.publisher_url) as client:
        for script in ("redis.call('SET', 'session:1', 'x')", "redis.call('FLUSHALL')"):
            with pytest.raises(redis.ResponseError, match=r"(?i)acl|permission|user executing the script can't"):
                client.evalsha(str(client.script_load(script)), 0)

    assert everything(guarded.url) == before


def test_to_make_a_user_anew_leaves_it_no_earlier_right_and_no_earlier_password(guarded: Guarded) -> None:
    name = reader().name
    with connect(guarded.url) as client:
        client.execute_command("ACL", "SETUSER", name, ">forgotten", "~*", "+@all", "allchannels")

        is_6 = client.info("server")["redis_version"].startswith("6.")
        make_user(guarded.url, reader(redis_6=is_6))

    with connect(guarded.reader_url) as client:
        assert refused(client, "GET session:1")
        assert refused(client, "FLUSHALL")
        assert refused(client, "SUBSCRIBE almanac")
    with pytest.raises(DeclarationError, match="STORE_AUTH"):
        ask(guarded.reader_url.replace(PASSWORD, "forgotten"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Certificates]:
    made: dict[str, Certificates] = {}
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str, **options: str) -> Certificates:
        if name not in made:
            made[name] = make_certificates(folder / name, **options)
        return made[name]

    return make


class Tls(NamedTuple):
    """A server that takes TLS on a port of its own."""

    server: Any
    port: int
    authority: Path

    def url(self, *, authority: Path | None = None, port: int | None = None) -> str:
        return f"rediss://127.0.0.1:{port or self.port}/0?ssl_ca_certs={authority or self.authority}"


@pytest.fixture
def tls(own_redis: Any, certificates: Callable[..., Certificates], request: pytest.FixtureRequest) -> Tls:
    """Its certificate is for the names in the parameter, or for where it is."""
    names = getattr(request, "param", None)
    made = certificates(names, names=names) if names else certificates("right")
    program = next((path for path in PROGRAMS.values() if has_tls(path)), None)
    assert program, "none of the servers of this machine has TLS"
    port = free_port()
    return Tls(own_redis(*made.options(port), program=program), port, made.authority)


def test_all_is_published_and_read_over_tls(tls: Tls, staging: Any) -> None:
    publish_as(tls.url(), staging)

    assert ask(tls.url()).outputs == {"score": 0.5}
    assert asyncio.run(ask_async(tls.url())).outputs == {"score": 0.5}


def by_reader(url: str) -> Answer:
    return ask(url)


def by_connection(url: str) -> Answer:
    return asyncio.run(ask_async(url))


def by_publisher(url: str) -> None:
    with connect(url) as client:
        RedisTable(client, "flights").preflight()


every_client = pytest.mark.parametrize("client", [by_reader, by_connection, by_publisher])


@every_client
def test_a_server_of_an_authority_that_is_not_trusted_is_refused(
    tls: Tls, certificates: Callable[..., Certificates], client: Callable[[str], Any]
) -> None:
    with pytest.raises(DeclarationError, match=r"certificate verify failed.*\[STORE_TLS\]"):
        client(tls.url(authority=certificates("another").authority))


@every_client
@pytest.mark.parametrize("tls", ["DNS:redis.internal"], indirect=True)
def test_a_server_with_the_certificate_of_another_host_is_refused(tls: Tls, client: Callable[[str], Any]) -> None:
    with pytest.raises(DeclarationError, match=r"not valid for '127\.0\.0\.1'.*\[STORE_TLS\]"):
        client(tls.url())


@every_client
def test_a_plain_connection_to_a_tls_port_is_closed_by_it(tls: Tls, client: Callable[[str], Any]) -> None:
    # What a plain client sees is a connection that is reset: nothing says TLS.
    with pytest.raises(UnavailableError, match="STORE_DOWN"):
        client(f"redis://127.0.0.1:{tls.port}/0")


@every_client
def test_certificates_that_are_not_there_are_told_before_anything_is_sent(client: Callable[[str], Any]) -> None:
    with pytest.raises(DeclarationError, match=r"ssl_ca_certs.*No such file.*\[STORE_TLS\]"):
        client(f"rediss://127.0.0.1:{free_port()}/0?ssl_ca_certs=/no/such/file.pem")


def test_a_tls_server_that_dies_is_down_not_untrusted(tls: Tls) -> None:
    with connect(tls.url()) as client:
        client.ping()
        tls.server.kill()

        with pytest.raises(UnavailableError, match="STORE_DOWN"), redis_errors("table 'flights'"):
            client.ping()


CANARY_KEY = "alm_c4naryc4naryc4naryc4naryc4naryc4naryc4nary"
_SECRETS = (PASSWORD, CANARY_KEY[4:])


def shown(text: str) -> list[str]:
    return [secret for secret in _SECRETS if secret in text]


def command_lines(pid: int) -> Iterator[str]:
    """The command lines of a process and of those that it started."""
    yield Path(f"/proc/{pid}/cmdline").read_text()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from command_lines(int(child))


def test_no_secret_is_in_the_logs_the_answers_or_the_process_list_of_the_api(
    own_redis: Any, put_version: Any, run_server: Any, tmp_path: Path
) -> None:
    redis_server = own_redis(program=next(path for name, path in PROGRAMS.items() if not name.startswith("redis-6")))
    with connect(redis_server.url) as client:
        put_version(client, 1, {ENTITY: 0.25})
    url = make_user(redis_server.url, reader())
    headers = {"Authorization": f"Bearer {CANARY_KEY}"}
    told = []

    with run_server(tmp_path, url, ["flights"], workers=2) as server:
        lines = list(command_lines(server.process.pid))
        targets = [f"/v1/flights/{ENTITY}", "/v1/none/x", "/v1/flights/%ff", "/readyz", "/metrics", "/nowhere"]
        told += [server.ask("GET", target, headers=headers) for target in targets]
        with connect(redis_server.url) as client:
            client.execute_command("ACL", "DELUSER", reader().name)
        told += [server.ask("GET", target, headers=headers) for target in targets]
        redis_server.kill()
        told += [server.ask("GET", target, headers=headers) for target in targets]

    assert len(lines) > 2
    assert shown("".join(lines)) == []
    assert {reply.status for reply in told} >= {200, 404, 503}
    assert shown("".join(f"{reply.headers}{reply.body!r}" for reply in told)) == []
    assert "cannot answer" in server.log.read_text()
    assert shown(server.log.read_text()) == []


def test_no_secret_is_in_what_a_publisher_logs_raises_or_represents(
    own_redis: Any, staging: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = own_redis()
    url = make_user(server.url, publisher())
    publish_as(url, staging)
    failures: list[AlmanacError] = []

    for broken in (
        url.replace(PASSWORD, f"{PASSWORD}x"),
        url.replace("publisher", "nobody"),
        url.replace("@", "/1@"),
        None,
    ):
        if broken is None:
            server.kill()
        with pytest.raises(AlmanacError) as error:
            publish_as(broken or url, staging)
        failures.append(error.value)

    # The values that a traceback's frames hold are not told: they are ours to hand over, not to show.
    told = [*map(str, failures), *map(repr, failures), *("".join(traceback.format_exception(err)) for err in failures)]
    with connect(url) as client:
        told += [repr(address_of(url)), str(address_of(url)), repr(client), repr(RedisTable(client, "flights"))]
    assert {failure.problems[0].code for failure in failures} == {"STORE_AUTH", "CFG_REDIS_URL", "STORE_DOWN"}
    assert "release 3" in caplog.text
    assert shown(caplog.text + "".join(told)) == []


names = st.from_regex(NAME_PATTERN.removesuffix("$") + r"\Z")
# Of the characters that keys are made of, and of any others.
ids = (st.text("almanc:{}*?[]\\012/id", min_size=1) | st.text(min_size=1)).filter(
    lambda entity: id_problem(entity) is None
)
numbers = st.integers(1, 10**6)


def control_keys(table: str) -> set[str]:
    versions = versions_key(table)
    return {head_key(table), versions, f"{versions}:left", f"{versions}:dropping"}


def keys_of(table: str, version: int, entity: str) -> set[str]:
    """Each key of a table that a name, a version or an id has a part in."""
    bucket = bucket_key(table, version, bucket_of(entity, 97))
    rows = {bucket, row_key(table, version, entity), priors_key(table, version)}
    return rows | control_keys(table)


@settings(deadline=None)
@given(names, names, numbers, numbers, ids, ids)
def test_no_name_and_no_id_reaches_a_key_of_another_table(
    one: str, other: str, version: int, later: int, entity: str, another: str
) -> None:
    if one == other:
        return
    mine = keys_of(one, version, entity)

    assert not mine & keys_of(other, later, another)
    allowed = tuple(rule[3:-1] for rule in reader(one).rules if rule.startswith("%R~"))
    assert all(key.startswith(allowed) for key in mine)
    assert not any(key.startswith(allowed) for key in keys_of(other, later, another))


@settings(deadline=None)
@given(names, numbers, numbers, ids, ids)
def test_an_id_reaches_its_own_row_only(table: str, version: int, later: int, entity: str, another: str) -> None:
    row = row_key(table, version, entity)

    others = {
        priors_key(table, later),
        *control_keys(table),
        *(bucket_key(table, later, bucket) for bucket in range(97)),
    }
    assert row not in others
    assert (row == row_key(table, later, another)) == ((version, entity) == (later, another))


def test_what_is_read_of_processes_is_what_they_were_started_with() -> None:
    assert any("python" in line or "pytest" in line for line in command_lines(os.getpid()))
