"""A trial's log: all that its processes say, over all of its attempts.

One file that all append to; on an object store, where nothing can be appended, a file for each
process, sent every few seconds.
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
from diffgap.io.redact import redact

SEND_S = 5.0
"""Between two looks whether a log has grown that is sent to an object store."""


class _Redacted(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


@contextmanager
def log_file(log: StoragePath, speaker: str) -> Iterator[Path]:
    """The local file that a process appends to: the log itself, or one that is sent there."""
    if isinstance(log, Path):
        yield log
        return
    with tempfile.TemporaryDirectory(prefix="diffgap-log-") as place:
        local = Path(place) / f"{time.time():.3f}-{speaker.replace(' ', '-')}.txt"
        local.touch()
        over = threading.Event()
        sender = threading.Thread(target=_send, args=(local, log / local.name, over), daemon=True)
        sender.start()
        try:
            yield local
        finally:
            over.set()
            sender.join()


def _send(local: Path, target: RemotePath, over: threading.Event) -> None:
    """Sends a file whenever it has grown, and once more at the end."""
    sent = 0
    while True:
        last = over.wait(SEND_S)
        content = local.read_bytes()
        if len(content) > sent:
            with suppress(OSError):  # the next look tries again; a log must not end a trial
                target.write_bytes(content)
                sent = len(content)
        if last:
            return


def log_files(log: StoragePath) -> list[StoragePath]:
    """The files of a trial's log, in the order in which they were begun."""
    if isinstance(log, RemotePath):
        return sorted(log.iterdir())
    return [log] if log.is_file() else []


def news(file: StoragePath, position: int) -> bytes:
    """What has been said from a position on."""
    if isinstance(file, RemotePath):
        return file.read_bytes()[position:]
    with file.open("rb") as stream:
        stream.seek(position)
        return stream.read()


@contextmanager
def trial_log(path: Path, speaker: str, trial: str | None = None) -> Iterator[logging.Logger]:
    """Appends what this package logs to a trial's log, for as long as the block lasts.

    Args:
        path: the log file.
        speaker: who speaks, such as ``worker 0``.
        trial: its signature, where other trials log at the same time: what is said of one of them
            (``extra={"trial": SIGNATURE}``) is left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(_Redacted(f"%(asctime)s {speaker}: %(message)s"))
    if trial:
        handler.addFilter(lambda record: getattr(record, "trial", trial) == trial)
    logger = logging.getLogger("diffgap")
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        handler.close()


@contextmanager
def captured_output(path: Path) -> Iterator[None]:
    """Sends all that this process writes, C++ libraries and crashes too, to a trial's log."""
    streams = sys.stdout, sys.stderr
    kept = [os.dup(number) for number in (1, 2)]
    target = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    ray = logging.getLogger("ray")
    level = ray.level
    ray.setLevel(logging.WARNING)  # every report it passes on, otherwise
    try:
        _redirect(streams, [target, target])
        yield
    finally:
        _redirect(streams, kept)
        ray.setLevel(level)
        for number in (target, *kept):
            os.close(number)


def _redirect(streams: Iterable[TextIO], targets: Iterable[int]) -> None:
    """Lets standard output and error go to other open files."""
    for stream, number, target in zip(streams, (1, 2), targets, strict=True):
        stream.flush()
        os.dup2(target, number)
