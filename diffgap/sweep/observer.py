"""Observer of a sweep's trials: Ray Tune's events, passed on to the ledger, MLflow and display."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from diffgap.compat.ray_cluster import remove_leaked_groups
from diffgap.io.redact import redact
from diffgap.ledger.ledger import TrialRecord
from diffgap.ledger.states import CANCELLED, TrialState
from diffgap.sweep.context import SweepContext
from diffgap.sweep.messages import JOB, PackJob, TrialEvent, TrialReport
from diffgap.sweep.plan import PlannedTrial
from diffgap.sweep.shared import SharedTrials
from diffgap.training.failures import with_remedy

CLUSTER_CHECK_S = 2.0
"""Pause between two looks for resources that killed drivers hold, and for trials that wait."""


class Observer(tune.Callback):
    """Follows every trial: by its worker's reports while its pack runs, then by Tune's own events.

    A pack's end comes too late for its first trials, and a lost worker reports nothing; so both
    end a trial, of which the first counts.
    """

    def __init__(self, context: SweepContext) -> None:
        self.context = context
        self.planned: dict[str, PlannedTrial] = {}
        self.shared = SharedTrials(context.ledger, context.lock, context.display.note)
        self._over: set[str] = set()  # signatures of the trials whose end has been passed on
        self._checked_at = 0.0
        self._is_cancelling = False

    def register(self, planned: PlannedTrial) -> bool:
        """Makes a trial known before Tune starts it.

        False where another sweep runs it: it is among those that `claim_shared` returns later.
        """
        context = self.context
        self.planned[planned.signature] = planned
        context.display.add(planned)
        if not context.lock.claim(context.ledger.trial(planned.signature)):
            self.shared.add(planned)
            return False
        self._begin(planned)
        return True

    def claim_shared(self) -> tuple[list[PlannedTrial], list[PlannedTrial]]:
        """The trials that other sweeps left to this one; and those that they brought to an end."""
        ours, over = [], []
        for planned in self.shared.claim_free():
            record = self.context.ledger.trial(planned.signature)
            # Not what this sweep asks: a search may have stopped it, or the end of a sweep.
            was_cancelled = (record.stop or {}).get("reason") == CANCELLED
            is_over = record.finished or record.failure or was_cancelled
            if is_over or not self.wants(planned):
                self.context.tracker.start(planned)
                self._on_end(planned)
                self.context.lock.release(record)
                over.append(planned)
            else:
                self._begin(planned)
                ours.append(planned)
        return ours, over

    def wants(self, planned: PlannedTrial) -> bool:
        """Whether a trial that another sweep has stopped is to be trained further."""
        return True

    def _begin(self, planned: PlannedTrial) -> None:
        plan = self.context.plan
        store, name = redact(plan.store), plan.spec.name
        origin = {"store": store, "fingerprint": plan.fingerprint, "sweep": name}
        record = self.context.ledger.trial(planned.signature)
        if not record.finished:  # by another sweep, between this one's plan and its claim
            record.begin(planned.entry() | origin)

    def on_report(self, planned: PlannedTrial, points: Sequence[dict[str, Any]]) -> None:
        """Called with the points that a trial has reported; a search decides by them."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves callbacks with its own state, which is never read again

    def on_step_begin(self, iteration: int, trials: list, **_: Any) -> None:
        context, counts = self.context, self.context.display.counts()
        context.lock.heartbeat(counts)
        if context.lock.cancelled and not self._is_cancelling:
            self._is_cancelling = True
            self.shared.clear()
            for record in map(context.ledger.trial, self.planned):
                if context.lock.has_claimed(record):
                    record.request_stop(f"{CANCELLED} with sweep {context.plan.spec.name}")
        if time.monotonic() - self._checked_at > CLUSTER_CHECK_S:
            self._checked_at = time.monotonic()
            remove_leaked_groups()
            context.capacity.report_waiting(counts.get(TrialState.RUNNING, 0))

    def on_trial_result(
        self, iteration: int, trials: list, trial: TuneTrial, result: dict[str, Any], **_: Any
    ) -> None:
        report = TrialReport.from_result(result)
        if report is None:
            return
        planned = self.planned[report.signature]
        if report.event == TrialEvent.STARTED:
            self.context.tracker.start(planned)
            self.context.display.started(planned.signature)
        elif report.event == TrialEvent.PROGRESS:
            self._on_progress(planned, report)
        else:
            self._on_end(planned)

    def on_trial_complete(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        for planned in self._trials_of(trial):
            self._on_end(planned)
        self._release(trial)

    def on_trial_error(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        """The driver's process was lost once too often, or the driver itself failed."""
        reason = _driver_error(trial)
        for planned in self._trials_of(trial):
            record = self.context.ledger.trial(planned.signature)
            if not record.ended:
                with suppress(OSError):  # the reason may be a full disk; it is shown all the same
                    record.fail(reason)
            self._on_end(planned, reason)
        self._release(trial)

    def _release(self, trial: TuneTrial) -> None:
        """Lets other sweeps have the trials of a pack, which is not started again any more."""
        for planned in self._trials_of(trial):
            self.context.lock.release(self.context.ledger.trial(planned.signature))

    def _on_progress(self, planned: PlannedTrial, report: TrialReport) -> None:
        self.context.tracker.log(planned.signature, report.points)
        if report.points:
            metrics = report.points[-1]["metrics"]
            self.context.display.progress(planned.signature, report.step, metrics)
        self.on_report(planned, report.points)

    def _on_end(self, planned: PlannedTrial, reason: str | None = None) -> None:
        """Passes on how a trial ended, as its ledger says: reports may get lost, files stay."""
        context, signature = self.context, planned.signature
        if signature in self._over:
            return
        record = context.ledger.trial(signature)
        if record.finished:
            context.tracker.finish(planned)
            context.display.finished(signature)
        elif failure := record.failure or reason:
            context.failures[signature] = f"{failure} ({_where(record, context.plan.spec.name)})"
            context.tracker.fail(signature, failure)
            context.display.failed(signature, context.failures[signature])
        elif record.stop:
            context.tracker.kill(signature, record.stop["reason"])
            context.display.stopped(signature, record.stop["reason"])
        else:
            context.display.paused(signature)
            return  # it can be resumed, by this run even: population-based training does so
        self._over.add(signature)

    def _trials_of(self, trial: TuneTrial) -> list[PlannedTrial]:
        """The trials of a pack, which is one trial for Tune."""
        return [self.planned[name] for name in PackJob.from_dict(trial.config[JOB]).signatures]


def _where(record: TrialRecord, sweep: str) -> str:
    """Where a trial failed: its log, and the sweep that ran it where that was another one."""
    runner = (record.facts or {}).get("sweep", sweep)
    log = f"log: {record.log}"
    return log if runner == sweep else f"in sweep {runner}; {log}"


def _driver_error(trial: TuneTrial) -> str:
    """The last line of a failed driver's traceback."""
    if not trial.error_file:
        return "its driver was lost, without an error message"
    lines = Path(trial.error_file).read_text().strip().splitlines()
    return with_remedy(f"its driver: {redact(lines[-1].strip())}")
