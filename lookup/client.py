"""Lookups from a service of yours: over HTTP from API workers, or from a Redis and its replicas."""

import re
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, cast

from lookup.balance import Ask, Balancer, Policy, is_workers_fault
from lookup.connect import READ_SECONDS
from lookup.direct import AsyncRedisWorkers, RedisWorkers
from lookup.fallback import OF_ONE_ANSWER
from lookup.follower import check_ids
from schemas.answer import MAX_BATCH, Answer
from schemas.errors import AlmanacError, DeclarationError, InputError, Problem, UnavailableError
from schemas.strict import NAME_PATTERN

if TYPE_CHECKING:
    import ssl

ATTEMPTS = 3
_REDIS = {"redis", "rediss", "unix", "redis+cluster", "rediss+cluster"}
_HTTP = {"http", "https"}


class Options(NamedTuple):
    """How lookups are done.

    Attributes:
        policy: Which worker is asked: `least_loaded`, `round_robin` or `by_key`.
        api_key: Sent to API workers as a Bearer token.
        timeout_seconds: The longest wait for a worker; `ATTEMPTS` of them are tried at most for 1,000 ids, each once.
        tls: For https:// workers of an authority of your own; certificates are always checked.
        clock: Seconds that never go back, by which failed workers rest.
    """

    policy: Policy = "least_loaded"
    api_key: str | None = None
    timeout_seconds: float = 4 * READ_SECONDS
    tls: "ssl.SSLContext | None" = None
    clock: Callable[[], float] = time.monotonic

    def __repr__(self) -> str:  # the key is shown nowhere
        return f"Options(policy={self.policy!r}, timeout_seconds={self.timeout_seconds!r})"


class Workers(Protocol):
    """What a client asks: API workers, or a Redis and its replicas."""

    def ask(self, ask: Ask) -> list[Answer]: ...
    def close(self) -> None: ...


class AsyncWorkers(Protocol):
    """`Workers` of an event loop."""

    async def ask(self, ask: Ask) -> list[Answer]: ...
    async def close(self) -> None: ...


_Plan = Generator[Ask, list[Answer], list[Answer]]


class _Planner:
    """What both clients do alike: which worker is asked what, and what follows from its answer."""

    def __init__(self, workers: Sequence[str], options: Options) -> None:
        self._balancer = Balancer(workers, options.policy, clock=options.clock)

    def _plan(self, table: str, ids: Sequence[str], release: int | None, key: str | None) -> _Plan:
        """The requests for these ids; sent answers or thrown errors, it returns the answers in the order asked."""
        _check(table, ids)
        parts = [ids[start : start + MAX_BATCH] for start in range(0, len(ids), MAX_BATCH)]
        for _ in range(ATTEMPTS):
            answers: list[Answer] = []
            pin, worker = release, None
            for part in parts:
                found, worker = yield from self._part(Ask("", table, part, pin), key, worker)
                answers += found
                # Without a store there is no release to ask for: the next part is then compared, not pinned.
                pin = pin or (found[0].release if found[0].flag in OF_ONE_ANSWER else None)
            if len({answer.release for answer in answers}) <= 1:
                return answers
        text = f"answered from several releases {ATTEMPTS} times"
        raise UnavailableError(Problem("STORE_POINTER", f"table '{table}'", text, "one release"))

    def _part(
        self, ask: Ask, key: str | None, worker: str | None
    ) -> Generator[Ask, list[Answer], tuple[list[Answer], str]]:
        """The answers to at most `MAX_BATCH` ids, and the worker that gave them."""
        order = self._balancer.order(ask.ids[0] if key is None else key)
        if worker is not None:  # the one that has the release surely; a replica may be behind
            order = [worker, *(other for other in order if other != worker)]
        flagged: tuple[list[Answer], str] | None = None
        failure: AlmanacError | None = None
        for other in order[:ATTEMPTS]:
            if flagged and self._balancer.is_resting(other):
                continue  # no better is to be had there: in an outage of all, each lookup asks one
            try:
                answers = yield ask._replace(worker=other)
            except AlmanacError as err:
                if not flagged and err.problems[0].code != "RELEASE_UNKNOWN" and not is_workers_fault(err):
                    raise
                failure = err
            else:
                if not _is_cut_off(answers):
                    return answers, other
                self._balancer.rest(other)
                flagged = flagged or (answers, other)
        if flagged:
            return flagged
        raise cast("AlmanacError", failure)  # there is at least one worker


class Client(_Planner):
    """Looks entities up, from any number of threads."""

    def __init__(self, workers: Sequence[str], options: Options = Options()) -> None:  # noqa: B008  # frozen
        """A client of these workers; one that fails is followed by another, and rests for a while (`lookup.balance`).

        Args:
            workers: URLs of API workers (`https://host:port`), or of a Redis and its replicas (`redis://`, `rediss://`,
                `unix://`) or of a Redis Cluster (`redis+cluster://`, `rediss+cluster://`): of one kind, not both.
            options: How lookups are done.

        Raises:
            DeclarationError: `CFG_CLIENT` where the workers are not such URLs, `CFG_REDIS_URL` where one is not of a
                Redis.
        """
        super().__init__(workers, options)
        self._workers: Workers
        if _is_http(workers):
            from lookup.worker import HttpWorkers  # httpx is an extra

            self._workers = HttpWorkers(options.api_key, options.timeout_seconds, options.tls)
        else:
            self._workers = RedisWorkers(workers, options.timeout_seconds)

    def lookup(self, table: str, entity: str, *, release: int | None = None, key: str | None = None) -> Answer:
        """The answer for one entity; see `lookup_many`."""
        return self.lookup_many(table, [entity], release=release, key=key)[0]

    def lookup_many(
        self, table: str, ids: Sequence[str], *, release: int | None = None, key: str | None = None
    ) -> list[Answer]:
        """The answers in the order of `ids`, all of one release, however many there are.

        Args:
            table: The pipeline's name.
            ids: Entity ids, as `schemas.keys.entity_id` makes them.
            release: To be answered from this one, while Redis keeps it; from the live one, when left out.
            key: What the policy `by_key` goes by; the first id, when left out.

        Raises:
            InputError: what was asked for is wrong, or what is published cannot be read; the code is the API's.
            RefusedError: the API key may not read this table, or asks too often.
            UnavailableError: no worker that was asked could answer.
        """
        plan = self._plan(table, ids, release, key)
        try:
            ask = next(plan)
            while True:
                try:
                    with self._balancer.asking(ask.worker):
                        answers = self._workers.ask(ask)
                except AlmanacError as err:
                    ask = plan.throw(err)
                else:
                    ask = plan.send(answers)
        except StopIteration as end:
            found: list[Answer] = end.value
            return found

    def close(self) -> None:
        self._workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Planner):
    """`Client` for one event loop; what is asked of a Redis in one tick goes there in one write."""

    def __init__(self, workers: Sequence[str], options: Options = Options()) -> None:  # noqa: B008  # frozen
        """A client of these workers; see `Client`."""
        super().__init__(workers, options)
        self._workers: AsyncWorkers
        if _is_http(workers):
            from lookup.worker import AsyncHttpWorkers  # httpx is an extra

            self._workers = AsyncHttpWorkers(options.api_key, options.timeout_seconds, options.tls)
        else:
            self._workers = AsyncRedisWorkers(workers, options.timeout_seconds)

    async def lookup(self, table: str, entity: str, *, release: int | None = None, key: str | None = None) -> Answer:
        """The answer for one entity; see `Client.lookup_many`."""
        return (await self.lookup_many(table, [entity], release=release, key=key))[0]

    async def lookup_many(
        self, table: str, ids: Sequence[str], *, release: int | None = None, key: str | None = None
    ) -> list[Answer]:
        """The answers in the order of `ids`, all of one release; see `Client.lookup_many`."""
        plan = self._plan(table, ids, release, key)
        try:
            ask = next(plan)
            while True:
                try:
                    with self._balancer.asking(ask.worker):
                        answers = await self._workers.ask(ask)
                except AlmanacError as err:
                    ask = plan.throw(err)
                else:
                    ask = plan.send(answers)
        except StopIteration as end:
            found: list[Answer] = end.value
            return found

    async def close(self) -> None:
        await self._workers.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _is_cut_off(answers: Sequence[Answer]) -> bool:
    """Whether a worker answered without its store: then it flags all answers of a request alike."""
    return answers[0].flag not in OF_ONE_ANSWER


def _is_http(workers: Sequence[str]) -> bool:
    schemes = {worker.partition("://")[0] for worker in workers}
    if not (schemes <= _HTTP or schemes <= _REDIS):
        expected = (
            "a list of http:// and https:// URLs, or one of redis://, rediss://, unix:// and redis+cluster:// URLs"
        )
        raise DeclarationError(Problem("CFG_CLIENT", "workers", "other URLs, or of both kinds", expected))
    return schemes <= _HTTP


def _check(table: str, ids: Sequence[str]) -> None:
    """Refuse what could reach another table's keys, and what no entity can be called."""
    if not re.fullmatch(NAME_PATTERN, table):
        raise InputError(Problem("TABLE_UNKNOWN", f"table {table[:80]!r}", "not a table's name", "a pipeline's name"))
    check_ids(ids)
