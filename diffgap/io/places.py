"""Places that fail: files, directories, disks and object stores, in a line that people can act on.

``runs/sweeps/a.json: No space left on device; make room there, or give another place``
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

_MAKE_ROOM = "make room there, or give another place"
_TRY_AGAIN = "check that it is there, then give the same command again"
REMEDIES = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or give another place",
    errno.EROFS: "give a place that can be written to",
    errno.EACCES: "allow it (chmod, chown), or give another place",
    errno.EPERM: "allow it (chmod, chown, chattr), or give another place",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of this path is a file; give another path",
    errno.EISDIR: "it is a directory where a file is meant; give another path",
    errno.EEXIST: "something of that name is in the way; remove it, or give another path",
    errno.ENOTEMPTY: "something of that name is in the way; remove it, or give another path",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "its symbolic links go round in a circle; mend them, or give another path",
    errno.EPIPE: "nobody reads it any more",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "close some programs: the machine has no more open files",
}
"""What to do about an error of the system."""

_MACHINE = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ESTALE)
_NETWORK = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT)
FAILURES = frozenset((*_MACHINE, *_NETWORK, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPIPE))
"""Errors of the machine or the network, which another place would not cure."""

FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), " requested and ")
"""By which libraries that wrap an OSError tell of a full disk; the last is numpy's."""


def place_problem(error: OSError) -> str:
    """An error of the system in one line: the place, the cause in the system's words, a remedy."""
    error = _cause(error)
    place = error.filename2 or error.filename
    if isinstance(place, bytes):
        place = os.fsdecode(place)
    where = f"{place}: " if isinstance(place, str) else ""
    cause, remedy = _words(error), REMEDIES.get(error.errno or 0, _TRY_AGAIN)
    if "temporary directory" in cause:  # tempfile's, which lists those that it has tried
        remedy = "set TMPDIR to a directory that can be written to"
    return f"{where}{cause}; {remedy}"


def is_refused(error: OSError) -> bool:
    """Whether a place cannot be used, as against work that failed."""
    return _cause(error).errno not in FAILURES


def _words(error: OSError) -> str:
    """The system's words for an error, or the first line of what a library says."""
    system = os.strerror(error.errno) if error.errno else ""
    text = str(error.strerror or error).strip()
    if system and system.lower() in text.lower():
        return system  # pyarrow puts the name of a temporary file before it
    return (text.splitlines() or [type(error).__name__])[0].rstrip(". ")


def _cause(error: OSError) -> OSError:
    """What an actor of Ray has raised, of which Ray's own error has the traceback as message."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, OSError) else error


@contextmanager
def naming(place: object, temporary: object = None) -> Iterator[None]:
    """Names a place in the errors of writing it, which else name a temporary file, or none.

    Raises:
        OSError: also for a full disk that a library reports in an error of its own.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) or error.errno is None:
            if any(words in str(error) for words in FULL):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from error
            raise
        if error.filename and not str(error.filename).startswith(str(temporary or place)):
            raise  # another file's
        raise OSError(error.errno, error.strerror, str(place)) from error  # of the same subclass
