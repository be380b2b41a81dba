"""Runs trials: Ray Tune schedules packs of them, each pack is a Ray Train job.

Ray's own state is never needed to go on: the ledger says what is finished, and has the checkpoints
of what is not.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from diffgap.cluster.capacity import ClusterCapacity
from diffgap.compat.imports import without
from diffgap.ledger.ledger import Ledger
from diffgap.ledger.locks import SweepLock
from diffgap.sweep.display import SweepDisplay
from diffgap.sweep.driver import JOB, drive
from diffgap.sweep.observer import Observer
from diffgap.sweep.plan import Plan, PlannedTrial
from diffgap.sweep.searchers import PackSearcher, QueueSearcher, is_apart
from diffgap.sweep.tracking import SweepTracker


@dataclass(frozen=True)
class TrialOptions:
    """What a trial is run with beyond its spec."""

    study: str = ""
    rungs: tuple[int, ...] = ()
    """Steps at which it waits for the study's verdict."""
    until: int | None = None
    """The step at which it pauses."""
    taken: bool = False
    """Whether another sweep runs it."""


@dataclass
class SweepContext:
    """Everything that the trials of one sweep are run with."""

    plan: Plan
    ledger: Ledger
    tracker: SweepTracker
    lock: SweepLock
    capacity: ClusterCapacity
    show: SweepDisplay
    verbose: bool = False
    meanwhile: Callable[[], None] | None = None
    """What is left to do in a thread while trials run."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reason, by signature."""

    def ended(self, planned: PlannedTrial) -> bool:
        """Whether there is nothing more to do for a trial in this run."""
        record = self.ledger.trial(planned.signature)
        return record.finished or planned.signature in self.failed


def run_trials(context: SweepContext, trials: Iterable[PlannedTrial]) -> None:
    """Runs trials to their ends, in waves where some score what others have trained."""
    for wave in _waves(context, list(trials)):
        run_wave(context, wave)
        if not all(context.ended(planned) for planned in wave):
            return  # interrupted, or another sweep has some of them


def run_wave(
    context: SweepContext, trials: Iterable[PlannedTrial], extra: TrialOptions | None = None
) -> None:
    """Runs trials, as many at once as fit; returns normally where some failed, and on Ctrl-C."""
    observer = Observer(context)
    claimed = [planned for planned in trials if observer.expect(planned)]
    if claimed:
        wave = QueueSearcher(context, observer, claimed, extra or TrialOptions())
        run_searcher(wave, len(claimed))


def run_searcher(searcher: PackSearcher, most: int) -> None:
    """Runs what a searcher suggests, `most` packs at the most.

    Tune's own state is never read again, and what it prints is for debugging: both are kept away
    from the output, whose disk may fill up.
    """
    context = searcher.context
    spec = context.plan.spec
    _import_integrations()
    config = tune.TuneConfig(
        num_samples=most,
        search_alg=searcher,
        reuse_actors=True,
        trial_dirname_creator=_name_of,
        trial_name_creator=_name_of,
    )
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="diffgap-tune-"))
        tuner = tune.Tuner(
            tune.with_resources(drive, driver_resources(context)),
            tune_config=config,
            run_config=tune.RunConfig(
                name=spec.name,
                storage_path=scratch,
                callbacks=[searcher.observer],
                verbose=1 if context.verbose else 0,
                failure_config=tune.FailureConfig(max_failures=spec.retries * searcher.largest),
            ),
        )
        stack.enter_context(_interruptible(context.show))
        if not context.verbose:
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(redirect_stdout(nowhere))
        tuner.fit()


def _import_integrations() -> None:
    """What Tune tells callbacks apart by, without the half second of Weights & Biases' import."""
    with without("wandb"):
        import ray.air.integrations.wandb  # noqa: F401


def driver_resources(context: SweepContext) -> dict[str, float]:
    """What a pack's driver takes: a worker's room where it is the worker.

    One that only waits for its workers takes next to nothing, for a CPU each would starve them.
    """
    if is_apart(context.plan.spec.resources):
        return {"node:__internal_head__": 0.001}
    per_worker: dict[str, float] = context.capacity.placement.scaling["resources_per_worker"]
    return per_worker


@contextmanager
def _interruptible(show: SweepDisplay) -> Iterator[None]:
    """SIGINT or SIGTERM ends Tune in order, a second one at once, further ones not at all.

    Tune ends in order on SIGUSR1 too, which leaves SIGINT to us.
    """
    count = 0

    def handle(number: int, frame: Any) -> None:
        nonlocal count
        count += 1
        if count == 1:
            show.say("Stopping; the same command goes on from here. Once more: at once.")
            signal.raise_signal(signal.SIGUSR1)
        elif count == 2:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if count > 1 else handler)


def _waves(context: SweepContext, trials: list[PlannedTrial]) -> list[list[PlannedTrial]]:
    """The costly first; what only scores another trial's bridge goes after it."""
    first: list[PlannedTrial] = []
    then: list[PlannedTrial] = []
    begun: set[str] = set()
    for planned in sorted(trials, key=_cost, reverse=True):
        alone = planned.training not in begun or not planned.trial.trains
        (first if alone or context.ledger.trained(planned.training) else then).append(planned)
        begun.add(planned.training)
    return [wave for wave in (first, then) if wave]


def _cost(planned: PlannedTrial) -> tuple[int, int]:
    """What orders trials by how long they take; the longest go first, so that none is left last."""
    trial = planned.trial
    steps = trial.train.steps if trial.trains else 0
    denoising = trial.effective_score in ("rerank", "sample")
    return steps, denoising * (1 + trial.bst.enabled)


def _name_of(trial: TuneTrial) -> str:
    """Tune's name for a pack: its first trial's signature."""
    return str(trial.config[JOB]["members"][0]["signature"])
