"""Runs what is missing of a plan: Ray Tune schedules, each trial is a Ray Train job.

Ray's own state is never needed to go on: the ledger says what is finished, and Ray Train finds
the checkpoints of what is not.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from diffgap.ledger import Ledger
from diffgap.provenance import git_commit
from diffgap.spec import flatten
from diffgap.sweep.display import SweepDisplay
from diffgap.sweep.placement import Placement
from diffgap.sweep.plan import Plan, PlannedTrial
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

    def __init__(
        self, ledger: Ledger, planned: Sequence[PlannedTrial], tracker: Tracker, show: SweepDisplay
    ) -> None:
        self.ledger, self.tracker, self.show = ledger, tracker, show
        self.planned = {trial.signature: trial for trial in planned}
        self.failed: dict[str, str] = {}

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
        self.tracker.log(planned.signature, result[HISTORY_KEY])
        self.show.progress(planned.signature, result[STEP_KEY], result[HISTORY_KEY][-1]["metrics"])

    def on_trial_complete(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        planned = self._planned(trial)
        if self.ledger.trial(planned.signature).finished:
            finish_run(self.ledger, self.tracker, planned)
            self.show.finished(planned.signature)

    def on_trial_error(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        signature = self._planned(trial).signature
        reason = _reason(trial)
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
    """Opens the trial's MLflow run."""
    return tracker.start(planned.signature, planned.label, flatten(planned.trial))


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
    missing = sorted(plan.missing(ledger), key=_cost, reverse=True)
    observer = Observer(ledger, missing, tracker, show)
    configs = [_config(planned, plan, ledger, placement) for planned in missing]
    scratch = ledger.output / "tune"
    shutil.rmtree(scratch / plan.spec.name, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / f"{plan.spec.name}.log").open("w") as log, redirect_stdout(log):
        # What Tune prints is for debugging; people see the display.
        _tuner(configs, observer, placement, scratch, plan.spec.name).fit()
    unfinished = [
        planned.signature
        for planned in plan.missing(ledger)
        if planned.signature not in observer.failed
    ]
    for signature in unfinished:
        tracker.kill(signature)
    return Outcome(observer.failed, unfinished)


def _tuner(
    configs: list[dict[str, Any]],
    observer: Observer,
    placement: Placement,
    scratch: Path,
    name: str,
) -> tune.Tuner:
    """One Tune trial a config, at most as many at once as fit with all their workers."""
    return tune.Tuner(
        # Drivers only wait: a CPU each would starve the workers they wait for.
        tune.with_resources(drive, {"node:__internal_head__": 0.001}),
        param_space={JOB: tune.grid_search(configs)},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=placement.concurrent,
            reuse_actors=True,
            trial_dirname_creator=_signature_of,
            trial_name_creator=_signature_of,
        ),
        run_config=tune.RunConfig(
            name=name, storage_path=str(scratch), callbacks=[observer], verbose=0
        ),
    )


def _cost(planned: PlannedTrial) -> tuple[int, int]:
    """What orders trials by how long they take; the longest go first, so that none is left last."""
    trial = planned.trial
    steps = 0 if trial.cell == "frozen" else trial.train.steps
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
