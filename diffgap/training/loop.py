"""The training loop: steps without host synchronisation, epochs that report and checkpoint."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from diffgap.bridge.base import Bridge
from diffgap.spec import Train
from diffgap.training import checkpoint
from diffgap.training.checkpoint import Point, Progress
from diffgap.training.data import PairTable
from diffgap.training.divergence import check_losses
from diffgap.training.engine import Average, make_engine

MAX_POINTS = 1000
"""Training points kept of a trial; longer trials average neighbouring steps."""


class Host(Protocol):
    """Where a trial runs: plain (`local`) or in a Ray Train worker. It keeps the checkpoints."""

    rank: int
    workers: int
    device: torch.device

    def resume(self, load: Callable[[Path], None]) -> None:
        """Calls `load` with the latest checkpoint's directory, if there is one."""

    def epoch(self, progress: Progress, save: Callable[[Path], None]) -> None:
        """Reports an epoch's end and keeps the checkpoint that `save` writes into a directory."""

    def told_to_stop(self) -> bool:
        """Whether somebody wants no more epochs; the same on every worker."""


class StoppedError(RuntimeError):
    """Somebody asked for the training to end before its last step."""


def train(
    bridge: Bridge,
    table: PairTable,
    settings: Train,
    host: Host,
    validate: Callable[[Bridge], dict[str, float]],
) -> tuple[Bridge, Progress]:
    """Trains a bridge to its last step, from its latest checkpoint if it has one.

    Args:
        bridge: the model; its weights change.
        table: the training split.
        settings: the trial's `train` block.
        host: device, rank, checkpoints, reports.
        validate: metrics of the averaged bridge, taken on rank 0 at the end of every epoch.

    Returns:
        The bridge with averaged weights, and the trial's history.

    Raises:
        DivergedError: where the loss is no number, or has exploded.
        StoppedError: where the host says so after an epoch.
    """
    average = Average(copy.deepcopy(bridge).to(host.device), settings.ema)
    engine = make_engine(bridge, settings, host.workers, host.device)
    progress = Progress(workers=host.workers)

    def restore(path: Path) -> None:
        nonlocal progress
        progress = checkpoint.load(path, engine, average, settings.zero_stage, host.workers)

    host.resume(restore)
    while progress.step < settings.steps:
        progress = _epoch(engine, average, table, settings, host, progress)
        if host.rank == 0:
            metrics = {f"val/{name}": value for name, value in validate(average.twin).items()}
            progress.history.append(Point(progress.step, metrics))
        state = {"engine": engine, "average": average, "progress": progress, "rank": host.rank}
        host.epoch(progress, partial(checkpoint.save, **state))
        if progress.step < settings.steps and host.told_to_stop():
            raise StoppedError(f"stopped after step {progress.step}")
    engine.destroy()
    return average.twin, progress


def _epoch(
    engine: Any,
    average: Average[Bridge],
    table: PairTable,
    settings: Train,
    host: Host,
    progress: Progress,
) -> Progress:
    """The steps up to the next validation, and what they cost."""
    began = time.perf_counter()
    steps = range(progress.step, min(progress.step + settings.epoch_steps, settings.steps))
    losses, rates = _steps(engine, average, table, settings, host, steps)
    bridge = engine.module
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
        parts = engine(batch.shard(host.rank, host.workers))
        rates.append(engine.optimizer.param_groups[0]["lr"])
        engine.backward(parts.total)
        engine.step()
        average.update(engine.module, step, settings.zero_stage)
        row.copy_(torch.stack(parts).detach())
    if host.workers > 1:
        torch.distributed.all_reduce(losses)
        losses /= host.workers
    return losses.cpu(), rates


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
