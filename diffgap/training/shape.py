"""Which trials can train as one."""

from __future__ import annotations

from collections.abc import Hashable

from diffgap.spec import Trial


def shape_of(trial: Trial) -> Hashable:
    """What trials must share to train as one network with a leading trial axis."""
    if not trial.trains:
        return None
    train = trial.train
    return (trial.task, trial.denoiser, train.batch_size, train.steps, train.epoch_steps)
