"""Several trials of one shape, trained at once on one device: a batched network, one engine.

Each is the same experiment as alone. It has its own batches and noise, which follow from its seed
and the step, its own parameter group with its own learning rates, weight decay and clipping, its
own averages, validation, checkpoints and reports; checkpoints are those that it would write alone.
One that is stopped or fails leaves, and the others go on in a smaller engine.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from diffgap.bridge.stacked import StackedBridges
from diffgap.ledger.ledger import Ledger
from diffgap.spec import Trial, training_signature
from diffgap.store.cache import open_again
from diffgap.store.store import EmbeddingStore
from diffgap.training.checkpoint import Progress, State, read_progress
from diffgap.training.context import TrialContext
from diffgap.training.data import PairTable
from diffgap.training.divergence import DivergedError
from diffgap.training.engine import Average, close, engine_of, process_group, retune
from diffgap.training.loop import StoppedError, Training, run_epoch
from diffgap.training.resume import resume
from diffgap.training.shape import shape_of
from diffgap.training.trial import conclude, fresh_bridge, recipe_of, run_trial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackMember:
    """One trial of a batch."""

    trial: Trial
    signature: str
    context: TrialContext


Ended = Callable[[PackMember, Exception | None], None]
"""Told of each member once: that it is finished, or by which error of its own it ended."""


def can_batch(members: Sequence[PackMember]) -> bool:
    """Whether these trials can train as one batch: one shape, one place, one step to go on from.

    Every worker must ask, and gets the same answer.
    """
    shapes = {shape_of(member.trial) for member in members}
    places = {(m.context.device, m.context.rank, m.context.workers) for m in members}
    if None in shapes or len(shapes) != 1 or len(places) != 1:
        return False
    found = [member.context.checkpoints.latest() for member in members]
    return len({read_progress(path).step if path else 0 for path in found}) == 1


def run_batched(
    members: Sequence[PackMember], store_uri: str, ledger: Ledger, ended: Ended
) -> None:
    """Runs trials for which `can_batch` holds, as `run_trial` runs each.

    Members whose training the ledger has, or another member does, are evaluated after the others.

    Args:
        members: the trials, with the host of each.
        store_uri: their embedding store.
        ledger: where results go.
        ended: told, on every worker, when a member is finished, when it was stopped (StoppedError)
            or diverged (DivergedError), and when its evaluation failed.

    Raises:
        Exception: what concerns all members, such as a full memory, a full disk or a lost worker.
            Those that `ended` has not been told of can go on from their checkpoints.
    """
    store = open_again(store_uri)
    first, later = _distinct(members, store, ledger)
    with process_group(members[0].context.device):
        if first:
            batch = _Batch(first, store, ended)
            batch.train()
            batch.conclude(ledger)
        if later and members[0].context.workers > 1:
            torch.distributed.barrier()  # the first worker may be writing what these will read
        for member in later:
            run = partial(run_trial, member.trial, member.signature, store_uri, ledger)
            ended(member, _error_of(partial(run, member.context)))


def _distinct(
    members: Sequence[PackMember], store: EmbeddingStore, ledger: Ledger
) -> tuple[list[PackMember], list[PackMember]]:
    """Members that must be trained, and those whose training is there or will be."""
    known: set[str] = set()
    first: list[PackMember] = []
    later: list[PackMember] = []
    for member in members:
        training = training_signature(member.trial, store.fingerprint)
        there = training in known or ledger.trained(training) is not None
        (later if there else first).append(member)
        known.add(training)
    return first, later


@dataclass
class _Trainee:
    """A member that trains."""

    member: PackMember
    training: Training


class _Batch:
    """The members that are still in, and the engine that trains them."""

    def __init__(self, members: Sequence[PackMember], store: EmbeddingStore, ended: Ended) -> None:
        self.store, self.ended, self.context = store, ended, members[0].context
        self.trainees = [
            _Trainee(member, training)
            for member, training in zip(members, fresh_trainings(members, store), strict=True)
        ]
        self.engine = gather([trainee.training for trainee in self.trainees])

    def train(self) -> None:
        """Takes all that neither stop nor fail to their last step, from their checkpoints."""
        try:
            self._begin()
            while self.trainees and self.trainees[0].training.epoch:
                self._each(lambda trainee: trainee.training.go_on(), StoppedError)
                if self.trainees:
                    self._epoch()
        finally:
            close(self.engine)

    def conclude(self, ledger: Ledger) -> None:
        """Evaluates those that came to their last step; their checkpoints go to the ledger."""

        def finish(trainee: _Trainee) -> None:
            member, (bridge, progress) = trainee.member, trainee.training.result()
            if self.context.rank == 0:
                conclude(member.trial, member.signature, self.store, ledger, bridge, progress)

        for trainee in self.trainees:
            self.ended(trainee.member, _error_of(partial(finish, trainee)))

    def _begin(self) -> None:
        for trainee in self.trainees:
            training = trainee.training
            if path := training.context.checkpoints.latest():
                resume(training.state, path, training.context)
        tune(self.engine, [trainee.training for trainee in self.trainees])
        log.info("Training in a batch of %d trials", len(self.trainees))
        for trainee in self.trainees:
            trainee.training.begin()

    def _epoch(self) -> None:
        trainings = [trainee.training for trainee in self.trainees]
        if len(trainings) < len(self.engine.optimizer.param_groups):
            self.engine = gather(trainings, self.engine)
            log.info("The batch goes on with %d trials", len(trainings))
        epochs = iter(run_epoch(self.engine, trainings))
        # Several workers only part where all of them know of it, and the first alone validates.
        own = DivergedError if self.context.workers > 1 else Exception
        self._each(lambda trainee: trainee.training.learn(next(epochs)), own)
        for trainee in self.trainees:
            trainee.training.keep()

    def _each(self, action: Callable[[_Trainee], None], own: type[Exception]) -> None:
        """Does something for each member; those that it fails for with an error of theirs leave."""
        staying = []
        for trainee in self.trainees:
            if error := _error_of(partial(action, trainee), own):
                signature = trainee.member.signature
                log.info("It leaves its batch: %s", error, extra={"trial": signature})
                self.ended(trainee.member, error)
            else:
                staying.append(trainee)
        self.trainees = staying


COMMON = (OSError, MemoryError, torch.OutOfMemoryError)
"""Errors that are no trial's own, whoever meets them."""


def _error_of(action: Callable[[], None], own: type[Exception] = Exception) -> Exception | None:
    """The error that a trial's action ends in, if it is one of the trial's own; others pass."""
    try:
        action()
    except COMMON:
        raise
    except own as error:
        return error
    return None


def fresh_trainings(members: Sequence[PackMember], store: EmbeddingStore) -> list[Training]:
    """The members before their first step; they share one copy of the embeddings."""
    first = members[0].trial
    pairs, val = store.pairs(first.task, "train"), store.pairs(first.task, "val")
    table = PairTable(pairs, first.train.batch_size, first.seed, members[0].context.device)
    trainings = []
    for member in members:
        trial, context = member.trial, member.context
        bridge = fresh_bridge(trial, store, context.device)
        bridge.fit(table.x, table.a)
        average = Average(copy.deepcopy(bridge), trial.train.ema)
        state = State(None, bridge, average, Progress(workers=context.workers))
        recipe = recipe_of(trial, val)
        trainings.append(Training(table.of_seed(trial.seed), recipe, context, state))
    return trainings


def gather(trainings: Sequence[Training], before: Any = None) -> Any:
    """One engine for these trainings, at the step where they are.

    `before` is the engine that they come from, with others; it ends, and AdamW's moments go on.
    """
    states = [training.state for training in trainings]
    bridges, context = [state.bridge for state in states], trainings[0].context
    settings = [training.recipe.settings for training in trainings]
    engine = engine_of(StackedBridges(bridges), bridges, settings, context.workers, context.device)
    if before is not None:
        moments = before.optimizer.state
        kept = [p for bridge in bridges for p in bridge.parameters() if p in moments]
        engine.optimizer.state.update({parameter: moments[parameter] for parameter in kept})
        close(before)
    for state in states:
        state.engine = engine
    tune(engine, trainings)
    return engine


def tune(engine: Any, trainings: Sequence[Training]) -> None:
    """Sets the learning rates of the step that the trainings have come to."""
    settings = [training.recipe.settings for training in trainings]
    retune(engine, settings, trainings[0].state.progress.step)
