"""What went wrong outside of what any part foresaw, in words: the store's disk, and the rest."""

import errno

from jobs.session import SPARK_LOG
from schemas.errors import AlmanacError, DeclarationError, Problem, UnavailableError
from schemas.settings import Settings

# What a retry does not help, and what room on the disk does.
_REFUSED = (errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EROFS, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_store(settings: Settings) -> Settings:
    """The settings, once it is known that the store is a folder or can become one.

    Raises:
        NotADirectoryError: where it should be, or above it, is a file.
        PermissionError: a folder above it may not be looked into.
    """
    place = next(place for place in (settings.store, *settings.store.parents) if place.exists())
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(place))
    return settings


def explained(err: Exception, settings: Settings) -> AlmanacError:
    """An error of ours as it is; for any other, which nothing else gave its words, one of ours."""
    if isinstance(err, AlmanacError):
        return err
    if isinstance(err, OSError) and (err.filename or err.errno in (*_REFUSED, *_FULL)):
        where, found = str(err.filename or settings.store), err.strerror or type(err).__name__
        if err.errno in _REFUSED:
            expected = "a folder to write in: correct ALMANAC_STORE, or the rights of this path"
            return DeclarationError(Problem("ENV_STORE", where, found, expected))
        expected = "room on the disk" if err.errno in _FULL else "a disk that can be read and written"
        return UnavailableError(Problem("ENV_STORE", where, found, expected))
    first = next((line.strip() for line in str(err).splitlines() if line.strip()), "no reason given")
    more = f"-v shows more; so may {SPARK_LOG} in the store"
    return UnavailableError(Problem("UNEXPECTED", type(err).__name__, first[:300], more))
