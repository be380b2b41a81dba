"""Runs trials: Ray Tune schedules, each trial is a Ray Train job.

Ray's own state is never needed to go on: the ledger says what is finished, and has the checkpoints
of what is not.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from diffgap.ledger import Ledger
from diffgap.running import Running
from diffgap.secrets import redact
from diffgap.sweep.display import RUNNING, WAITING, SweepDisplay
from diffgap.sweep.feed import TrialSearcher, Wave
from diffgap.sweep.placement import free_forsaken_groups
from diffgap.sweep.plan import Plan, PlannedTrial
from diffgap.sweep.room import Room
from diffgap.sweep.telling import Telling
from diffgap.sweep.worker import HISTORY_KEY, JOB, STEP_KEY, drive
from diffgap.training.faults import with_remedy

LEAKS_S = 2.0
"""Between two looks for resources that killed trials still hold."""

CANCELLED = "cancelled"
"""Why trials stop whose sweep was cancelled."""


@dataclass(frozen=True)
class Extra:
    """What a scheduler wants of a trial beyond its spec."""

    study: str = ""
    rungs: tuple[int, ...] = ()
    """Steps at which it waits for the study's verdict."""
    until: int | None = None
    """The step at which it pauses."""


@dataclass
class Stage:
    """Everything that the trials of one sweep are run with."""

    plan: Plan
    ledger: Ledger
    telling: Telling
    running: Running
    room: Room
    show: SweepDisplay
    verbose: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    """Reason, by signature."""

    def ended(self, planned: PlannedTrial) -> bool:
        """Whether there is nothing more to do for a trial in this run."""
        record = self.ledger.trial(planned.signature)
        return record.finished or planned.signature in self.failed


class Observer(tune.Callback):
    """Hears of every trial in the main process, and passes it on to MLflow and the display."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.planned: dict[str, PlannedTrial] = {}
        self._looked = 0.0
        self._cancelled = False

    def expect(self, planned: PlannedTrial) -> bool:
        """Makes a trial known before Tune starts it; False where another sweep runs it."""
        stage = self.stage
        self.planned[planned.signature] = planned
        stage.show.add(planned)
        record = stage.ledger.trial(planned.signature)
        if not stage.running.claim(record):
            return False
        spec, store = stage.plan.spec, redact(stage.plan.store)
        facts = {"store": store, "fingerprint": stage.plan.fingerprint, "sweep": spec.name}
        record.begin({**planned.entry(), **facts})
        return True

    def on_report(self, planned: PlannedTrial, points: Sequence[dict[str, Any]]) -> None:
        """Hears what a trial has reported; for those who schedule."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles callbacks with its state, which is not used again."""
        return {}

    def on_step_begin(self, iteration: int, trials: list, **_: Any) -> None:
        self.stage.running.beat(self.stage.show.counts())
        if self.stage.running.cancelled and not self._cancelled:
            self._cancelled = True
            for signature in self.planned:
                self.stage.ledger.trial(signature).tell_to_stop(CANCELLED)
        if time.monotonic() - self._looked > LEAKS_S:
            self._looked = time.monotonic()
            free_forsaken_groups()
            counts = self.stage.show.counts()
            running = counts.get(RUNNING, 0)
            self.stage.room.ask(running + counts.get(WAITING, 0))
            self.stage.room.tell_waiting(running)

    def on_trial_start(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        planned = self._planned(trial)
        self.stage.telling.start(planned)
        self.stage.show.started(planned.signature)

    def on_trial_result(
        self, iteration: int, trials: list, trial: TuneTrial, result: dict[str, Any], **_: Any
    ) -> None:
        if HISTORY_KEY not in result:
            return  # the empty result that ends a trainable
        planned, points = self._planned(trial), result[HISTORY_KEY]
        self.stage.telling.log(planned.signature, points)
        if points:
            self.stage.show.progress(planned.signature, result[STEP_KEY], points[-1]["metrics"])
        self.on_report(planned, points)

    def on_trial_complete(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        planned = self._planned(trial)
        record = self.stage.ledger.trial(planned.signature)
        if record.finished:
            self.stage.telling.finish(planned)
            self.stage.show.finished(planned.signature)
        elif record.failure:
            self._failed(planned.signature, record.failure)
        elif record.stop:
            self.stage.telling.kill(planned.signature, record.stop["reason"])
            self.stage.show.stopped(planned.signature, record.stop["reason"])
        else:
            self.stage.show.paused(planned.signature)

    def on_trial_error(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        """The driver's own process is lost for good, or has an error of its own."""
        signature = self._planned(trial).signature
        record = self.stage.ledger.trial(signature)
        reason = record.failure or _reason(trial)
        with suppress(OSError):  # a full disk may be why; the reason is told all the same
            record.fail(reason)
        self._failed(signature, reason)

    def _failed(self, signature: str, reason: str) -> None:
        self.stage.failed[signature] = f"{reason} (log: {self.stage.ledger.trial(signature).log})"
        self.stage.telling.fail(signature, reason)
        self.stage.show.failed(signature, self.stage.failed[signature])

    def _planned(self, trial: TuneTrial) -> PlannedTrial:
        return self.planned[_signature_of(trial)]


def _reason(trial: TuneTrial) -> str:
    """The last line of a failed driver's traceback."""
    if not trial.error_file:
        return "its driver was lost, without an error message"
    lines = [line for line in Path(trial.error_file).read_text().splitlines() if line.strip()]
    return with_remedy(f"its driver: {redact(lines[-1].strip())}")


def run_trials(stage: Stage, trials: Iterable[PlannedTrial]) -> None:
    """Runs trials to their ends, in waves where some score what others have trained."""
    for wave in _waves(stage, list(trials)):
        run_wave(stage, wave)
        if not all(stage.ended(planned) for planned in wave):
            return  # interrupted, or another sweep has some of them


def run_wave(stage: Stage, trials: Iterable[PlannedTrial], extra: Extra | None = None) -> None:
    """Runs trials, as many at once as fit; returns normally where some failed, and on Ctrl-C."""
    observer = Observer(stage)
    claimed = [planned for planned in trials if observer.expect(planned)]
    jobs = [job_of(stage, planned, extra or Extra()) for planned in claimed]
    if jobs:
        run_searcher(Wave(stage, observer, jobs), len(jobs))


def run_searcher(searcher: TrialSearcher, most: int) -> None:
    """Runs what a searcher suggests, `most` trials at the most.

    Tune's own state is never read again, and what it prints is for debugging: both are kept away
    from the output, whose disk may fill up.
    """
    stage = searcher.stage
    config = tune.TuneConfig(
        num_samples=most,
        search_alg=searcher,
        reuse_actors=True,
        trial_dirname_creator=_signature_of,
        trial_name_creator=_signature_of,
    )
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="diffgap-tune-"))
        tuner = tune.Tuner(
            # Drivers only wait: a CPU each would starve the workers they wait for.
            tune.with_resources(drive, {"node:__internal_head__": 0.001}),
            tune_config=config,
            run_config=tune.RunConfig(
                name=stage.plan.spec.name,
                storage_path=scratch,
                callbacks=[searcher.observer],
                verbose=1 if stage.verbose else 0,
                failure_config=tune.FailureConfig(max_failures=stage.plan.spec.retries),
            ),
        )
        stack.enter_context(_interruptible(stage.show))
        if not stage.verbose:
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(redirect_stdout(nowhere))
        tuner.fit()


def job_of(
    stage: Stage, planned: PlannedTrial, extra: Extra, taken: bool = False
) -> dict[str, Any]:
    """All that a worker needs, as plain data; a trial that is taken is another sweep's to run."""
    return {
        "signature": planned.signature,
        "trial": planned.trial.model_dump(mode="json"),
        "store": stage.plan.store,
        "output": str(stage.ledger.output),
        "scaling": stage.room.placement.scaling,
        "retries": stage.plan.spec.retries,
        "study": extra.study,
        "rungs": list(extra.rungs),
        "until": extra.until,
        "taken": taken,
        "environment": stage.plan.spec.resources.environment,
    }


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


def _waves(stage: Stage, trials: list[PlannedTrial]) -> list[list[PlannedTrial]]:
    """The costly first; what only scores another trial's bridge goes after it."""
    first: list[PlannedTrial] = []
    then: list[PlannedTrial] = []
    begun: set[str] = set()
    for planned in sorted(trials, key=_cost, reverse=True):
        alone = planned.training not in begun or not planned.trial.trains
        (first if alone or stage.ledger.trained(planned.training) else then).append(planned)
        begun.add(planned.training)
    return [wave for wave in (first, then) if wave]


def _cost(planned: PlannedTrial) -> tuple[int, int]:
    """What orders trials by how long they take; the longest go first, so that none is left last."""
    trial = planned.trial
    steps = trial.train.steps if trial.trains else 0
    denoising = trial.effective_score in ("rerank", "sample")
    return steps, denoising * (1 + trial.bst.enabled)


def _signature_of(trial: TuneTrial) -> str:
    return str(trial.config[JOB]["signature"])
