"""What a sweep tells MLflow, without ever waiting for it: a server that is away, or a locked
database, delays the telling and not the trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console

from diffgap.errors import UserError
from diffgap.io.paths import local_copy
from diffgap.io.redact import redact
from diffgap.ledger.ledger import Ledger, SweepRecord
from diffgap.ledger.provenance import git_commit
from diffgap.spec import flatten
from diffgap.sweep.plan import Plan, PlannedTrial
from diffgap.tracking.client import FAILED, KILLED, is_transient, tracking_uri
from diffgap.tracking.delivery import DeliveryQueue
from diffgap.tracking.writer import RunWriter
from diffgap.training.failures import reason_of

PATIENCE_S = 60.0
"""How long MLflow is waited for before a sweep begins, and after it has ended."""

PAUSE_S = 1.0

T = TypeVar("T")


class SweepTracker:
    """The messages of one sweep to MLflow; use it as a context.

    Attributes:
        status: what the sweep's own run ends as.
        left: messages that never arrived, once the block has ended.
    """

    def __init__(self, plan: Plan, ledger: Ledger, console: Console) -> None:
        self.ledger, self.console = ledger, console
        self.status = FAILED
        self.left = 0
        self._where = f"MLflow at {redact(tracking_uri(ledger.output))}"
        tags = {"diffgap.git_commit": git_commit(), "diffgap.store": plan.store}
        self.writer = _patiently(
            lambda: RunWriter(ledger.output, plan.spec.name, ledger.identity(), tags),
            self._where,
            console,
        )
        self._queue = DeliveryQueue(is_transient, self._trouble)

    def describe(self, record: SweepRecord) -> None:
        """The sweep asks for this, by now."""

        def describe() -> None:
            self.writer.describe(record.public_facts())
            self.ledger.record_synced(record.name, record.digest)

        self._queue.put(describe)

    def start(self, planned: PlannedTrial) -> None:
        """A trial begins, or goes on; fields that it has no use for are no parameters."""
        idle = tuple(planned.trial.inactive_fields())
        values = flatten(planned.trial)
        used = {n: v for n, v in values.items() if not n.startswith(idle) and v != []}
        self._queue.put(
            partial(self.writer.start, planned.signature, planned.label, used)  # type: ignore[arg-type]
        )

    def log(self, signature: str, points: Iterable[Mapping[str, Any]]) -> None:
        """A trial has reported points."""
        self._queue.put(partial(self.writer.log, signature, list(points), time.time()))

    def finish(self, planned: PlannedTrial) -> None:
        """A trial is finished: all of it is told, whatever was told before."""
        self.start(planned)
        record, signature, sweep = (
            self.ledger.trial(planned.signature),
            planned.signature,
            self.writer.sweep,
        )
        now = time.time()

        def finish() -> None:
            self.writer.log(signature, record.history(), now)
            with local_copy(record.bridge) as bridge:
                self.writer.finish(signature, record.metrics(), bridge, now)
            record.record_run(sweep, self.writer.start(signature, planned.label, {}))

        self._queue.put(finish)

    def fail(self, signature: str, reason: str) -> None:
        self._queue.put(partial(self.writer.fail, signature, reason))

    def kill(self, signature: str, reason: str = "interrupted") -> None:
        self._queue.put(partial(self.writer.kill, signature, reason))

    def supersede(self, signature: str) -> None:
        """Leaves a trial's run as it is; the trial gets a new one."""
        self._queue.put(partial(self.writer.supersede, signature))

    def prune(self, signature: str) -> None:
        """A trial is no longer asked for."""
        self._queue.put(partial(self.writer.prune, signature))

    def __enter__(self) -> SweepTracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if kind:
            self.status = KILLED if issubclass(kind, KeyboardInterrupt) else FAILED
        self._queue.put(partial(self.writer.close, self.status))
        with suppress(KeyboardInterrupt):
            self.left = self._queue.close(PATIENCE_S)
        self.left += len(self._queue.errors)

    @property
    def problem(self) -> str | None:
        """What MLflow does not know, once the block has ended; None where it knows all."""
        if self._queue.errors:
            return f"{self._where} refused: {reason_of(self._queue.errors[0])}"
        if self.left:
            return f"{self._where} could not be told of all; the same command tells the rest"
        return None

    def _trouble(self, error: Exception | None) -> None:
        if error:
            said = f"{self._where} does not answer ({reason_of(error)}); trials go on meanwhile"
        else:
            said = f"{self._where} answers again"
        self.console.print(said, style="yellow", soft_wrap=True)


def _patiently(attempt: Callable[[], T], where: str, console: Console) -> T:
    """Tries until it succeeds, for `PATIENCE_S` at most."""
    until = time.monotonic() + PATIENCE_S
    said = False
    while True:
        try:
            return attempt()
        except Exception as error:
            if not is_transient(error) or time.monotonic() > until:
                raise UserError(
                    f"{where} cannot be used: {reason_of(error)}; start it, or change "
                    "MLFLOW_TRACKING_URI"
                ) from None
            if not said:
                console.print(f"Waiting for {where}: {reason_of(error)}", style="yellow")
                said = True
            time.sleep(PAUSE_S)
