"""The training loop: steps without host synchronisation, epochs that report and checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean
from typing import Any

import torch

from diffgap.bridge.base import Bridge
from diffgap.bridge.config import BridgeConfig
from diffgap.bridge.objective import Batch
from diffgap.spec import Train
from diffgap.training.checkpoint import Best, Point, Progress, State
from diffgap.training.data import PairTable
from diffgap.training.divergence import check_losses
from diffgap.training.elastic import begin
from diffgap.training.engine import Average, retune
from diffgap.training.host import Host

MAX_POINTS = 1000
"""Training points kept of a trial; longer trials average neighbouring steps."""

log = logging.getLogger(__name__)


class StoppedError(RuntimeError):
    """Somebody asked for the training to end before its last step."""


@dataclass(frozen=True)
class Recipe:
    """How a bridge is trained and validated.

    `changes` gives the bridge's config and the settings anew from each of its steps on, for
    trials whose hyperparameters change on the way.
    """

    settings: Train
    validate: Callable[[Bridge], dict[str, float]]
    """Metrics of the averaged bridge on val, taken by the first worker at the end of an epoch."""
    changes: dict[int, tuple[BridgeConfig, Train]]


def train(bridge: Bridge, table: PairTable, recipe: Recipe, host: Host) -> tuple[Bridge, Progress]:
    """Trains a bridge to its last step, from its latest checkpoint if it has one.

    Args:
        bridge: the model; its weights change.
        table: the training split.
        recipe: the settings, and how it is validated.
        host: device, rank, checkpoints, reports.

    Returns:
        The bridge with the averaged weights that were best on val, and the trial's history. On
        workers but the first, the latest averaged weights.

    Raises:
        DivergedError: where the loss is no number, or has exploded.
        StoppedError: where the host says so after an epoch.
    """
    settings = recipe.settings
    state = begin(bridge, settings, host)
    log.info("Training from step %d to %d", state.progress.step, settings.steps)
    host.begin(state.progress, settings.steps)
    while state.progress.step < settings.steps:
        if state.progress.step and host.told_to_stop(state.progress.step):
            raise StoppedError(f"stopped after step {state.progress.step}")
        _change(state, recipe)
        state.progress = _epoch(state, table, settings, host)
        if host.rank == 0:
            _validate(state, recipe)
        host.epoch(state.progress, settings.steps, partial(state.save, rank=host.rank))
    state.engine.destroy()
    if state.best:
        state.average.twin.load_state_dict(state.best)
    return state.average.twin, state.progress


def _change(state: State, recipe: Recipe) -> None:
    """Puts the settings in force that the trial has from the coming step on."""
    begun = [step for step in recipe.changes if step <= state.progress.step]
    if not begun:
        return
    config, settings = recipe.changes[max(begun)]
    state.engine.module.config = state.average.twin.config = config
    retune(state.engine, settings, state.progress.step)


def _validate(state: State, recipe: Recipe) -> None:
    """Adds the epoch's validation to the history, and keeps the weights if it is the best."""
    found = recipe.validate(state.average.twin)
    step, value = state.progress.step, choice(found)
    metrics = {f"val/{name}": figure for name, figure in found.items()}
    state.progress.history.append(Point(step, metrics))
    if state.progress.best is None or value >= state.progress.best.value:
        state.progress.best = Best(step, value)
        weights = state.average.twin.state_dict()
        state.best = {name: tensor.clone() for name, tensor in weights.items()}
    log.info("Step %d: R@5 on val %.2f", step, value)


def choice(metrics: dict[str, float]) -> float:
    """What checkpoints of one trial are chosen by: mean R@5 of both directions, in percent."""
    return mean(value for name, value in metrics.items() if name.endswith("/R5"))


def _epoch(state: State, table: PairTable, settings: Train, host: Host) -> Progress:
    """The steps up to the next validation, and what they cost."""
    began = time.perf_counter()
    progress = state.progress
    steps = range(progress.step, min(progress.step + settings.epoch_steps, settings.steps))
    losses, rates = _steps(state.engine, state.average, table, settings, host, steps)
    bridge = state.engine.module
    check_losses(losses[:, 0], steps, progress.history, bridge.config, settings)
    return replace(
        progress,
        step=steps.stop,
        seconds=progress.seconds + time.perf_counter() - began,
        history=[*progress.history, *_points(losses, bridge.auxiliary, rates, steps, settings)],
    )


def _steps(
    engine: Any,
    average: Average[Bridge],
    table: PairTable,
    settings: Train,
    host: Host,
    steps: range,
) -> tuple[torch.Tensor, list[float]]:
    """Runs some optimiser steps; losses stay on the device until the last of them.

    Returns:
        (S, 3) losses on the CPU, and the learning rate of every step.
    """
    losses = torch.zeros(len(steps), 3, device=host.device)
    rates = []
    for row, step in zip(losses, steps, strict=True):
        batch = engine.module.batch(*table.batch(step), step, table.generator_at(step))
        rates.append(engine.optimizer.param_groups[0]["lr"])
        row.copy_(_step(engine, batch, settings.accumulation, host))
        average.update(engine.module, step, settings.zero_stage)
    if host.workers > 1:
        torch.distributed.all_reduce(losses)
        losses /= host.workers
    return losses.cpu(), rates


def _step(engine: Any, batch: Batch, accumulation: int, host: Host) -> torch.Tensor:
    """One optimiser step, in micro-batches: this worker's mean of the (3,) losses.

    Micro-batches share out the batch as further workers would, negatives and all; DeepSpeed means
    their gradients, and moves the weights after the last of them.
    """
    losses = torch.zeros(3, device=host.device)
    for i in range(accumulation):
        parts = engine(batch.shard(host.rank * accumulation + i, host.workers * accumulation))
        engine.backward(parts.total)
        engine.step()
        losses += torch.stack(parts).detach()
    return losses / accumulation


def _points(
    losses: torch.Tensor,
    auxiliary: str | None,
    rates: list[float],
    steps: range,
    settings: Train,
) -> list[Point]:
    """Points of (S, 3) losses: of every step, or means of neighbours where there are many."""
    stride = 1 + settings.steps // MAX_POINTS
    names = ["train/loss", "train/mse"] + [f"train/{auxiliary}"] * (auxiliary is not None)
    points = []
    for start in range(0, len(steps), stride):
        means = losses[start : start + stride].mean(0).tolist()
        metrics = dict(zip(names, means, strict=False))
        points.append(Point(steps[start] + 1, {**metrics, "train/lr": rates[start]}))
    return points
