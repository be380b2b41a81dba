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
from diffgap.tracking.client import is_transient, tracking_uri
from diffgap.tracking.delivery import DeliveryQueue, retry
from diffgap.tracking.names import INTERRUPTED, Status
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
        self._server = f"MLflow at {redact(tracking_uri(ledger.output))}"
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
        except Exception as error:
            reason = f"{self._server} cannot be used: {reason_of(error)}"
            raise UserError(f"{reason}; start it, or change MLFLOW_TRACKING_URI") from None

    def describe(self, record: SweepRecord) -> None:
        """Logs what the sweep asks for."""

        def describe() -> None:
            self.writer.describe(record.public_facts())
            self.ledger.record_synced(record.name, record.digest)

        self._queue.put(describe)

    def start(self, planned: PlannedTrial) -> None:
        """Opens a trial's run; its parameters are the fields that make a difference to it."""
        inactive = tuple(planned.trial.inactive_fields())
        params = flatten(planned.trial)
        for name, value in list(params.items()):
            if value == [] or name.startswith(inactive):
                del params[name]
        self._queue.put(partial(self.writer.start, planned.signature, planned.label, params))

    def log(self, signature: str, points: Iterable[Mapping[str, Any]]) -> None:
        self._queue.put(partial(self.writer.log, signature, list(points), time.time()))

    def finish(self, planned: PlannedTrial) -> None:
        """Logs all of a finished trial, whatever has been logged before, and ends its run."""
        self.start(planned)
        record, signature = self.ledger.trial(planned.signature), planned.signature
        now = time.time()  # of every attempt: MLflow keeps equal metrics of one time once

        def finish() -> None:
            self.writer.log(signature, record.history(), now)
            with local_copy(record.bridge) as bridge:
                self.writer.finish(signature, record.metrics(), bridge, now)
            # Last: a trial with a recorded run is not logged again by the next command.
            run_id = self.writer.start(signature, planned.label, {})
            record.record_run(self.writer.sweep, run_id)

        self._queue.put(finish)

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

    def _report_trouble(self, error: Exception | None) -> None:
        state = f"does not answer ({reason_of(error)}); trying again" if error else "answers again"
        self.console.print(f"{self._server} {state}", style="yellow", soft_wrap=True)
