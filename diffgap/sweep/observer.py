"""Hears of every trial in the main process, and passes it on to MLflow and the display."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from diffgap.cluster.placement import remove_leaked_groups
from diffgap.io.redact import redact
from diffgap.sweep.display import RUNNING
from diffgap.sweep.driver import (
    BEGUN,
    ENDED,
    HISTORY_KEY,
    JOB,
    SIGNATURE_KEY,
    STATE_KEY,
    STEP_KEY,
)
from diffgap.sweep.plan import PlannedTrial
from diffgap.training.failures import with_remedy

if TYPE_CHECKING:
    from diffgap.sweep.tune import SweepContext

LEAKS_S = 2.0
"""Between two looks for resources that killed trials still hold."""

CANCELLED = "cancelled"
"""Why trials stop whose sweep was cancelled."""


class Observer(tune.Callback):
    """Hears of every trial: from its worker while its pack runs, and from Tune when that ends."""

    def __init__(self, context: SweepContext) -> None:
        self.context = context
        self.planned: dict[str, PlannedTrial] = {}
        self._told: set[str] = set()
        """Signatures of trials whose ends have been told."""
        self._looked = 0.0
        self._cancelled = False

    def expect(self, planned: PlannedTrial) -> bool:
        """Makes a trial known before Tune starts it; False where another sweep runs it."""
        context = self.context
        self.planned[planned.signature] = planned
        context.show.add(planned)
        record = context.ledger.trial(planned.signature)
        if not context.lock.claim(record):
            return False
        spec, store = context.plan.spec, redact(context.plan.store)
        facts = {"store": store, "fingerprint": context.plan.fingerprint, "sweep": spec.name}
        record.begin({**planned.entry(), **facts})
        return True

    def on_report(self, planned: PlannedTrial, points: Sequence[dict[str, Any]]) -> None:
        """Hears what a trial has reported; for those who schedule."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles callbacks with its state, which is not used again."""
        return {}

    def on_step_begin(self, iteration: int, trials: list, **_: Any) -> None:
        self.context.lock.heartbeat(self.context.show.counts())
        if self.context.lock.cancelled and not self._cancelled:
            self._cancelled = True
            for signature in self.planned:
                self.context.ledger.trial(signature).tell_to_stop(CANCELLED)
        if time.monotonic() - self._looked > LEAKS_S:
            self._looked = time.monotonic()
            remove_leaked_groups()
            self.context.capacity.report_waiting(self.context.show.counts().get(RUNNING, 0))

    def on_trial_start(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        work, self.context.meanwhile = self.context.meanwhile, None
        if work:
            Thread(target=work, name="meanwhile", daemon=True).start()

    def on_trial_result(
        self, iteration: int, trials: list, trial: TuneTrial, result: dict[str, Any], **_: Any
    ) -> None:
        if SIGNATURE_KEY not in result:
            return  # the empty result that ends a trainable
        planned = self.planned[result[SIGNATURE_KEY]]
        if result[STATE_KEY] == BEGUN:
            self._begun(planned)
        elif result[STATE_KEY] == ENDED:
            self._ended(planned)
        else:
            self._goes_on(planned, result[STEP_KEY], result[HISTORY_KEY])

    def on_trial_complete(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        for planned in self._members(trial):
            self._ended(planned)

    def on_trial_error(self, iteration: int, trials: list, trial: TuneTrial, **_: Any) -> None:
        """The driver's own process is lost for good, or has an error of its own."""
        reason = _reason(trial)
        for planned in self._members(trial):
            record = self.context.ledger.trial(planned.signature)
            if not record.ended:
                with suppress(OSError):  # a full disk may be why; the reason is told all the same
                    record.fail(reason)
            self._ended(planned, reason)

    def _begun(self, planned: PlannedTrial) -> None:
        self.context.tracker.start(planned)
        self.context.show.started(planned.signature)

    def _goes_on(self, planned: PlannedTrial, step: int, points: list[dict[str, Any]]) -> None:
        self.context.tracker.log(planned.signature, points)
        if points:
            self.context.show.progress(planned.signature, step, points[-1]["metrics"])
        self.on_report(planned, points)

    def _ended(self, planned: PlannedTrial, reason: str | None = None) -> None:
        """Tells how a trial ended, once; one that can go on is only paused."""
        context, signature = self.context, planned.signature
        if signature in self._told:
            return
        record = context.ledger.trial(signature)
        if record.finished:
            context.tracker.finish(planned)
            context.show.finished(signature)
        elif failure := record.failure or reason:
            context.failed[signature] = f"{failure} (log: {record.log})"
            context.tracker.fail(signature, failure)
            context.show.failed(signature, context.failed[signature])
        elif record.stop:
            context.tracker.kill(signature, record.stop["reason"])
            context.show.stopped(signature, record.stop["reason"])
        else:
            context.show.paused(signature)
            return
        self._told.add(signature)

    def _members(self, trial: TuneTrial) -> list[PlannedTrial]:
        return [self.planned[job["signature"]] for job in trial.config[JOB]["members"]]


def _reason(trial: TuneTrial) -> str:
    """The last line of a failed driver's traceback."""
    if not trial.error_file:
        return "its driver was lost, without an error message"
    lines = [line for line in Path(trial.error_file).read_text().splitlines() if line.strip()]
    return with_remedy(f"its driver: {redact(lines[-1].strip())}")
