"""A process of a pack's Ray Train job as the host of its trials."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from diffgap.ledger.ledger import TrialRecord
from diffgap.sweep.driver import GOES_ON, HISTORY_KEY, SIGNATURE_KEY, STATE_KEY, STEP_KEY
from diffgap.training.context import TrialContext, local_device

VERDICT_POLL_S = 0.05
"""Between two looks whether a trial may go on from a rung."""


@dataclass(frozen=True)
class WorkerContext:
    """A process's place among the workers of a Ray Train job, and its way to tell the sweep."""

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
        device = ray.train.torch.get_device()
        rank, workers = context.get_world_rank(), context.get_world_size()
        return cls(device, rank, workers, ray.train.report)

    @classmethod
    def of_driver(cls) -> WorkerContext:
        """The driver's own process, which is its only worker."""
        from ray import tune

        return cls(local_device(), 0, 1, tune.report)

    def decide(self, question: Callable[[], bool]) -> bool:
        """The first worker's answer, so that none goes another way."""
        answer = [self.rank == 0 and question()]
        if self.workers > 1:
            torch.distributed.broadcast_object_list(answer, src=0)
        return answer[0]


class SweepTrialContext(TrialContext):
    """Where one trial of a sweep runs."""

    def __init__(self, record: TrialRecord, job: dict[str, Any], worker: WorkerContext) -> None:
        super().__init__(record, worker.device, worker.rank, worker.workers, job["until"])
        self.worker = worker
        self._signature = job["signature"]
        self._study, self._rungs = job["study"], set(job["rungs"])
        self._reported = 0

    def tell(self, state: str, step: int = 0, points: tuple[Any, ...] = ()) -> None:
        """Tells the sweep how it goes; every worker must."""
        news = {SIGNATURE_KEY: self._signature, STATE_KEY: state, STEP_KEY: step}
        self.worker.report({**news, HISTORY_KEY: [asdict(point) for point in points]})

    def begin(self, progress: Any, steps: int) -> None:
        """Reports what earlier attempts found, for it may never have been heard of."""
        super().begin(progress, steps)
        if progress.step:
            self.report(progress)

    def report(self, progress: Any) -> None:
        """Reports the points that this process has not reported: after a restart, all of them."""
        fresh = tuple(progress.history[self._reported :])
        self._reported = len(progress.history)
        self.tell(GOES_ON, progress.step, fresh)

    def should_stop(self, step: int) -> bool:
        """What the first worker finds in the ledger, so that none goes on alone."""
        return self.worker.decide(lambda: self._stops(step))

    def _stops(self, step: int) -> bool:
        if super().should_stop(step):
            return True
        while step in self._rungs and step not in self.record.rungs(self._study):
            if self.record.stop:
                return True
            time.sleep(VERDICT_POLL_S)
        return self.record.stop is not None
