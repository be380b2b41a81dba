"""Training loop: steps without host synchronisation, epochs that validate and checkpoint.

A `Training` is one trial under way; `train` runs one to its end, `batched` several at once.
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
from diffgap.compat.deepspeed import close_engine
from diffgap.spec import Train
from diffgap.training.checkpoint import Best, HistoryPoint, Progress, State
from diffgap.training.context import TrialContext
from diffgap.training.data import PairTable
from diffgap.training.divergence import check_losses
from diffgap.training.engine import apply_settings, clip_gradients
from diffgap.training.resume import initial_state

MAX_POINTS = 1000  # of a trial's training curve; longer trials average neighbouring steps

log = logging.getLogger(__name__)


class StoppedError(RuntimeError):
    """The training was stopped before its last step, on request."""


@dataclass(frozen=True)
class TrainingRecipe:
    """How a bridge is trained and validated."""

    settings: Train
    validate: Callable[[Bridge], dict[str, float]]
    """Metrics of the averaged bridge on val, computed by the first worker after every epoch."""
    changes: dict[int, tuple[BridgeConfig, Train]]
    """The bridge's config and the settings from a step on, for trials whose hyperparameters change
    during training (population-based training)."""


@dataclass
class Training:
    """One trial in training, alone or with others in its engine."""

    table: PairTable
    recipe: TrainingRecipe
    context: TrialContext
    state: State

    def start(self) -> None:
        """Logs and notes the step from which it starts or resumes."""
        settings, progress = self.recipe.settings, self.state.progress
        self._log("Training from step %d to %d", progress.step, settings.steps)
        self.context.start(progress, settings.steps)

    @property
    def next_steps(self) -> range:
        """The steps up to the next validation; empty after the last."""
        settings, step = self.recipe.settings, self.state.progress.step
        return range(step, min(step + settings.epoch_steps, settings.steps))

    def raise_if_stopped(self) -> None:
        """Raises StoppedError where the context asks for a stop after the last epoch."""
        step = self.state.progress.step
        if step and self.context.should_stop(step):
            raise StoppedError(f"stopped after step {step}")

    def batch(self, step: int) -> Batch:
        """The examples of a step, the same however it is reached."""
        table, state = self.table, self.state
        generator = table.generator_at(step)
        return state.bridge.batch(*table.batch(step), step, generator, state.average.twin)

    def end_epoch(self, epoch: Epoch) -> None:
        """Adds an epoch and its validation to the history; a diverged loss raises an error."""
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

    def checkpoint(self) -> None:
        """Writes a checkpoint of the epoch and reports it; every worker must take part."""
        save = partial(self.state.save, rank=self.context.rank)
        self.context.end_epoch(self.state.progress, self.recipe.settings.steps, save)

    def result(self) -> tuple[Bridge, Progress]:
        """The bridge with the averaged weights that were best on val, and its progress.

        Only the first worker validates: on the others it has the latest averaged weights.
        """
        if self.state.best:
            self.state.average.twin.load_state_dict(self.state.best)
        return self.state.average.twin, self.state.progress

    def _validate(self) -> None:
        """Adds a validation to the history; if it is the best so far, keeps the weights."""
        state, progress = self.state, self.state.progress
        metrics = self.recipe.validate(state.average.twin)
        score = selection_score(metrics)
        labelled = {f"val/{name}": value for name, value in metrics.items()}
        progress.history.append(HistoryPoint(progress.step, labelled))
        # Ties are common on a small split; the later weights are averaged over more steps.
        if progress.best is None or score >= progress.best.value:
            progress.best = Best(progress.step, score)
            weights = state.average.twin.state_dict()
            state.best = {name: tensor.clone() for name, tensor in weights.items()}
        self._log("Step %d: R@5 on val %.2f", progress.step, score)

    def _log(self, text: str, *values: float) -> None:
        """Logs a line in this trial's log alone."""
        log.info(text, *values, extra={"trial": self.context.record.path.name})


def selection_score(metrics: dict[str, float]) -> float:
    """The score that selects a trial's best checkpoint: mean R@5 of both directions, in percent."""
    return mean(value for name, value in metrics.items() if name.endswith("/R5"))


def train(
    bridge: Bridge, table: PairTable, recipe: TrainingRecipe, context: TrialContext
) -> tuple[Bridge, Progress]:
    """Trains a bridge to its last step, from its latest checkpoint if it has one.

    Raises:
        DivergedError: where the loss is no number, or has exploded.
        StoppedError: where the context asks for a stop after an epoch.
    """
    state = initial_state(bridge, recipe.settings, context)
    training = Training(table, recipe, context, state)
    try:
        training.start()
        while training.next_steps:
            training.raise_if_stopped()
            _apply_changes(training)
            (epoch,) = run_epoch(state.engine, [training])
            training.end_epoch(epoch)
            training.checkpoint()
    finally:
        close_engine(state.engine)
    return training.result()


def _apply_changes(training: Training) -> None:
    """Applies the latest change of settings that the coming step has reached."""
    state, changes = training.state, training.recipe.changes
    reached = [step for step in changes if step <= state.progress.step]
    if reached:
        config, settings = changes[max(reached)]
        state.bridge.config = state.average.twin.config = config
        apply_settings(state.engine, [settings], state.progress.step)


@dataclass(frozen=True)
class Epoch:
    """The steps between two validations of one trial."""

    steps: range
    losses: Tensor  # (S, 3) total, squared error and auxiliary, on the CPU
    learning_rates: list[float]  # one a step
    seconds: float  # wall-clock time; of trials in one engine, each one's share

    def points(self, auxiliary: str | None, settings: Train) -> list[HistoryPoint]:
        """A point per step, or means of neighbouring steps where there are many."""
        stride = 1 + settings.steps // MAX_POINTS
        points = []
        for start in range(0, len(self.steps), stride):
            loss, mse, auxiliary_loss = self.losses[start : start + stride].mean(0).tolist()
            metrics = {"train/loss": loss, "train/mse": mse}
            if auxiliary is not None:
                metrics[f"train/{auxiliary}"] = auxiliary_loss
            metrics["train/lr"] = self.learning_rates[start]
            points.append(HistoryPoint(self.steps[start] + 1, metrics))
        return points


def run_epoch(engine: Any, trainings: Sequence[Training]) -> list[Epoch]:
    """Runs the steps up to the next validation, which are the same for all trials of an engine."""
    start = time.perf_counter()
    context, steps = trainings[0].context, trainings[0].next_steps
    # On the device until the last step: reading a loss would make the host wait for every step.
    losses = torch.zeros(len(steps), 3, len(trainings), device=context.device)
    learning_rates = []
    for row, step in zip(losses, steps, strict=True):
        learning_rates.append([group["lr"] for group in engine.optimizer.param_groups])
        row.copy_(run_step(engine, trainings, step))
    if context.workers > 1:
        torch.distributed.all_reduce(losses)
        losses /= context.workers
    losses = losses.cpu()  # waits for the device, so that the time below is of all steps
    seconds = (time.perf_counter() - start) / len(trainings)
    epochs = []
    for i, trial_losses in enumerate(losses.unbind(2)):
        rates = [step_rates[i] for step_rates in learning_rates]
        epochs.append(Epoch(steps, trial_losses, rates, seconds))
    return epochs


def run_step(engine: Any, trainings: Sequence[Training], step: int) -> Tensor:
    """One optimiser step of K trials, in micro-batches; returns this worker's mean (3, K) losses.

    Micro-batches divide the batch as further workers would, and all of them have the whole batch as
    negatives. DeepSpeed averages their gradients, and updates the weights after the last of them.
    """
    settings, context = trainings[0].recipe.settings, trainings[0].context
    batches = [training.batch(step) for training in trainings]
    shares = context.workers * settings.accumulation
    losses = torch.zeros(3, len(trainings), device=context.device)
    for i in range(settings.accumulation):
        share = context.rank * settings.accumulation + i
        micro_losses = engine(*(batch.shard(share, shares) for batch in batches))
        # No trial's loss depends on another's weights, so each gets the gradient of its own.
        engine.backward(micro_losses.total.sum())
        if i == settings.accumulation - 1:
            for training in trainings:
                clip_gradients(training.state.bridge.parameters(), training.recipe.settings)
        engine.step()
        losses += torch.stack(micro_losses).detach().view(3, -1)
    for training in trainings:
        training.state.average.update(training.state.bridge, step, settings.zero_stage)
    return losses / settings.accumulation
