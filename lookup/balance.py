"""Which of several workers is asked: three policies, and a rest for those that fail."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple, get_args

from schemas.errors import AlmanacError, DeclarationError, InputError, Problem, RefusedError

Policy = Literal["least_loaded", "round_robin", "by_key"]

FIRST_REST_SECONDS = 0.5
LONGEST_REST_SECONDS = 30.0


class Ask(NamedTuple):
    """One request to one worker."""

    worker: str
    table: str
    ids: Sequence[str]
    release: int | None


class Balancer:
    """Orders the workers for each request, by a policy and by what became of earlier requests.

    `least_loaded` asks the one with the fewest requests of this client under way, `round_robin` each in turn, `by_key`
    the one that a key of the request falls to: rendezvous hashing, so that a lost worker's keys are shared out among
    the others, and no other key moves. A worker that failed rests: `FIRST_REST_SECONDS`, twice as long at each further
    failure in a row, never longer than `LONGEST_REST_SECONDS`. It is asked all the same when all others fail, so that
    a rest never makes a lookup fail. One that answers, but cannot ask its store, rests for the first of these alone. It
    may be used from several threads.
    """

    def __init__(
        self,
        workers: Sequence[str],
        policy: Policy = "least_loaded",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Balance over these workers.

        Args:
            workers: Their URLs; at least one, each once.
            policy: How one is chosen.
            clock: Seconds that never go back.

        Raises:
            DeclarationError: `CFG_CLIENT`: there is no worker, one comes twice, or there is no such policy.
        """
        if not workers or len(set(workers)) != len(workers):
            found = "a worker comes twice" if workers else "no worker"
            raise DeclarationError(Problem("CFG_CLIENT", "workers", found, "at least one URL, each once"))
        if policy not in get_args(Policy):
            raise DeclarationError(Problem("CFG_CLIENT", "policy", repr(policy), ", ".join(get_args(Policy))))
        self._workers = tuple(workers)
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = 0
        self._under_way = dict.fromkeys(workers, 0)
        self._failures = dict.fromkeys(workers, 0)
        self._rests_until = dict.fromkeys(workers, float("-inf"))

    def order(self, key: str = "") -> list[str]:
        """All workers in the order to ask them; those that rest come last, the soonest back first.

        Args:
            key: The request parameter that `by_key` goes by.
        """
        with self._lock:
            now = self._clock()
            ranked = self._ranked(key)
            rested = [worker for worker in ranked if self._rests_until[worker] <= now]
            resting = [worker for worker in ranked if self._rests_until[worker] > now]
            return [*rested, *sorted(resting, key=self._rests_until.__getitem__)]

    @contextmanager
    def asking(self, worker: str) -> Iterator[None]:
        """Count a request to the worker; it failed where the block raises, other than for what was asked."""
        with self._lock:
            self._under_way[worker] += 1
        try:
            yield
        except AlmanacError as err:
            if is_workers_fault(err):
                self._failed(worker)
            raise
        else:
            self._succeeded(worker)
        finally:
            with self._lock:
                self._under_way[worker] -= 1

    def is_resting(self, worker: str) -> bool:
        with self._lock:
            return self._rests_until[worker] > self._clock()

    def rest(self, worker: str) -> None:
        """Prefer the others for a moment: it answered, but not as well as another may."""
        with self._lock:
            self._rests_until[worker] = self._clock() + FIRST_REST_SECONDS

    def _ranked(self, key: str) -> list[str]:
        if self._policy == "by_key":
            return sorted(self._workers, key=lambda worker: _weight(worker, key), reverse=True)
        start, self._turn = self._turn, (self._turn + 1) % len(self._workers)
        in_turn = [*self._workers[start:], *self._workers[:start]]
        return in_turn if self._policy == "round_robin" else sorted(in_turn, key=self._under_way.__getitem__)

    def _failed(self, worker: str) -> None:
        with self._lock:
            # 2 to the power of 6 is past the longest rest: the exponent stays small however often it fails.
            rest = min(FIRST_REST_SECONDS * 2.0 ** min(self._failures[worker], 6), LONGEST_REST_SECONDS)
            self._failures[worker] += 1
            self._rests_until[worker] = self._clock() + rest

    def _succeeded(self, worker: str) -> None:
        with self._lock:
            self._failures[worker] = 0
            self._rests_until[worker] = float("-inf")


def is_workers_fault(err: AlmanacError) -> bool:
    """Whether another worker may do better: not where what was asked, who asks, or what is published is wrong."""
    return not isinstance(err, InputError | RefusedError)


def _weight(worker: str, key: str) -> bytes:
    # The key's length keeps two pairs apart whose texts joined would be the same.
    return hashlib.blake2b(f"{len(key)}:{key}{worker}".encode(), digest_size=8).digest()
