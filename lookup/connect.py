"""Connections to Redis: bounded waits, no hidden retries, and errors that name the server but no secret."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import parse_url
from redis.retry import Retry

from schemas.errors import AlmanacError, DeclarationError, InputError, Problem, UnavailableError

CONNECT_SECONDS = 2.0
PUBLISH_SECONDS = 30.0
READ_SECONDS = 0.25
_CLUSTER = "+cluster"

Client = redis.Redis | RedisCluster


class Tls(NamedTuple):
    """How a server is proven to be the one that is meant, as in a URL's `ssl_...` options."""

    authorities: str | None
    certificate: str | None
    key: str | None
    is_checked: bool


class Address(NamedTuple):
    """Where a Redis is, and as whom it is asked. It travels to other processes.

    Attributes:
        path: Of its Unix socket; None where it is reached by host and port.
        is_cluster: Whether the URL's scheme ends in `+cluster`: the node is one of several.
    """

    host: str
    port: int
    path: str | None
    username: str | None
    password: str | None
    db: int
    tls: Tls | None
    is_cluster: bool

    @property
    def context(self) -> ssl.SSLContext | None:
        """For a TLS connection; None where it is a plain one."""
        return None if self.tls is None else _context(self.tls)

    @property
    def handshake(self) -> list[tuple[str, ...]]:
        """The commands that a new connection begins with."""
        commands: list[tuple[str, ...]] = []
        if self.password is not None:
            commands.append(("AUTH", *([self.username] if self.username else []), self.password))
        return [*commands, ("SELECT", str(self.db))] if self.db else commands

    def __repr__(self) -> str:  # a password is shown nowhere
        return f"Address({self.path or f'{self.host}:{self.port}'})"


def address_of(url: str) -> Address:
    """The address in a URL.

    Raises:
        DeclarationError: it is not one of a Redis.
    """
    with _valid_url(url):
        parts: dict[str, Any] = parse_url(_plain(url))  # type: ignore[no-untyped-call]
    is_tls = parts.get("connection_class") is redis.SSLConnection
    address = _address(parts, is_tls=is_tls, is_cluster=_is_cluster(url))
    _ = address.context  # certificates that cannot be read are told now, not by each connection
    return address


def address_of_client(client: Client) -> Address:
    """The address that a client was made for."""
    if isinstance(client, RedisCluster):
        node = client.get_default_node()  # type: ignore[no-untyped-call]
        kwargs: dict[str, Any] = client.get_connection_kwargs()  # type: ignore[no-untyped-call]
        parts = {**kwargs, "host": node.host, "port": node.port}
        return _address(parts, is_tls=bool(parts.get("ssl")), is_cluster=True)
    pool = client.connection_pool
    is_tls = issubclass(pool.connection_class, redis.SSLConnection)
    return _address(pool.connection_kwargs, is_tls=is_tls, is_cluster=False)


def connect(url: str, *, timeout_seconds: float = PUBLISH_SECONDS) -> Client:
    """A client that answers or fails within `timeout_seconds`; redis-py alone retries for seconds."""
    address_of(url)
    with _valid_url(url):
        options: dict[str, Any] = {
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": CONNECT_SECONDS,
            "protocol": 2,
        }
        if _is_cluster(url):
            with redis_errors("the cluster"):
                # One more attempt, on the nodes that the first reply names: slots move while a cluster lives.
                return RedisCluster.from_url(_plain(url), retry=Retry(NoBackoff(), 1), **options)
        return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)


@contextmanager
def redis_errors(where: str) -> Iterator[None]:
    """Turn what redis-py raises into one clear error of ours.

    Args:
        where: What was asked of which server, without secrets.
    """
    try:
        yield
    except AlmanacError:
        raise
    except (exceptions.RedisError, exceptions.RedisClusterException) as err:  # the latter is none of the former
        raise _translated(where, err) from err
    except OSError as err:
        raise connection_error(where, err) from err


def connection_error(where: str, err: OSError) -> AlmanacError:
    """The error of ours for a connection that could not be made, or was lost."""
    if isinstance(err, TimeoutError):
        return _error("STORE_TIMEOUT", where, str(err))
    # A server that dies leaves a TLS connection without the goodbye that it expects: that is no fault of a certificate.
    is_refused = isinstance(err, ssl.SSLError) and not isinstance(err, ssl.SSLEOFError | ssl.SSLZeroReturnError)
    return _error("STORE_TLS" if is_refused else "STORE_DOWN", where, str(err))


def reply_error(where: str, text: str) -> AlmanacError:
    """The error of ours for an error reply as it came over the wire, such as `NOAUTH Authentication required.`."""
    word, _, rest = text.partition(" ")
    if code := _BY_FIRST_WORD.get(word):
        return _error(code, where, rest if code != "STORE_IS_CLUSTER" else text)
    return _error("STORE_ERROR", where, text)


def _translated(where: str, err: Exception) -> AlmanacError:
    # redis-py quotes the failed command of a pipeline, and with it an entity id and a row.
    text = str(err).rpartition("of pipeline caused error: ")[2]
    for code, types, words in _BY_EXCEPTION:
        if isinstance(err, types) and any(word in text for word in words):
            return _error(code, where, text)
    return _error("STORE_ERROR", where, f"{type(err).__name__}: {text}")


def _error(code: str, where: str, found: str) -> AlmanacError:
    expected, kind = _KINDS[code]
    return kind(Problem(code, where, found, expected))


_KINDS: dict[str, tuple[str, type[AlmanacError]]] = {
    "STORE_AUTH": ("a user and password that Redis takes", DeclarationError),
    "STORE_ACL": ("a user with the rights of docs/lookup.md", DeclarationError),
    "STORE_LOADING": ("a Redis that has read its files; try again", UnavailableError),
    "STORE_READONLY": ("the primary, not a replica", DeclarationError),
    "STORE_FULL": ("more memory (maxmemory) for this version", UnavailableError),
    "STORE_PERSISTENCE": ("a Redis whose disk writes work", UnavailableError),
    "STORE_PARTIAL": ("a cluster whose nodes all serve their slots; try again", UnavailableError),
    "STORE_IS_CLUSTER": ("a Redis that is not a cluster, or redis+cluster:// in the URL", DeclarationError),
    "STORE_TYPE": ("our own keys: another program wrote under this one", InputError),
    "STORE_TLS": ("a certificate for the host in the URL, of an authority in ssl_ca_certs", DeclarationError),
    "STORE_TIMEOUT": ("an answer in time", UnavailableError),
    "STORE_DOWN": ("a Redis that answers", UnavailableError),
    "STORE_ERROR": ("a Redis that serves", UnavailableError),
}
_BY_FIRST_WORD = {
    "NOAUTH": "STORE_AUTH", "WRONGPASS": "STORE_AUTH", "NOPERM": "STORE_ACL", "LOADING": "STORE_LOADING",
    "READONLY": "STORE_READONLY", "OOM": "STORE_FULL", "MISCONF": "STORE_PERSISTENCE", "CLUSTERDOWN": "STORE_PARTIAL",
    "TRYAGAIN": "STORE_PARTIAL", "MOVED": "STORE_IS_CLUSTER", "ASK": "STORE_IS_CLUSTER",
    "CROSSSLOT": "STORE_IS_CLUSTER", "WRONGTYPE": "STORE_TYPE",
}  # fmt: skip
_ANY = ("",)
_BY_EXCEPTION: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("STORE_AUTH", exceptions.AuthenticationError, _ANY),
    ("STORE_AUTH", exceptions.ResponseError, ("NOAUTH", "WRONGPASS")),
    ("STORE_ACL", exceptions.NoPermissionError, _ANY),
    ("STORE_LOADING", exceptions.BusyLoadingError, _ANY),
    ("STORE_READONLY", exceptions.ReadOnlyError, _ANY),
    ("STORE_FULL", exceptions.OutOfMemoryError, _ANY),
    # What a script of ours was refused: in the words of Redis 6 and 7.0, and of the later ones.
    ("STORE_ACL", exceptions.ResponseError, ("user executing the script can't", "ACL failure in script")),
    # Redis 6 wraps what a script met: `Error running script ...: -READONLY You can't write ...`.
    ("STORE_READONLY", exceptions.ResponseError, (": -READONLY",)),
    ("STORE_FULL", exceptions.ResponseError, (": -OOM",)),
    ("STORE_PERSISTENCE", exceptions.ResponseError, ("MISCONF",)),
    ("STORE_PARTIAL", (exceptions.ClusterDownError, exceptions.TryAgainError, exceptions.SlotNotCoveredError), _ANY),
    ("STORE_IS_CLUSTER", (exceptions.AskError, exceptions.ClusterCrossSlotError), _ANY),
    ("STORE_TYPE", exceptions.ResponseError, ("WRONGTYPE",)),
    ("STORE_DOWN", exceptions.ConnectionError, ("UNEXPECTED_EOF",)),
    ("STORE_TLS", exceptions.ConnectionError, ("[SSL",)),
    ("STORE_TIMEOUT", exceptions.TimeoutError, _ANY),
    ("STORE_DOWN", (exceptions.ConnectionError, exceptions.RedisClusterException), _ANY),
)


def _address(parts: Mapping[str, Any], *, is_tls: bool, is_cluster: bool) -> Address:
    certificates = (parts.get("ssl_ca_certs"), parts.get("ssl_certfile"), parts.get("ssl_keyfile"))
    return Address(
        host=parts.get("host") or "localhost",
        port=parts.get("port") or 6379,
        path=parts.get("path"),
        username=parts.get("username"),
        password=parts.get("password"),
        db=parts.get("db") or 0,
        tls=Tls(*certificates, is_checked=parts.get("ssl_cert_reqs") != "none") if is_tls else None,
        is_cluster=is_cluster,
    )


@cache
def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.authorities)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as err:
        where = "ssl_ca_certs, ssl_certfile and ssl_keyfile of ALMANAC_REDIS_URL"
        raise DeclarationError(Problem("STORE_TLS", where, str(err), "files with certificates as PEM")) from err
    if not tls.is_checked:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _is_cluster(url: str) -> bool:
    return url.partition("://")[0].endswith(_CLUSTER)


def _plain(url: str) -> str:
    """The URL as redis-py knows it."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.removesuffix(_CLUSTER)}{separator}{rest}"


@contextmanager
def _valid_url(url: str) -> Iterator[None]:
    try:
        _check_password(url)
        yield
    except ValueError as err:
        # A password with an unescaped '/' is taken for the port: what follows "as" may be a part of it.
        found = str(err).partition(" as ")[0]
        raise DeclarationError(
            Problem(
                "CFG_REDIS_URL",
                "ALMANAC_REDIS_URL",
                found,
                "redis://host:port/0, rediss://, unix:// or redis+cluster://",
            )
        ) from None


def _check_password(url: str) -> None:
    """Refuse a password cut in two: its first part would be taken for a host or port, and be shown in errors.

    Raises:
        ValueError: an '@' stands behind the host, or the host has characters that none has.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its text quotes what may be a password
        raise ValueError("the host is none; in a password / ? # [ ] are written %2F %3F %23 %5B %5D") from None
    # The path of a socket may have an '@'.
    is_socket = parts.scheme == "unix" and not parts.netloc
    if "@" in f"{'' if is_socket else parts.path}{parts.query.partition('=')[0]}{parts.fragment}":
        raise ValueError("an @ behind the host; in a password / ? # are written %2F %3F %23")
