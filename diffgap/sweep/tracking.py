"""Tracking of a sweep in MLflow, whose outages delay what is logged, and never a trial."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from rich.console import Console

from diffgap.errors import UserError
from diffgap.io.paths import local_copy
from diffgap.io.redact import redact
from diffgap.ledger.ledger import Ledger, SweepRecord
from diffgap.ledger.provenance import git_commit
from diffgap.spec import flatten
from diffgap.sweep.plan import Plan, PlannedTrial
from diffgap.tracking.client import tracking_uri
from diffgap.tracking.delivery import DeliveryQueue, retry
from diffgap.tracking.names import INTERRUPTED, Status
from diffgap.tracking.problems import is_transient, problem
from diffgap.tracking.writer import RunWriter
from diffgap.training.failures import reason_of

PATIENCE_S = 60.0
"""How long MLflow is waited for before a sweep starts, and after it has ended."""


class SweepTracker:
    """Logs one sweep to MLflow, in a thread and as a context; UserError if MLflow is away."""

    def __init__(self, plan: Plan, ledger: Ledger, console: Console) -> None:
        self.ledger, self.console = ledger, console
        self.status = Status.FAILED  # of the sweep's own run, until `SweepRun` knows better
        self._unsent = 0
        self._uri = tracking_uri(ledger.output)
        self._server = f"MLflow at {redact(self._uri)}"
        self.writer = self._open_writer(plan)
        self._queue = DeliveryQueue(is_transient, self._report_trouble)

    def _open_writer(self, plan: Plan) -> RunWriter:
        tags = {"diffgap.git_commit": git_commit(), "diffgap.store": plan.store}
        identity, deadline = self.ledger.identity(), time.monotonic() + PATIENCE_S
        try:
            return retry(
                lambda: RunWriter(self.ledger.output, plan.spec.name, identity, tags),
                is_transient,
                self._report_trouble,
                gives_up=lambda: time.monotonic() > deadline,
            )
        except UserError:
            raise
        except Exception as error:
            raise UserError(problem(error, self._uri)) from None

    def describe(self, record: SweepRecord) -> None:
        """Logs what the sweep asks for."""
        self._queue.put(partial(self.writer.describe, record.public_facts()))

    def catch_up(self, trials: Iterable[PlannedTrial]) -> None:
        """Logs those of some trials that ended of which MLflow, as it is now, lacks something."""
        ended, now = {planned.signature: planned for planned in trials}, time.time()

        def catch_up() -> None:
            bridges = {name: self.ledger.trial(name).finished_bridge for name in ended}
            for signature in self.writer.stored().lacks(bridges):
                self._log_ended(ended[signature], now)

        self._queue.put(catch_up)

    def start(self, planned: PlannedTrial) -> None:
        """Opens a trial's run."""
        self._queue.put(partial(self._start, planned))

    def log(self, signature: str, points: Iterable[Mapping[str, Any]]) -> None:
        self._queue.put(partial(self.writer.log, signature, list(points), time.time()))

    def finish(self, planned: PlannedTrial) -> None:
        """Logs all of a finished trial, whatever has been logged before, and ends its run."""
        # The time of every attempt: MLflow keeps equal metrics of one time once.
        self._queue.put(partial(self._finish, planned, time.time()))

    def fail(self, signature: str, reason: str) -> None:
        self._queue.put(partial(self.writer.fail, signature, reason))

    def kill(self, signature: str, reason: str = INTERRUPTED) -> None:
        self._queue.put(partial(self.writer.kill, signature, reason))

    def supersede(self, signature: str) -> None:
        """Leaves a trial's run as it is; the trial gets a new one."""
        self._queue.put(partial(self.writer.supersede, signature))

    def prune(self, signature: str) -> None:
        """Marks the run of a trial that an edited spec no longer asks for."""
        self._queue.put(partial(self.writer.prune, signature))

    def __enter__(self) -> SweepTracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self.status = Status.KILLED if issubclass(kind, KeyboardInterrupt) else Status.FAILED
        self._queue.put(partial(self.writer.close, self.status))
        with suppress(KeyboardInterrupt):  # of somebody who does not want to wait for MLflow
            self._unsent = self._queue.close(PATIENCE_S)

    @property
    def problem(self) -> str | None:
        """What MLflow lacks, once the block has ended; None where it has everything."""
        if self._queue.errors:
            return f"{self._server} refused: {reason_of(self._queue.errors[0])}"
        if self._unsent:
            return f"{self._server} could not be brought up to date; the same command does the rest"
        return None

    def _log_ended(self, planned: PlannedTrial, now: float) -> None:
        """Logs a trial that ended as its record says."""
        record, signature = self.ledger.trial(planned.signature), planned.signature
        if record.finished:
            self._finish(planned, now)
            return
        self._start(planned)
        self.writer.log(signature, record.partial_history(), now)
        if failure := record.failure:
            self.writer.fail(signature, failure)
        elif stop := record.stop:
            self.writer.kill(signature, str(stop["reason"]))

    def _start(self, planned: PlannedTrial) -> None:
        """Opens a trial's run; its parameters are the fields that make a difference to it."""
        inactive = tuple(planned.trial.inactive_fields())
        params = flatten(planned.trial)
        for name, value in list(params.items()):
            if value == [] or name.startswith(inactive):
                del params[name]
        self.writer.start(planned.signature, planned.label, params)

    def _finish(self, planned: PlannedTrial, now: float) -> None:
        record, signature = self.ledger.trial(planned.signature), planned.signature
        self._start(planned)
        self.writer.log(signature, record.history(), now)
        with local_copy(record.bridge) as bridge:
            self.writer.finish(signature, record.metrics(), bridge, now)

    def _report_trouble(self, error: Exception | None) -> None:
        state = f"does not answer ({reason_of(error)}); trying again" if error else "answers again"
        self.console.print(f"{self._server} {state}", style="yellow", soft_wrap=True)
