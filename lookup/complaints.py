"""What clients are told of a store that cannot be read, and what the log is."""

import logging
import time
from collections.abc import Callable

from lookup.exchange import error
from lookup.message import Response
from schemas.errors import AlmanacError, InputError

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1
RETRY = ("retry-after", str(_RETRY_SECONDS))
_COMPLAINT_SECONDS = 10.0


class Complaints:
    """Words for clients; where Redis is and what it said goes to the log, each code once in a while."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at: dict[str, float] = {}

    def words(self, err: AlmanacError) -> str:
        """What a client is told."""
        code = err.problems[0].code
        now = self._clock()
        if now - self._told_at.get(code, -_COMPLAINT_SECONDS) >= _COMPLAINT_SECONDS:  # not once a request
            self._told_at[code] = now
            logger.error("cannot answer: %s", err)
        if code == "NO_VERSION":
            return "nothing is published in this table"
        if isinstance(err, InputError):
            return "what is published cannot be read; the server's log has the reason"
        return "the store cannot be read now; try again"

    def response(self, err: AlmanacError) -> Response:
        """The response to a request that is not answered for this."""
        problem = err.problems[0]
        if problem.code in ("RELEASE_UNKNOWN", "RELEASE_GONE"):  # the client's to know, not the log's
            return error(410 if problem.code == "RELEASE_GONE" else 404, problem.code, str(problem))
        if isinstance(err, InputError):
            return error(500, problem.code, self.words(err))
        return error(503, problem.code, self.words(err), RETRY)
