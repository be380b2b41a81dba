"""Divergence of a training: its step, its loss and the likely cause."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from torch import Tensor

from diffgap.bridge.config import BridgeConfig
from diffgap.spec import Train
from diffgap.training.checkpoint import HistoryPoint

INITIAL_LOSSES = 20  # whose median is the initial loss: single ones are noisy
EXPLODED = 1e3  # a loss of so many times the initial one has exploded; healthy ones fall


class DivergedError(ArithmeticError):
    """The loss is not finite, or has exploded: the trial cannot recover."""


def check_losses(
    losses: Tensor,
    steps: range,
    history: Sequence[HistoryPoint],
    config: BridgeConfig,
    settings: Train,
) -> None:
    """Checks the (S,) losses of some steps, which follow a history.

    Raises:
        DivergedError: with the first bad step, its loss and the likely cause.
    """
    earlier = [p.metrics["train/loss"] for p in history if "train/loss" in p.metrics]
    initial = median((earlier + losses.tolist())[:INITIAL_LOSSES])
    # The floor is for a loss that starts at 0, as InfoNCE alone does in a batch of one clip.
    limit = EXPLODED * max(initial, 1e-6) if math.isfinite(initial) else math.inf
    bad = (~losses.isfinite() | (losses > limit)).nonzero()
    if not len(bad):
        return
    step, loss = steps[int(bad[0])], losses[int(bad[0])].item()
    times = f", {loss / initial:.2g} times the initial one" if math.isfinite(loss) else ""
    cause = likely_cause(config, settings, at_once=step == 0)
    raise DivergedError(f"step {step}: the loss is {loss:.4g}{times}; {cause}")


def likely_cause(config: BridgeConfig, settings: Train, at_once: bool) -> str:
    """What to change first; `at_once` says whether the very first loss was bad."""
    objective = config.objective
    if at_once and objective.condition_noise > 10:
        return (
            f"loss.condition_noise {objective.condition_noise:g} drowns the conditions, which have "
            "unit variance; use 0.5"
        )
    if at_once:
        return "it was so from the first step: check the store (diffgap store show) and loss.*"
    if objective.weight == "snr":
        return "cdm.weight.kind snr grows without bound at low noise; use min_snr"
    if settings.gradient_clipping == 0:
        return (
            f"likely train.lr {settings.lr:g} without clipping; set train.gradient_clipping 1, "
            "or lower train.lr"
        )
    return f"likely train.lr {settings.lr:g} is too high; try {settings.lr / 10:g}"
