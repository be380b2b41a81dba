"""Which trials can train as one batch: told by the trials alone, without torch."""

from __future__ import annotations

from typing import NamedTuple

from diffgap.bridge.registry import METHODS
from diffgap.spec import Trial


class Shape(NamedTuple):
    """What the trials of a batch have in common, on one store; all else may differ."""

    task: str
    width: int
    blocks: int
    examples: int
    """Rows that the network sees a step, over all workers and micro-batches."""
    batch_size: int
    accumulation: int
    steps: int
    epoch_steps: int
    precision: str


def shape_of(trial: Trial) -> Shape | None:
    """The shape of a trial's training; None where it can only train alone.

    Alone are trials without a network, those that change on their way (population-based training),
    and those whose weights or optimiser state DeepSpeed shares out (ZeRO 1, 2 and 3).
    """
    train = trial.train
    if not trial.trains or trial.changes or train.zero_stage:
        return None
    joint = trial.bst.enabled and trial.bst.mode == "joint"
    return Shape(
        task=trial.task,
        width=trial.denoiser.width,
        blocks=METHODS[trial.method].blocks or trial.denoiser.blocks,
        examples=train.batch_size * (2 if joint else 1),
        batch_size=train.batch_size,
        accumulation=train.accumulation,
        steps=train.steps,
        epoch_steps=train.epoch_steps,
        precision=train.precision,
    )
