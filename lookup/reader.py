"""Reading the lookup table over redis-py: one round trip, one version, whatever is published meanwhile."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.cluster import RedisCluster

from lookup.commands import Command
from lookup.connect import Client, redis_errors
from lookup.follower import ATTEMPTS, Follower, Found, Pin, check_ids
from schemas.answer import Answer
from schemas.head import Head


class Reader:
    """Looks entities up over one Redis connection pool."""

    def __init__(self, client: Client, table: str, *, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._follower = Follower(table)
        self._clock = clock

    def lookup(self, ids: Sequence[str], *, release: int | None = None) -> tuple[Head, list[Answer]]:
        """The answers in the order of `ids`, all of the version in the head returned beside them.

        Args:
            ids: Entity ids.
            release: To be answered from this release, while Redis keeps it; from the live one, when left out.

        Raises:
            UnavailableError: Redis does not answer, or nothing is published.
            InputError: what Redis holds is not a table of this format, or it does not keep that release; or one of the
                ids is none.
        """
        check_ids(ids)
        follower = self._follower if release is None else Pin(self._follower.table, release)
        with redis_errors(f"table '{follower.table}'"):
            for _ in range(ATTEMPTS):
                asked, commands = follower.ask(ids)
                if found := follower.settle(asked, self._send(commands)):
                    return found.seen.head, self._answers(ids, found)
        raise follower.moving()

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        # Of a cluster, each node is sent its own commands; the guard, which comes last, must be asked behind them.
        if isinstance(self._client, RedisCluster) and len(commands) > 1:
            return [*self._execute(commands[:-1]), *self._execute(commands[-1:])]
        return self._execute(commands)

    def _execute(self, commands: Sequence[Command]) -> list[Any]:
        pipeline: Any = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        found: list[Any] = pipeline.execute()
        return found

    def _answers(self, ids: Sequence[str], found: Found) -> list[Answer]:
        now = self._clock()
        return found.seen.answers(ids, found.rows, now)
