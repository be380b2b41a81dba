"""The training loop: steps without host synchronisation, epochs that report and checkpoint.

A `Training` is one trial on its way; `train` takes one to its end, `batched` several at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from diffgap.bridge.base import Bridge
from diffgap.bridge.config import BridgeConfig
from diffgap.bridge.objective import Batch
from diffgap.spec import Train
from diffgap.training.checkpoint import Best, HistoryPoint, Progress, State
from diffgap.training.context import TrialContext
from diffgap.training.data import PairTable
from diffgap.training.divergence import check_losses
from diffgap.training.engine import clip, close, retune
from diffgap.training.resume import begin

MAX_POINTS = 1000
"""Training points kept of a trial; longer trials average neighbouring steps."""

log = logging.getLogger(__name__)


class StoppedError(RuntimeError):
    """Somebody asked for the training to end before its last step."""


@dataclass(frozen=True)
class TrainingRecipe:
    """How a bridge is trained and validated.

    `changes` gives the bridge's config and the settings anew from each of its steps on, for
    trials whose hyperparameters change on the way.
    """

    settings: Train
    validate: Callable[[Bridge], dict[str, float]]
    """Metrics of the averaged bridge on val, taken by the first worker at the end of an epoch."""
    changes: dict[int, tuple[BridgeConfig, Train]]


@dataclass
class Training:
    """One trial that trains, alone or with others in its engine."""

    table: PairTable
    recipe: TrainingRecipe
    context: TrialContext
    state: State

    def begin(self) -> None:
        """Says from where it goes on."""
        settings, progress = self.recipe.settings, self.state.progress
        self._log("Training from step %d to %d", progress.step, settings.steps)
        self.context.begin(progress, settings.steps)

    @property
    def epoch(self) -> range:
        """The steps up to the next validation; none when it is over."""
        settings, step = self.recipe.settings, self.state.progress.step
        return range(step, min(step + settings.epoch_steps, settings.steps))

    def go_on(self) -> None:
        """Raises StoppedError where the host says so after an epoch."""
        step = self.state.progress.step
        if step and self.context.should_stop(step):
            raise StoppedError(f"stopped after step {step}")

    def batch(self, step: int) -> Batch:
        """The examples of a step, the same however it is reached."""
        table = self.table
        return self.state.bridge.batch(*table.batch(step), step, table.generator_at(step))

    def learn(self, epoch: Epoch) -> None:
        """Adds an epoch to the history, and the averaged bridge's validation.

        Raises:
            DivergedError: where the loss is no number, or has exploded.
        """
        state, settings = self.state, self.recipe.settings
        bridge, progress = state.bridge, state.progress
        check_losses(epoch.losses[:, 0], epoch.steps, progress.history, bridge.config, settings)
        state.progress = replace(
            progress,
            step=epoch.steps.stop,
            seconds=progress.seconds + epoch.seconds,
            history=[*progress.history, *epoch.points(bridge.auxiliary, settings)],
        )
        if self.context.rank == 0:
            self._validate()

    def keep(self) -> None:
        """Checkpoints the epoch and reports it; every worker must take part."""
        save = partial(self.state.save, rank=self.context.rank)
        self.context.epoch(self.state.progress, self.recipe.settings.steps, save)

    def result(self) -> tuple[Bridge, Progress]:
        """The bridge with the averaged weights that were best on val, and the trial's history.

        On workers but the first, the latest averaged weights.
        """
        if self.state.best:
            self.state.average.twin.load_state_dict(self.state.best)
        return self.state.average.twin, self.state.progress

    def _validate(self) -> None:
        """Adds the validation to the history, and keeps the weights if it is the best."""
        state = self.state
        found = self.recipe.validate(state.average.twin)
        step, value = state.progress.step, choice(found)
        metrics = {f"val/{name}": figure for name, figure in found.items()}
        state.progress.history.append(HistoryPoint(step, metrics))
        if state.progress.best is None or value >= state.progress.best.value:
            state.progress.best = Best(step, value)
            weights = state.average.twin.state_dict()
            state.best = {name: tensor.clone() for name, tensor in weights.items()}
        self._log("Step %d: R@5 on val %.2f", step, value)

    def _log(self, text: str, *values: float) -> None:
        """Logs what concerns this trial alone."""
        log.info(text, *values, extra={"trial": self.context.record.path.name})


def choice(metrics: dict[str, float]) -> float:
    """What checkpoints of one trial are chosen by: mean R@5 of both directions, in percent."""
    return mean(value for name, value in metrics.items() if name.endswith("/R5"))


def train(
    bridge: Bridge, table: PairTable, recipe: TrainingRecipe, context: TrialContext
) -> tuple[Bridge, Progress]:
    """Trains a bridge to its last step, from its latest checkpoint if it has one.

    Args:
        bridge: the model; its weights change.
        table: the training split.
        recipe: the settings, and how it is validated.
        host: device, rank, checkpoints, reports.

    Returns:
        See `Training.result`.

    Raises:
        DivergedError: where the loss is no number, or has exploded.
        StoppedError: where the host says so after an epoch.
    """
    training = Training(table, recipe, context, begin(bridge, recipe.settings, context))
    engine = training.state.engine
    try:
        training.begin()
        while training.epoch:
            training.go_on()
            _change(training)
            (epoch,) = run_epoch(engine, [training])
            training.learn(epoch)
            training.keep()
    finally:
        close(engine)
    return training.result()


def _change(training: Training) -> None:
    """Puts the settings in force that the trial has from the coming step on."""
    state, changes = training.state, training.recipe.changes
    begun = [step for step in changes if step <= state.progress.step]
    if begun:
        config, settings = changes[max(begun)]
        state.bridge.config = state.average.twin.config = config
        retune(state.engine, [settings], state.progress.step)


@dataclass(frozen=True)
class Epoch:
    """What some steps of one trial came to."""

    steps: range
    losses: Tensor
    """(S, 3) total, squared error and auxiliary, on the CPU."""
    rates: list[float]
    """The learning rate of every step."""
    seconds: float
    """That they took; of trials in one engine, each one's share."""

    def points(self, auxiliary: str | None, settings: Train) -> list[HistoryPoint]:
        """Points of every step, or means of neighbours where there are many."""
        stride = 1 + settings.steps // MAX_POINTS
        names = ["train/loss", "train/mse"] + [f"train/{auxiliary}"] * (auxiliary is not None)
        points = []
        for start in range(0, len(self.steps), stride):
            means = self.losses[start : start + stride].mean(0).tolist()
            metrics = dict(zip(names, means, strict=False))
            rate = {"train/lr": self.rates[start]}
            points.append(HistoryPoint(self.steps[start] + 1, {**metrics, **rate}))
        return points


def run_epoch(engine: Any, trainings: Sequence[Training]) -> list[Epoch]:
    """Runs the steps up to the next validation, the same for all trials of an engine.

    Losses stay on the device until the last of them.
    """
    began = time.perf_counter()
    context, steps = trainings[0].context, trainings[0].epoch
    losses = torch.zeros(len(steps), 3, len(trainings), device=context.device)
    rates = []
    for row, step in zip(losses, steps, strict=True):
        rates.append([group["lr"] for group in engine.optimizer.param_groups])
        row.copy_(run_step(engine, trainings, step))
    if context.workers > 1:
        torch.distributed.all_reduce(losses)
        losses /= context.workers
    found = losses.cpu()
    seconds = (time.perf_counter() - began) / len(trainings)
    return [
        Epoch(steps, found[:, :, i], [row[i] for row in rates], seconds)
        for i in range(len(trainings))
    ]


def run_step(engine: Any, trainings: Sequence[Training], step: int) -> Tensor:
    """One optimiser step of K trials, in micro-batches: this worker's means of the (3, K) losses.

    Micro-batches share out the batch as further workers would, negatives and all; DeepSpeed means
    their gradients, and moves the weights after the last of them.
    """
    settings, context = trainings[0].recipe.settings, trainings[0].context
    batches = [training.batch(step) for training in trainings]
    shares = context.workers * settings.accumulation
    losses = torch.zeros(3, len(trainings), device=context.device)
    for i in range(settings.accumulation):
        share = context.rank * settings.accumulation + i
        parts = engine(*(batch.shard(share, shares) for batch in batches))
        engine.backward(parts.total.sum())
        if i == settings.accumulation - 1:
            for training in trainings:
                clip(training.state.bridge.parameters(), training.recipe.settings)
        engine.step()
        losses += torch.stack(parts).detach().view(3, -1)
    for training in trainings:
        training.state.average.update(training.state.bridge, step, settings.zero_stage)
    return losses / settings.accumulation
