"""A circuit breaker: a Redis that is away is not waited for by every request."""

import time
from collections.abc import Callable

from schemas.errors import AlmanacError

_FAILURES = 3
_PROBE_SECONDS = 1.0


class Breaker:
    """Opens after a few failures in a row; then lets one request through every second, until one succeeds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._last: AlmanacError | None = None
        self._probed_at = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= _FAILURES

    def refusal(self) -> AlmanacError | None:
        """Why not to ask now: the last failure; None where the request may be made."""
        if self._failures < _FAILURES:
            return None
        now = self._clock()
        if now - self._probed_at < _PROBE_SECONDS:
            return self._last
        self._probed_at = now
        return None

    def failed(self, why: AlmanacError) -> None:
        """A request failed. All that were asked in one write fail with one error, which counts once."""
        if why is not self._last:
            self._last = why
            self._failures += 1
            self._probed_at = self._clock()

    def succeeded(self) -> None:
        if self._failures:
            self._failures = 0
            self._last = None
