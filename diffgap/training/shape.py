"""Shapes of trials: those of one shape can train as one batch. Free of torch."""

from __future__ import annotations

from typing import NamedTuple

from diffgap.bridge.registry import METHODS
from diffgap.spec import Trial


class Shape(NamedTuple):
    """What trials must have in common to train as one batch on a store; all else may differ."""

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
    """The shape of a trial's training; None if it can only train alone.

    Trials train alone if they have no network or one of their method's own, if their settings
    change during training (population-based training), or if DeepSpeed partitions their state (ZeRO
    1, 2 and 3).
    """
    train = trial.train
    if not trial.trains or not METHODS[trial.method].packs or trial.changes or train.zero_stage:
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
