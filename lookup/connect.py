"""Connections to Redis: bounded waits, no hidden retries, and errors that name the server but no secret."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from schemas.errors import AlmanacError, DeclarationError, InputError, Problem, UnavailableError

CONNECT_SECONDS = 2.0
PUBLISH_SECONDS = 30.0
READ_SECONDS = 0.5


def connect(url: str, *, timeout_seconds: float = PUBLISH_SECONDS) -> redis.Redis:
    """A client that answers or fails within `timeout_seconds`; redis-py alone retries for seconds."""
    with _valid_url(url):
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )


def connect_async(url: str, *, timeout_seconds: float = READ_SECONDS) -> redis.asyncio.Redis:
    """The same for an event loop."""
    with _valid_url(url):
        return redis.asyncio.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
            protocol=2,
        )


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
    except exceptions.RedisError as err:
        raise _translated(where, err) from err
    except OSError as err:
        raise UnavailableError(Problem("STORE_DOWN", where, str(err), "a Redis that answers")) from err


def _translated(where: str, err: exceptions.RedisError) -> AlmanacError:
    # redis-py quotes the failed command of a pipeline, and with it an entity id and a row.
    text = str(err).rpartition("of pipeline caused error: ")[2]
    for code, types, words, expected, kind in _TRANSLATIONS:
        if isinstance(err, types) and any(word in text for word in words):
            return kind(Problem(code, where, text, expected))
    return UnavailableError(Problem("STORE_ERROR", where, f"{type(err).__name__}: {text}", "a Redis that serves"))


_ANY = ("",)
_TRANSLATIONS: tuple[tuple[str, Any, tuple[str, ...], str, type[AlmanacError]], ...] = (
    ("STORE_AUTH", exceptions.AuthenticationError, _ANY, "a user and password that Redis takes", DeclarationError),
    (
        "STORE_AUTH",
        exceptions.ResponseError,
        ("NOAUTH", "WRONGPASS"),
        "a user and password that Redis takes",
        DeclarationError,
    ),
    ("STORE_ACL", exceptions.NoPermissionError, _ANY, "a user with the rights of docs/lookup.md", DeclarationError),
    (
        "STORE_LOADING",
        exceptions.BusyLoadingError,
        _ANY,
        "a Redis that has read its files; try again",
        UnavailableError,
    ),
    ("STORE_READONLY", exceptions.ReadOnlyError, _ANY, "the primary, not a replica", DeclarationError),
    ("STORE_FULL", exceptions.OutOfMemoryError, _ANY, "more memory (maxmemory) for this version", UnavailableError),
    # Redis 6 wraps what a script met: `Error running script ...: -READONLY You can't write ...`.
    ("STORE_READONLY", exceptions.ResponseError, (": -READONLY",), "the primary, not a replica", DeclarationError),
    ("STORE_FULL", exceptions.ResponseError, (": -OOM",), "more memory (maxmemory) for this version", UnavailableError),
    ("STORE_PERSISTENCE", exceptions.ResponseError, ("MISCONF",), "a Redis whose disk writes work", UnavailableError),
    (
        "STORE_IS_CLUSTER",
        (exceptions.AskError, exceptions.ClusterCrossSlotError, exceptions.ClusterDownError),
        _ANY,
        "a Redis that is not a cluster",
        DeclarationError,
    ),
    (
        "STORE_TYPE",
        exceptions.ResponseError,
        ("WRONGTYPE",),
        "our own keys: another program wrote under this one",
        InputError,
    ),
    ("STORE_TIMEOUT", exceptions.TimeoutError, _ANY, "an answer in time", UnavailableError),
    ("STORE_DOWN", exceptions.ConnectionError, _ANY, "a Redis that answers", UnavailableError),
)


@contextmanager
def _valid_url(url: str) -> Iterator[None]:
    try:
        _check_password(url)
        yield
    except ValueError as err:
        # A password with an unescaped '/' is taken for the port: what follows "as" may be a part of it.
        found = str(err).partition(" as ")[0]
        raise DeclarationError(
            Problem("CFG_REDIS_URL", "ALMANAC_REDIS_URL", found, "redis://host:port/0, rediss:// or unix://")
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
