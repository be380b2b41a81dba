"""Runs what is missing of a plan: Ray Tune schedules, each trial is a Ray Train job.

Ray's own state is never needed to go on: the ledger says what is finished, and Ray Train finds
the checkpoints of what is not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from diffgap.ledger import Ledger
from diffgap.provenance import git_commit
from diffgap.spec import flatten
from diffgap.sweep.display import SweepDisplay
from diffgap.sweep.placement import Placement
from diffgap.sweep.plan import Plan, PlannedTrial
from diffgap.sweep.search import Study
from diffgap.sweep.worker import HISTORY_KEY, JOB, STEP_KEY, drive
from diffgap.tracking import FAILED, FINISHED, KILLED, Tracker


@dataclass
class Outcome:
    """How a sweep ended."""

    failed: dict[str, str] = field(default_factory=dict)
    """Reason, by signature."""
    unfinished: list[str] = field(default_factory=list)
    """Signatures of trials that were interrupted or never started."""

    @property
    def status(self) -> str:
        """The parent run's status."""
        if self.failed:
            return FAILED
        return KILLED if self.unfinished else FINISHED


class Observer(tune.Callback):
    """Hears of every trial in the main process, and passes it on to MLflow and the display."""

    def __init__(self, ledger: Ledger, tracker: Tracker, show: SweepDisplay) -> None:
        self.ledger, self.tracker, self.show = ledger, tracker, show
        self.planned: dict[str, PlannedTrial] = {}
        self.failed: dict[str, str] = {}
        self.study: Study | None = None
        """Of a search: it hears of every validation too."""

    def expect(self, planned: PlannedTrial) -> None:
        """Makes a trial known before Tune starts it."""
        self.planned[planned.signature] = planned
        self.show.add(planned)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles callbacks with its state, which is not used again."""
        return {}

    def on_trial_start(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        planned = self._planned(trial)
        start_run(self.tracker, planned)
        self.show.started(planned.signature)

    def on_trial_result(
        self, iteration: int, trials: list, trial: TuneTrial, result: dict[str, Any], **_: Any
    ) -> None:
        if HISTORY_KEY not in result:
            return  # the empty result that ends a trainable
        planned = self._planned(trial)
        latest = result[HISTORY_KEY][-1]["metrics"]
        self.tracker.log(planned.signature, result[HISTORY_KEY])
        self.show.progress(planned.signature, result[STEP_KEY], latest)
        if self.study:
            self.study.report(planned.signature, result[STEP_KEY], latest)

    def on_trial_complete(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        planned = self._planned(trial)
        record = self.ledger.trial(planned.signature)
        if record.finished:
            finish_run(self.ledger, self.tracker, planned)
            self.show.finished(planned.signature)
        elif record.stop:
            self.tracker.kill(planned.signature, record.stop["reason"])
            self.show.stopped(planned.signature, record.stop["reason"])

    def on_trial_error(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        signature = self._planned(trial).signature
        reason = self.ledger.trial(signature).failure or _reason(trial)
        self.failed[signature] = reason
        self.tracker.fail(signature, reason)
        self.show.failed(signature, reason)

    def _planned(self, trial: TuneTrial) -> PlannedTrial:
        return self.planned[_signature_of(trial)]


def _reason(trial: TuneTrial) -> str:
    """The last line of a failed trial's traceback, and where all of it stands."""
    if not trial.error_file:
        return "failed without an error message"
    lines = [line for line in Path(trial.error_file).read_text().splitlines() if line.strip()]
    return f"{lines[-1].strip()} (all of it: {trial.error_file})"


def start_run(tracker: Tracker, planned: PlannedTrial) -> str:
    """Opens the trial's MLflow run; fields that the trial has no use for are no parameters."""
    idle = tuple(planned.trial.unused())
    used = {n: value for n, value in flatten(planned.trial).items() if not n.startswith(idle)}
    return tracker.start(planned.signature, planned.label, used)


def finish_run(ledger: Ledger, tracker: Tracker, planned: PlannedTrial) -> None:
    """Tells MLflow all of a finished trial, whatever it has heard of it before."""
    record = ledger.trial(planned.signature)
    run_id = start_run(tracker, planned)
    tracker.log(planned.signature, record.history())
    tracker.finish(planned.signature, record.metrics(), record.bridge)
    record.record_run(tracker.sweep, run_id)


def open_tracker(plan: Plan, ledger: Ledger, fresh: bool) -> Tracker:
    """The tracker of a plan; creates database, experiment and parent run before any trial.

    With `fresh` the trials' earlier runs are set aside, so that each gets a new one.
    """
    tags = {"diffgap.git_commit": git_commit(), "diffgap.store": plan.store}
    tracker = Tracker(ledger.output, plan.spec.name, tags)
    if fresh:
        for planned in plan.trials:
            tracker.set_aside(planned.signature)
    return tracker


def run_missing(
    plan: Plan, ledger: Ledger, tracker: Tracker, placement: Placement, show: SweepDisplay
) -> Outcome:
    """Runs every trial of the plan that is not finished; Ray must be up.

    Returns normally also where trials failed or Ctrl-C stopped the sweep: the outcome says so.
    """
    observer = Observer(ledger, tracker, show)
    for number, wave in enumerate(_waves(plan, ledger)):
        for planned in wave:
            observer.expect(planned)
        jobs = [_config(planned, plan, ledger, placement) for planned in wave]
        config = tune.TuneConfig(max_concurrent_trials=placement.concurrent)
        _tune(plan, ledger, observer, config, {JOB: tune.grid_search(jobs)}, number)
        if any(not _ended(ledger, planned, observer) for planned in wave):
            break  # interrupted
    unfinished = [p.signature for p in plan.missing(ledger) if p.signature not in observer.failed]
    for signature in unfinished:
        tracker.kill(signature)
    return Outcome(observer.failed, unfinished)


def run_search(study: Study, tracker: Tracker, placement: Placement, show: SweepDisplay) -> Outcome:
    """Runs what is left of a search; Ray must be up. Ends as `run_missing` does."""
    plan, ledger = study.plan, study.ledger
    observer = Observer(ledger, tracker, show)
    observer.study = study

    def job_of(planned: PlannedTrial) -> dict[str, Any]:
        observer.expect(planned)
        ledger.record_sweep(replace(plan, trials=tuple(study.seen.values())).record())
        return _config(planned, plan, ledger, placement)

    config = tune.TuneConfig(
        max_concurrent_trials=placement.concurrent,
        num_samples=len(study.open) + study.left,
        search_alg=StudySearcher(study, job_of),
    )
    _tune(plan, ledger, observer, config, {}, 0)
    for signature in study.open:
        tracker.kill(signature)
    return Outcome(observer.failed, list(study.open))


class StudySearcher(Searcher):
    """Tune's side of a study: asks it for trials, tells it how they ended."""

    def __init__(self, study: Study, job_of: Callable[[PlannedTrial], dict[str, Any]]) -> None:
        super().__init__()
        self._study, self._job_of = study, job_of
        self._running: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles searchers with its state; a study's own journal is what counts."""
        return {}

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        planned = self._study.next()
        if planned is None:
            return str(Searcher.FINISHED)
        self._running[trial_id] = planned.signature
        return {JOB: self._job_of(planned)}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        if signature := self._running.pop(trial_id, None):
            self._study.finish(signature)

    def save(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""


def _waves(plan: Plan, ledger: Ledger) -> list[list[PlannedTrial]]:
    """What is missing, the costly first; what only scores another trial's bridge goes after it."""
    first: list[PlannedTrial] = []
    then: list[PlannedTrial] = []
    begun: set[str] = set()
    for planned in sorted(plan.missing(ledger), key=_cost, reverse=True):
        alone = planned.training not in begun or not planned.trial.trains
        (first if alone or ledger.trained(planned.training) else then).append(planned)
        begun.add(planned.training)
    return [wave for wave in (first, then) if wave]


def _ended(ledger: Ledger, planned: PlannedTrial, observer: Observer) -> bool:
    return ledger.trial(planned.signature).finished or planned.signature in observer.failed


def _tune(
    plan: Plan,
    ledger: Ledger,
    observer: Observer,
    config: tune.TuneConfig,
    space: dict[str, Any],
    number: int,
) -> None:
    """Lets Tune run one Train job a trial; what it prints is for debugging, and goes to a file."""
    scratch = ledger.output / "tune"
    name = f"{plan.spec.name}-{number}" if number else plan.spec.name
    shutil.rmtree(scratch / name, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    config.reuse_actors = True
    config.trial_dirname_creator = config.trial_name_creator = _signature_of
    tuner = tune.Tuner(
        # Drivers only wait: a CPU each would starve the workers they wait for.
        tune.with_resources(drive, {"node:__internal_head__": 0.001}),
        param_space=space,
        tune_config=config,
        run_config=tune.RunConfig(
            name=name, storage_path=str(scratch), callbacks=[observer], verbose=0
        ),
    )
    with (scratch / f"{name}.log").open("w") as log, redirect_stdout(log):
        tuner.fit()


def _cost(planned: PlannedTrial) -> tuple[int, int]:
    """What orders trials by how long they take; the longest go first, so that none is left last."""
    trial = planned.trial
    steps = trial.train.steps if trial.trains else 0
    denoising = trial.effective_score in ("rerank", "sample")
    return steps, denoising * (1 + trial.bst.enabled)


def _config(
    planned: PlannedTrial, plan: Plan, ledger: Ledger, placement: Placement
) -> dict[str, Any]:
    """All that a worker needs, as plain data."""
    return {
        "signature": planned.signature,
        "trial": planned.trial.model_dump(mode="json"),
        "store": plan.store,
        "output": str(ledger.output),
        "scaling": placement.scaling,
    }


def _signature_of(trial: TuneTrial) -> str:
    return str(trial.config[JOB]["signature"])
