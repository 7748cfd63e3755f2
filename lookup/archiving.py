"""Archiving: a verified run becomes a release that can be gone to, without a word to Redis or to readers."""

from lookup.log import commit_of
from lookup.store import Store
from lookup.turns import beside_others, pending
from schemas.errors import InputError, Problem, UnavailableError
from schemas.release import LogEntry
from schemas.run import PREDICTIONS, PRIORS


def archive(store: Store, run_id: str) -> LogEntry:
    """Commit a verified run, once, and move nothing: what is live stays so, whichever date it is of.

    Raises:
        RefusedError: the run is not verified, or was rolled back.
        InputError: its files are damaged.
        UnavailableError: an erasure was begun and has not ended.
    """
    store.refuse_rolled_back(run_id)
    with beside_others(store.folder):
        if pending(store.folder):
            found = "an erasure was begun and has not ended"
            raise UnavailableError(Problem("ERASE_BUSY", str(store.folder), found, "its end: erase again"))
        manifest = store.verified(run_id)
        if problems := store.damage(manifest, PREDICTIONS, PRIORS):
            raise InputError(*problems)
        # Asked first, because `commit` enters a run again whose publication was overtaken: here nothing is published.
        return commit_of(store.log.entries(), run_id) or store.commit(manifest)
