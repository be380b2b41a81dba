"""When a training has gone wrong for good: the step, the loss, and what is likely to blame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from torch import Tensor

from diffgap.bridge.config import BridgeConfig
from diffgap.spec import Train
from diffgap.training.checkpoint import HistoryPoint

FIRST = 20
"""Losses whose median is where a training started from."""

EXPLODED = 1e3
"""A loss of so many times its start has exploded: healthy ones fall."""


class DivergedError(ArithmeticError):
    """The loss is no number, or has exploded: the trial cannot get better."""


def check_losses(
    losses: Tensor,
    steps: range,
    history: Sequence[HistoryPoint],
    config: BridgeConfig,
    settings: Train,
) -> None:
    """Looks at the losses of some steps.

    Args:
        losses: (S,) loss of every step.
        steps: their numbers.
        history: the training's points before them.
        config: the bridge that trains, and
        settings: how; both to tell what is likely to blame.

    Raises:
        DivergedError: with the first bad step, its loss and the likely cause.
    """
    before = [p.metrics["train/loss"] for p in history if "train/loss" in p.metrics]
    start = median((before + losses.tolist())[:FIRST])
    limit = EXPLODED * max(start, 1e-6) if math.isfinite(start) else math.inf
    bad = (~losses.isfinite() | (losses > limit)).nonzero()
    if not len(bad):
        return
    step, loss = steps[int(bad[0])], losses[int(bad[0])].item()
    times = f", {loss / start:.2g} times its start" if math.isfinite(loss) else ""
    cause = likely_cause(config, settings, at_once=step == 0)
    raise DivergedError(f"step {step}: the loss is {loss:.4g}{times}; {cause}")


def likely_cause(config: BridgeConfig, settings: Train, at_once: bool) -> str:
    """What to change first, given the settings and whether the very first loss was wrong."""
    objective = config.objective
    if at_once and objective.condition_noise > 10:
        return (
            f"loss.condition_noise {objective.condition_noise:g} drowns conditions, which have "
            "unit variance; use 0.5"
        )
    if at_once:
        return "it was so from the start: look at the store (diffgap store show) and at loss.*"
    if objective.weight == "snr":
        return "cdm.weight.kind snr grows without bound towards clean targets; use min_snr"
    if settings.gradient_clipping == 0:
        return (
            f"likely train.lr {settings.lr:g} without clipping; set train.gradient_clipping 1, "
            "or lower train.lr"
        )
    return f"likely train.lr {settings.lr:g} is too high; try {settings.lr / 10:g}"
