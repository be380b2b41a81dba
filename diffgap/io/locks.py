"""Locks of what only one process may make at a time; the others wait, and then use it.

The kernel releases a lock with the process that held it, however that ended.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from diffgap.io.atomic import remove_temporaries
from diffgap.io.places import naming
from diffgap.io.printable import one_line

log = logging.getLogger(__name__)

WITHOUT_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of file systems that have none, such as Lustre mounted without them."""


@contextmanager
def only_maker(path: Path) -> Iterator[None]:
    """Lets one process at a time make `path`; another waits for it, and says so.

    After the wait, look whether `path` is there now. The lock is a file beside it, which is deleted
    at the end.

    Raises:
        OSError: where no file can be made beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with _acquire(lock, path):
        try:
            remove_temporaries(path)
            yield
        finally:
            lock.unlink(missing_ok=True)


def _acquire(lock: Path, path: Path) -> IO[str]:
    """The open lock file, locked."""
    while True:
        with naming(path, lock):
            file = lock.open("a")
        try:
            _lock(file, path)
            if _is_at(lock, file):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its holder has deleted it, and others may have made and locked a new one


def _lock(file: IO[str], path: Path) -> None:
    place = one_line(str(path))
    try:
        with naming(path):
            if not _lock_at_once(file):
                log.warning("Another process is making %s; waiting until it is done ...", place)
                fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        log.warning("%s is on a file system without locks; start nothing else that makes it", place)


def _lock_at_once(file: IO[str]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _is_at(lock: Path, file: IO[str]) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
