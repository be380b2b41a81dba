"""Trials of one shape, trained together as one batched network in one engine.

Each is the same experiment as alone. Its batches and noise follow from its seed and the step; it
has its own parameter group with its own learning rates, weight decay and clipping, its own average,
validation and reports, and writes the checkpoints that it would write alone. A trial that is
stopped or fails leaves, and the others continue in a smaller engine.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch

from diffgap.bridge.stacked import StackedBridges
from diffgap.compat.deepspeed import close_engine
from diffgap.ledger.ledger import Ledger
from diffgap.spec import Trial, training_signature
from diffgap.store.cache import open_again
from diffgap.store.store import EmbeddingStore
from diffgap.training.checkpoint import Progress, State, read_progress
from diffgap.training.context import TrialContext
from diffgap.training.data import PairTable
from diffgap.training.divergence import DivergedError
from diffgap.training.engine import Average, apply_settings, joint_engine, process_group
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


OnEnd = Callable[[PackMember, Exception | None], None]
"""Called once a member: with None when it has finished, or with its own error."""


def can_batch(members: Sequence[PackMember]) -> bool:
    """Whether these trials can train as one batch: one shape, one worker, one step to resume from.

    Every worker must call it, and gets the same answer.
    """
    shapes = {shape_of(member.trial) for member in members}
    workers = {(m.context.device, m.context.rank, m.context.workers) for m in members}
    if None in shapes or len(shapes) != 1 or len(workers) != 1:
        return False
    steps = set()
    for member in members:
        path = member.context.checkpoints.latest()
        steps.add(read_progress(path).step if path else 0)
    return len(steps) == 1


def run_batched(
    members: Sequence[PackMember], store_uri: str, ledger: Ledger, on_end: OnEnd
) -> None:
    """Runs trials for which `can_batch` holds, as `run_trial` runs each.

    A member whose training is in the ledger, or is another member's too, is only evaluated, after
    the others. `on_end` is called, on every worker, when a member has finished, was stopped
    (StoppedError) or diverged (DivergedError), or when its evaluation failed.

    Raises:
        Exception: what concerns all members, such as a full memory, a full disk or a lost worker.
            Those that `on_end` was not called for can resume from their checkpoints.
    """
    store = open_again(store_uri)
    untrained, trained = _split_by_training(members, store, ledger)
    with process_group(members[0].context.device):
        if untrained:
            batch = _Batch(untrained, store, on_end)
            batch.train()
            batch.conclude(ledger)
        if trained and members[0].context.workers > 1:
            torch.distributed.barrier()  # the first worker may still be writing what these read
        for member in trained:
            run = partial(run_trial, member.trial, member.signature, store_uri, ledger)
            on_end(member, _error_of(partial(run, member.context)))


def _split_by_training(
    members: Sequence[PackMember], store: EmbeddingStore, ledger: Ledger
) -> tuple[list[PackMember], list[PackMember]]:
    """Members that must be trained, and those whose training exists or is another member's."""
    trainings: set[str] = set()
    untrained: list[PackMember] = []
    trained: list[PackMember] = []
    for member in members:
        training = training_signature(member.trial, store.fingerprint)
        if training in trainings or ledger.trained(training) is not None:
            trained.append(member)
        else:
            untrained.append(member)
        trainings.add(training)
    return untrained, trained


@dataclass
class _Trainee:
    """A member in training."""

    member: PackMember
    training: Training


class _Batch:
    """The members still in training, and their engine."""

    def __init__(self, members: Sequence[PackMember], store: EmbeddingStore, on_end: OnEnd) -> None:
        self.store, self.on_end, self.context = store, on_end, members[0].context
        trainings = fresh_trainings(members, store)
        self.trainees = list(map(_Trainee, members, trainings))
        self.engine = make_batch_engine(trainings)

    @property
    def trainings(self) -> list[Training]:
        return [trainee.training for trainee in self.trainees]

    def train(self) -> None:
        """Trains members from their checkpoints to the last step, unless they stop or fail."""
        try:
            self._start()
            while self.trainees and self.trainees[0].training.next_steps:
                self._for_each(lambda trainee: trainee.training.raise_if_stopped(), StoppedError)
                if self.trainees:
                    self._run_epoch()
        finally:
            close_engine(self.engine)

    def conclude(self, ledger: Ledger) -> None:
        """Evaluates the members that reached the last step; their bridges go to the ledger."""

        def finish(trainee: _Trainee) -> None:
            member, (bridge, progress) = trainee.member, trainee.training.result()
            if self.context.rank == 0:
                conclude(member.trial, member.signature, self.store, ledger, bridge, progress)

        for trainee in self.trainees:
            self.on_end(trainee.member, _error_of(partial(finish, trainee)))

    def _start(self) -> None:
        for training in self.trainings:
            path = training.context.checkpoints.latest()
            if path is not None:
                resume(training.state, path, training.context)
        set_step(self.engine, self.trainings)
        log.info("Training in a batch of %d trials", len(self.trainees))
        for training in self.trainings:
            training.start()

    def _run_epoch(self) -> None:
        trainings = self.trainings
        if len(trainings) < len(self.engine.optimizer.param_groups):
            self.engine = make_batch_engine(trainings, self.engine)
            log.info("The batch continues with %d trials", len(trainings))
        epochs = iter(run_epoch(self.engine, trainings))
        # Only the first worker validates. If its error removed a member there, the other workers'
        # next step would wait for ever; losses are reduced, so that all see a divergence.
        removable = DivergedError if self.context.workers > 1 else Exception
        self._for_each(lambda trainee: trainee.training.end_epoch(next(epochs)), removable)
        for training in self.trainings:
            training.checkpoint()

    def _for_each(self, action: Callable[[_Trainee], None], own: type[Exception]) -> None:
        """Applies an action to each member; a member leaves if it raises an error of its own."""
        remaining = []
        for trainee in self.trainees:
            error = _error_of(partial(action, trainee), own)
            if error is None:
                remaining.append(trainee)
                continue
            log.info("Leaves its batch: %s", error, extra={"trial": trainee.member.signature})
            self.on_end(trainee.member, error)
        self.trainees = remaining


# Full disks and memories, and lost connections: whichever member meets one, all of them will.
COMMON = (OSError, MemoryError, torch.OutOfMemoryError)


def _error_of(action: Callable[[], None], own: type[Exception] = Exception) -> Exception | None:
    """The error of an action, if it is one of the trial's own; raises any other."""
    try:
        action()
    except COMMON:
        raise
    except own as error:
        return error
    return None


def fresh_trainings(members: Sequence[PackMember], store: EmbeddingStore) -> list[Training]:
    """The members' trainings before their first step; they share one copy of the embeddings."""
    first = members[0].trial
    pairs, val = store.pairs(first.task, "train"), store.pairs(first.task, "val")
    table = PairTable(pairs, first.train.batch_size, first.seed, members[0].context.device)
    trainings = []
    for member in members:
        trial, context = member.trial, member.context
        bridge = fresh_bridge(trial, store, context.device)
        bridge.fit(table.x, table.a, table.owner)
        average = Average(copy.deepcopy(bridge), trial.train.ema)
        state = State(None, bridge, average, Progress(workers=context.workers))
        seeded = table.of_seed(trial.seed)
        trainings.append(Training(seeded, recipe_of(trial, val), context, state))
    return trainings


def make_batch_engine(trainings: Sequence[Training], previous: Any = None) -> Any:
    """One engine for these trainings; closes a previous one, whose AdamW moments move over."""
    states = [training.state for training in trainings]
    bridges, context = [state.bridge for state in states], trainings[0].context
    settings = [training.recipe.settings for training in trainings]
    stack = StackedBridges(bridges)
    engine = joint_engine(stack, bridges, settings, context.workers, context.device)
    if previous is not None:
        # The parameters are the same objects: stacking moved their memory, not their identity.
        moments = previous.optimizer.state
        for parameter in chain.from_iterable(bridge.parameters() for bridge in bridges):
            if parameter in moments:  # one without a gradient so far has none
                engine.optimizer.state[parameter] = moments[parameter]
        close_engine(previous)
    for state in states:
        state.engine = engine
    set_step(engine, trainings)
    return engine


def set_step(engine: Any, trainings: Sequence[Training]) -> None:
    """Sets the learning rates of the trainings' current step."""
    settings = [training.recipe.settings for training in trainings]
    apply_settings(engine, settings, trainings[0].state.progress.step)
