"""Log of a trial: output of all its processes, over all of its attempts.

A file that all of them append to. An object store cannot append; there the log is a directory with
one file a process, uploaded every few seconds.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from diffgap.io.paths import RemotePath, StoragePath
from diffgap.io.printable import printable
from diffgap.io.redact import redact

UPLOAD_S = 5.0  # interval at which a log that has grown is uploaded to an object store


class _Redacted(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(printable(super().format(record)))


@contextmanager
def log_file(log: StoragePath, process: str) -> Iterator[Path]:
    """The local file that a process appends to: the log itself, or one that is uploaded to it."""
    if isinstance(log, Path):
        yield log
        return
    with tempfile.TemporaryDirectory(prefix="diffgap-log-") as directory:
        local = Path(directory) / f"{time.time():.3f}-{process.replace(' ', '-')}.txt"
        local.touch()
        closing = threading.Event()
        target = log / local.name
        uploader = threading.Thread(target=_upload, args=(local, target, closing), daemon=True)
        uploader.start()
        try:
            yield local
        finally:
            closing.set()
            uploader.join()


def _upload(local: Path, target: RemotePath, closing: threading.Event) -> None:
    """Uploads a file whenever it has grown, and once more at the end."""
    uploaded = 0
    while True:
        is_last = closing.wait(UPLOAD_S)
        content = local.read_bytes()
        if len(content) > uploaded:
            with suppress(OSError):  # the next round tries again; a log must not fail its trial
                target.write_bytes(content)
                uploaded = len(content)
        if is_last:
            return


def log_parts(log: StoragePath) -> list[StoragePath]:
    """The files of a trial's log, the oldest first."""
    if isinstance(log, RemotePath):
        return sorted(log.iterdir())  # their names begin with the time
    return [log] if log.is_file() else []


def read_from(file: StoragePath, position: int) -> bytes:
    """A file's content from a position on."""
    if isinstance(file, RemotePath):
        return file.read_bytes()[position:]
    with file.open("rb") as stream:
        stream.seek(position)
        return stream.read()


@contextmanager
def trial_log(path: Path, process: str, trial: str | None = None) -> Iterator[logging.Logger]:
    """Appends this package's log records to a trial's log for the block.

    The process, such as ``worker 0``, begins every line. With the signature of a trial, records of
    others (``extra={"trial": SIGNATURE}``) are left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_Redacted(f"%(asctime)s {process}: %(message)s"))
    if trial:
        handler.addFilter(lambda record: getattr(record, "trial", trial) == trial)
    logger = logging.getLogger("diffgap")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # Ray's root handler would print every line once more
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        handler.close()


@contextmanager
def captured_output(path: Path) -> Iterator[None]:
    """Redirects all output of this process, also of C++ libraries and crashes, to a trial's log."""
    streams = sys.stdout, sys.stderr
    originals = os.dup(1), os.dup(2)
    target = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    ray_logger = logging.getLogger("ray")
    level = ray_logger.level
    ray_logger.setLevel(logging.WARNING)  # at INFO it logs every report that it passes on
    try:
        _redirect(streams, [target, target])
        yield
    finally:
        _redirect(streams, originals)
        ray_logger.setLevel(level)
        for descriptor in (target, *originals):
            os.close(descriptor)


def _redirect(streams: Iterable[TextIO], targets: Iterable[int]) -> None:
    """Points the descriptors of standard output and error to other open files."""
    for stream, number, target in zip(streams, (1, 2), targets, strict=True):
        stream.flush()  # or else its buffer would land in the new file
        os.dup2(target, number)
