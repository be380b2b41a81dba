"""The training loop: steps without host synchronisation, epochs that report and checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from diffgap.bridge.model import DiffGAP
from diffgap.spec import Train
from diffgap.training import checkpoint
from diffgap.training.checkpoint import Point, Progress
from diffgap.training.data import PairTable
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


class NotFiniteError(ArithmeticError):
    """The loss became NaN or infinite: the trial cannot get better."""


def train(
    bridge: DiffGAP,
    table: PairTable,
    settings: Train,
    host: Host,
    validate: Callable[[DiffGAP], dict[str, float]],
) -> tuple[DiffGAP, Progress]:
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
        NotFiniteError: where the loss is no longer a finite number.
    """
    average = Average(copy.deepcopy(bridge).to(host.device), settings.ema)
    engine = make_engine(bridge, settings, host.workers, host.device)
    progress = Progress(workers=host.workers)

    def restore(path: Path) -> None:
        nonlocal progress
        progress = checkpoint.load(path, engine, average, settings.zero_stage, host.workers)

    host.resume(restore)
    while progress.step < settings.steps:
        stop = min(progress.step + settings.epoch_steps, settings.steps)
        points = _steps(engine, average, table, settings, host, range(progress.step, stop))
        if host.rank == 0:
            metrics = {f"val/{name}": value for name, value in validate(average.twin).items()}
            points.append(Point(stop, metrics))
        progress = replace(progress, step=stop, history=[*progress.history, *points])
        state = {"engine": engine, "average": average, "progress": progress, "rank": host.rank}
        host.epoch(progress, partial(checkpoint.save, **state))
    engine.destroy()
    return average.twin, progress


def _steps(
    engine: Any,
    average: Average[DiffGAP],
    table: PairTable,
    settings: Train,
    host: Host,
    steps: range,
) -> list[Point]:
    """Runs some optimiser steps; losses stay on the device until the last of them."""
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
    return _points(losses.cpu(), rates, steps, stride=1 + settings.steps // MAX_POINTS)


def _points(losses: torch.Tensor, rates: list[float], steps: range, stride: int) -> list[Point]:
    finite = losses.isfinite().all(dim=1)
    if not finite.all():
        first = steps[int(finite.int().argmin())]
        raise NotFiniteError(
            f"the loss is not finite from step {first} on; lower train.lr or set "
            "train.gradient_clipping"
        )
    points = []
    for start in range(0, len(steps), stride):
        total, mse, infonce = losses[start : start + stride].mean(0).tolist()
        metrics = {"loss": total, "mse": mse, "infonce": infonce, "lr": rates[start]}
        named = {f"train/{name}": value for name, value in metrics.items()}
        points.append(Point(steps[start] + 1, named))
    return points
