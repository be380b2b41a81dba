"""Surroundings of a trial: its device and worker, its checkpoints, and who hears of its epochs."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import torch

from diffgap.ledger.ledger import TrialRecord
from diffgap.training.checkpoint import Progress
from diffgap.training.remote_checkpoints import checkpoints_of


class TrialContext:
    """The context of one worker of a trial; subclasses report epochs to somebody.

    The training pauses at step `until`, with a checkpoint, or ends at its last.
    """

    def __init__(
        self,
        record: TrialRecord,
        device: torch.device,
        rank: int = 0,
        workers: int = 1,
        until: int | None = None,
    ) -> None:
        self.record, self.device, self.rank, self.workers = record, device, rank, workers
        self.until = until
        self.checkpoints = checkpoints_of(record.checkpoints, rank, workers)

    def start(self, progress: Progress, steps: int) -> None:
        """Notes that the training starts, or resumes, from this progress."""
        self._note(progress, steps)

    def end_epoch(self, progress: Progress, steps: int, save: Callable[[Path], None]) -> None:
        """Writes the checkpoint of an epoch by `save`, then reports the epoch."""
        # In this order: after a crash, what was reported can be resumed from.
        self.checkpoints.write(progress.step, save)
        self._note(progress, steps)
        self.report(progress)

    def report(self, progress: Progress) -> None:
        """Reports an epoch; here, to nobody."""

    def should_stop(self, step: int) -> bool:
        """Whether the training should stop after this step; the same on every worker."""
        return self.until is not None and step >= self.until

    def _note(self, progress: Progress, steps: int) -> None:
        if self.rank == 0:
            self.record.record_progress(
                {
                    "step": progress.step,
                    "steps": steps,
                    "best": progress.best.value if progress.best else None,
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "time": time.time(),
                }
            )


def local_device() -> torch.device:
    """The GPU if this process has one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
