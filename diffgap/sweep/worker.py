"""What runs on the cluster: a Tune driver a trial, and the Ray Train workers it starts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffgap.ledger import Ledger, TrialRecord
from diffgap.spec import Trial

JOB = "job"
"""Tune's one parameter: everything a trial's worker needs, as plain data."""

HISTORY_KEY, STEP_KEY = "history", "step"
"""What a worker reports: the points since its last report, and the steps done."""

MAX_WORKER_FAILURES = 1
"""Restarts from the latest checkpoint that a trial may cost."""


class TrialFailedError(RuntimeError):
    """A trial that has said why it cannot be finished."""


class RayHost:
    """A Ray Train worker as the host of a trial."""

    def __init__(self, record: TrialRecord) -> None:
        import ray.train
        import ray.train.torch

        self.record = record
        self._train = ray.train
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.workers = context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._reported = 0

    def resume(self, load: Callable[[Path], None]) -> None:
        checkpoint = self._train.get_checkpoint()
        if checkpoint:
            with checkpoint.as_directory() as path:
                load(Path(path))

    def epoch(self, progress: Any, save: Callable[[Path], None]) -> None:
        """Reports the points that this process has not reported: after a restart, all of them."""
        fresh = [asdict(point) for point in progress.history[self._reported :]]
        self._reported = len(progress.history)
        metrics = {STEP_KEY: progress.step, HISTORY_KEY: fresh}
        with tempfile.TemporaryDirectory() as path:
            save(Path(path))
            checkpoint = self._train.Checkpoint.from_directory(path)
            self._train.report(metrics, checkpoint=checkpoint)

    def told_to_stop(self) -> bool:
        """What the first worker finds in the ledger, so that none goes on alone."""
        stop = [self.rank == 0 and self.record.stop is not None]
        if self.workers > 1:
            import torch

            torch.distributed.broadcast_object_list(stop, src=0)
        return stop[0]


def train_worker(job: dict[str, Any]) -> None:
    """Ray Train's training function: one worker of one trial.

    A training that diverges would do so again: it ends here with a note in the ledger, so that
    Ray does not restart it.
    """
    from diffgap.training.divergence import DivergedError
    from diffgap.training.loop import StoppedError
    from diffgap.training.trial import run_trial

    ledger = Ledger(Path(job["output"]))
    record = ledger.trial(job["signature"])
    trial = Trial.model_validate(job["trial"])
    try:
        run_trial(trial, job["signature"], job["store"], ledger, RayHost(record))
    except DivergedError as error:
        record.fail(str(error))
    except StoppedError:
        return  # the ledger has the reason


def drive(config: dict[str, Any]) -> None:
    """Ray Tune's trainable: runs one trial as a Ray Train job, and cleans up behind it.

    The Train run's name and place follow from the signature, so that a driver which is started
    again goes on from its predecessor's latest checkpoint.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    job = config[JOB]
    record = Ledger(Path(job["output"])).trial(job["signature"])
    if record.finished:
        return
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=job,
        scaling_config=ScalingConfig(**job["scaling"]),
        run_config=RunConfig(
            name="ray",
            storage_path=str(record.checkpoints),
            failure_config=FailureConfig(max_failures=MAX_WORKER_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=[TuneReportCallback()],
        ),
    )
    record.try_again()
    trainer.fit()
    if record.failure:
        raise TrialFailedError(record.failure)
    shutil.rmtree(record.checkpoints, ignore_errors=True)
