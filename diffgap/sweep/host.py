"""A Ray Train worker as the host of a trial."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import ray.train
import ray.train.torch
import torch

from diffgap.ledger import TrialRecord
from diffgap.sweep.worker import HISTORY_KEY, STEP_KEY
from diffgap.training.host import Host

VERDICT_POLL_S = 0.05
"""Between two looks whether a trial may go on from a rung."""


class RayHost(Host):
    """A Ray Train worker as the host of a trial."""

    def __init__(self, record: TrialRecord, job: dict[str, Any]) -> None:
        context = ray.train.get_context()
        super().__init__(
            record,
            ray.train.torch.get_device(),
            context.get_world_rank(),
            context.get_world_size(),
            job["until"],
        )
        self._report = ray.train.report
        self._study, self._rungs = job["study"], set(job["rungs"])
        self._reported = 0

    def begin(self, progress: Any, steps: int) -> None:
        """Reports what earlier attempts found, for it may never have been heard of."""
        super().begin(progress, steps)
        if progress.step:
            self.report(progress)

    def report(self, progress: Any) -> None:
        """Reports the points that this process has not reported: after a restart, all of them."""
        fresh = [asdict(point) for point in progress.history[self._reported :]]
        self._reported = len(progress.history)
        self._report({STEP_KEY: progress.step, HISTORY_KEY: fresh})

    def told_to_stop(self, step: int) -> bool:
        """What the first worker finds in the ledger, so that none goes on alone."""
        stop = [self.rank == 0 and self._stops(step)]
        if self.workers > 1:
            torch.distributed.broadcast_object_list(stop, src=0)
        return stop[0]

    def _stops(self, step: int) -> bool:
        if super().told_to_stop(step):
            return True
        while step in self._rungs and step not in self.record.rungs(self._study):
            if self.record.stop:
                return True
            time.sleep(VERDICT_POLL_S)
        return self.record.stop is not None
