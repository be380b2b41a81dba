"""A trial's log: one file for all that its processes say, over all of its attempts."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffgap.secrets import redact


class _Redacted(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


@contextmanager
def trial_log(path: Path, speaker: str) -> Iterator[logging.Logger]:
    """Appends what this package logs to a trial's log, for as long as the block lasts.

    Args:
        path: the log file.
        speaker: who speaks, such as ``worker 0``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(_Redacted(f"%(asctime)s {speaker}: %(message)s"))
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


def capture_output(path: Path) -> None:
    """Sends all that this process writes, C++ libraries and crashes too, to a trial's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    target = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
    logging.getLogger("ray").setLevel(logging.WARNING)  # every report it passes on, otherwise
