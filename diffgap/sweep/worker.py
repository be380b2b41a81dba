"""A worker of a pack's Ray Train job, and the trials of a sweep that run there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from diffgap.ledger.ledger import TrialRecord
from diffgap.sweep.messages import TrialEvent, TrialJob, TrialReport
from diffgap.training.context import TrialContext, local_device

VERDICT_POLL_S = 0.05
"""Pause between two looks for a study's verdict at a rung."""


@dataclass(frozen=True)
class WorkerContext:
    """A process among the workers of a Ray Train job, and how it reports to the sweep."""

    device: torch.device
    rank: int
    workers: int
    report: Callable[[dict[str, Any]], None]

    @classmethod
    def of_worker(cls) -> WorkerContext:
        """A worker that Ray Train has started."""
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        rank, workers = context.get_world_rank(), context.get_world_size()
        return cls(ray.train.torch.get_device(), rank, workers, ray.train.report)

    @classmethod
    def of_driver(cls) -> WorkerContext:
        """The driver's own process as its only worker."""
        from ray import tune

        return cls(local_device(), 0, 1, tune.report)

    def decide(self, question: Callable[[], bool]) -> bool:
        """The first worker's answer, on every worker."""
        # A file that appears between two workers' looks would leave one alone in a collective.
        answer = [self.rank == 0 and question()]
        if self.workers > 1:
            torch.distributed.broadcast_object_list(answer, src=0)
        return answer[0]


class SweepTrialContext(TrialContext):
    """Where one trial of a sweep runs."""

    def __init__(self, record: TrialRecord, job: TrialJob, worker: WorkerContext) -> None:
        super().__init__(record, worker.device, worker.rank, worker.workers, job.pause_at)
        self.job, self.worker = job, worker
        self._reported = 0
        """Points of the history that this process has reported."""

    def send(self, event: TrialEvent, step: int = 0, points: tuple[Any, ...] = ()) -> None:
        """Reports to the sweep; every worker must, for Ray Train waits for all of them."""
        fields = tuple(asdict(point) for point in points)
        self.worker.report(TrialReport(self.job.signature, event, step, fields).to_dict())

    def start(self, progress: Any, steps: int) -> None:
        super().start(progress, steps)
        if progress.step:  # what an earlier attempt reported last may have been lost with it
            self.report(progress)

    def report(self, progress: Any) -> None:
        """Reports the points that this process has not reported: after a restart, all of them."""
        points = tuple(progress.history[self._reported :])
        self._reported = len(progress.history)
        self.send(TrialEvent.PROGRESS, progress.step, points)

    def should_stop(self, step: int) -> bool:
        return self.worker.decide(lambda: self._should_stop(step))

    def _should_stop(self, step: int) -> bool:
        """Whether to stop or pause; at a rung, once the study's verdict is in the ledger."""
        if super().should_stop(step):
            return True
        rungs, study = self.job.rungs, self.job.study
        while step in rungs and step not in self.record.rungs(study) and not self.record.stop:
            time.sleep(VERDICT_POLL_S)
        return self.record.stop is not None
