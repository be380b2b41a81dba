"""Execution of trials: Ray Tune schedules packs of them, and each pack is a Ray Train job."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from diffgap.compat.ray_tune import import_integrations, withhold_cloud_keys
from diffgap.sweep.context import SweepContext
from diffgap.sweep.display import SweepDisplay
from diffgap.sweep.driver import drive
from diffgap.sweep.messages import JOB, PackJob
from diffgap.sweep.observer import Observer
from diffgap.sweep.plan import PlannedTrial
from diffgap.sweep.searchers import PackSearcher, QueueSearcher, needs_own_processes


def run_trials(context: SweepContext, trials: Iterable[PlannedTrial]) -> None:
    """Runs trials to their ends, in waves where some evaluate what others have trained."""
    for wave in _waves(context, trials):
        run_wave(context, wave)
        for signature in {planned.signature for planned in wave} - set(context.failures):
            if not context.ledger.trial(signature).finished:
                return  # interrupted


def run_wave(
    context: SweepContext, trials: Iterable[PlannedTrial], pause_at: int | None = None
) -> None:
    """Runs trials in their order, to the step `pause_at` or to their ends, as many at once as fit.

    Trials that other sweeps run are waited for, and taken over where they are left. Returns
    normally where some failed, and on Ctrl-C.
    """
    observer = Observer(context)
    claimed = [planned for planned in trials if observer.register(planned)]
    if observer.planned:
        run_searcher(QueueSearcher(observer, claimed, pause_at), len(observer.planned))


def run_searcher(searcher: PackSearcher, most: int) -> None:
    """Runs what a searcher suggests, `most` packs at the most."""
    context, spec = searcher.context, searcher.context.plan.spec
    import_integrations()
    withhold_cloud_keys()
    # Each trial of a pack may cost it its process `retries` times.
    failures = tune.FailureConfig(max_failures=spec.retries * searcher.largest_pack)
    config = tune.TuneConfig(
        num_samples=most,
        search_alg=searcher,
        reuse_actors=True,  # a driver's process serves one pack after another
        trial_dirname_creator=_pack_name,
        trial_name_creator=_pack_name,
    )
    with ExitStack() as stack:
        # Tune's state is never read again, for the ledger has what resuming needs.
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="diffgap-tune-"))
        tuner = tune.Tuner(
            tune.with_resources(drive, driver_resources(context)),
            tune_config=config,
            run_config=tune.RunConfig(
                name=spec.name,
                storage_path=scratch,
                callbacks=[searcher.observer],
                verbose=1 if context.verbose else 0,
                failure_config=failures,
            ),
        )
        stack.enter_context(_interruptible(context.display))
        if not context.verbose:
            devnull = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(redirect_stdout(devnull))
        tuner.fit()


def driver_resources(context: SweepContext) -> dict[str, float]:
    """What a pack's driver asks Ray for: as much as a worker where it is the worker."""
    if needs_own_processes(context.plan.spec.resources):
        # Of the head node; drivers that took a CPU each would starve the workers they wait for.
        return {"node:__internal_head__": 0.001}
    return dict(context.capacity.placement.scaling["resources_per_worker"])


@contextmanager
def _interruptible(display: SweepDisplay) -> Iterator[None]:
    """Within the block SIGINT or SIGTERM stops Tune in order, and a second one at once."""
    count = 0

    def handle(number: int, frame: Any) -> None:
        nonlocal count
        count += 1
        if count == 1:
            display.warn("Stopping; the same command resumes the sweep. Press again to stop now.")
            # Tune stops in order on this one too; SIGINT is ours (TUNE_DISABLE_SIGINT_HANDLER).
            signal.raise_signal(signal.SIGUSR1)
        elif count == 2:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            # A third one would break the clean-up.
            signal.signal(number, signal.SIG_IGN if count > 1 else handler)


def _waves(context: SweepContext, trials: Iterable[PlannedTrial]) -> tuple[list[PlannedTrial], ...]:
    """Trials that train, the costly ones first; then those that evaluate their weights."""
    training: list[PlannedTrial] = []
    evaluating: list[PlannedTrial] = []
    scheduled: set[str] = set()
    for planned in sorted(trials, key=_cost, reverse=True):  # LPT scheduling (Graham 1969)
        shares_training = planned.trial.trains and planned.training in scheduled
        waits = shares_training and not context.ledger.trained(planned.training)
        (evaluating if waits else training).append(planned)
        scheduled.add(planned.training)
    return training, evaluating


def _cost(planned: PlannedTrial) -> tuple[int, int]:
    """Orders trials by how long they take: steps, then passes through the sampler."""
    trial = planned.trial
    steps = trial.train.steps if trial.trains else 0
    denoises = trial.effective_score in ("rerank", "sample")
    return steps, denoises * (1 + trial.bst.enabled)  # BST denoises both ways


def _pack_name(trial: TuneTrial) -> str:
    return PackJob.from_dict(trial.config[JOB]).signatures[0]
