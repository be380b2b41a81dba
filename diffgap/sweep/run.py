"""Run of a sweep (`diffgap sweep`): from a plan to finished trials, doing only what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from diffgap.errors import UserError
from diffgap.ledger.leases import sweep_lock
from diffgap.ledger.ledger import Ledger, SweepRecord
from diffgap.ledger.locks import SweepLock, described
from diffgap.sweep.display import SweepDisplay
from diffgap.sweep.plan import Plan, PlannedTrial
from diffgap.sweep.strategies import make_strategy
from diffgap.tracking.client import tracking_uri

if TYPE_CHECKING:
    from diffgap.cluster.capacity import ClusterCapacity
    from diffgap.sweep.tracking import SweepTracker

INTERRUPTED = "interrupted; the same command continues"
MLFLOW = "MLflow"  # stands for a trial's label where MLflow could not be brought up to date


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is run."""

    address: str | None = None
    """The Ray cluster to join; else RAY_ADDRESS, else a local Ray."""
    fresh: bool = False
    """Forget earlier results of these trials first."""
    prune: bool = False
    """Mark in MLflow the trials that an edited spec no longer has."""
    max_concurrent: int | None = None
    verbose: bool = False
    """Show the output of Ray and its workers."""
    quiet: bool = False
    patience: float | None = None
    """Minutes to wait for a cluster that is to grow; None for one that has what it has."""
    on_loss: Callable[[str, str], None] | None = None
    """Called when a local Ray is lost; see `diffgap.cluster.connect.cluster`."""


def run_sweep(
    plan: Plan, ledger: Ledger, console: Console, options: SweepOptions
) -> dict[str, str]:
    """Runs the missing trials of a plan and brings MLflow up to date.

    A trial that any sweep has finished is not repeated, but gets an MLflow run in this one too.
    Returns why trials have no result, by label.

    Raises:
        UserError: where no trial fits the cluster, MLflow does not answer, or another process runs
            the sweep; then no trial has been started or forgotten.
    """
    warn = partial(console.print, style="yellow", soft_wrap=True)
    with sweep_lock(ledger.output, plan.spec.name, warn) as lock:
        return SweepRun(plan, ledger, console, options, lock, warn).run()


@dataclass
class SweepRun:
    """One run of a sweep, by the process that holds its lock."""

    plan: Plan
    ledger: Ledger
    console: Console
    options: SweepOptions
    lock: SweepLock
    warn: Callable[[str], None]

    def __post_init__(self) -> None:
        self.strategy = make_strategy(self.plan, self.ledger)

    def run(self) -> dict[str, str]:
        to_run = len(self.strategy.missing) + self.strategy.undrawn
        if self.options.fresh:
            to_run = self.strategy.total
            self._claim_all()
        tracking_uri(self.ledger.output)  # refuses an output that cannot have one, at once
        record = self._record()
        is_done = not (to_run or self.options.prune or self.lock.was_interrupted)
        if is_done and self._is_logged(record):
            return {}  # without even importing Ray
        from diffgap.sweep.tracking import SweepTracker
        from diffgap.tracking.names import Status

        with (
            self._cluster(to_run) as capacity,
            SweepTracker(self.plan, self.ledger, self.console) as tracker,
        ):
            self.lock.heartbeat({}, force=True)
            if self.options.fresh:
                self._forget(tracker)
            tracker.describe(self._record())
            self._prune(tracker)
            tracker.catch_up(self._ended())
            failures: dict[str, str] = {}
            if capacity:
                failures = self._run_missing(tracker, capacity, to_run)
                tracker.catch_up(self._ended())  # others may have run trials of this sweep
            reasons = dict(failures)
            for planned in self.strategy.missing:
                if planned.signature not in failures:
                    reasons[planned.signature] = INTERRUPTED
                    tracker.kill(planned.signature)
            tracker.describe(self._record())  # a search knows more trials by now
            unfailed = Status.KILLED if reasons else Status.FINISHED
            tracker.status = Status.FAILED if failures else unfailed
        self.lock.is_settled = not tracker.problem
        return self._by_label(reasons) | ({MLFLOW: tracker.problem} if tracker.problem else {})

    def _run_missing(
        self, tracker: SweepTracker, capacity: ClusterCapacity, to_run: int
    ) -> dict[str, str]:
        """Returns why trials failed, by signature."""
        from diffgap.sweep.context import SweepContext

        placement, total = capacity.placement, self.strategy.total
        if self.plan.spec.resources.gpus_per_worker and not placement.gpus:
            self.warn("No GPU in this cluster: trials run on CPUs.")
        waiting = max(0, to_run - placement.concurrent)
        more = f"; {waiting} wait" if waiting else ""
        self.console.print(f"{to_run} of {total} trials to run, {placement}{more}.")
        with SweepDisplay(self.console, total, to_run, quiet=self.options.quiet) as display:
            context = SweepContext(
                self.plan, self.ledger, tracker, self.lock, capacity, display, self.options.verbose
            )
            self.strategy.run(context, lambda: tracker.describe(self._record()))
        return context.failures

    @contextmanager
    def _cluster(self, to_run: int) -> Iterator[ClusterCapacity | None]:
        """Connects to Ray, checks its nodes and waits for room; None where nothing is to run."""
        if not to_run:
            yield None
            return
        from diffgap.cluster.capacity import ClusterCapacity
        from diffgap.cluster.connect import cluster
        from diffgap.sweep.request import check_room
        from diffgap.tracking.client import warm_up

        options, resources = self.options, self.plan.spec.resources
        check_room(self.plan.spec, options.address)
        self.console.print("Starting Ray ...", style="dim")
        warm_up(self.ledger.output)  # beside Ray, for each takes seconds
        with cluster(options.address, verbose=options.verbose, on_loss=options.on_loss) as joined:
            if joined:
                self._check_nodes()
            capacity = ClusterCapacity(
                resources, options.max_concurrent, joined, self.warn, options.patience
            )
            try:
                capacity.wait_for_room()
                yield capacity
            finally:
                capacity.close()

    def _check_nodes(self) -> None:
        from diffgap.sweep.preflight import check_nodes, has_several_nodes, shared_store

        if has_several_nodes() or self.options.patience:  # which waits for more of them
            self.plan = replace(self.plan, store=shared_store(self.plan.store, self.ledger))
        check_nodes(self.ledger, self.plan.store)

    def _claim_all(self) -> None:
        """Claims every trial that is to be forgotten; UserError where another sweep runs one."""
        problems = []
        for planned in (*self.strategy.trials, *self.strategy.test_trials):
            record = self.ledger.trial(planned.signature)
            if not self.lock.claim(record):
                who = described(self.lock.holder(record))
                problems.append(
                    f"--fresh: {planned.label} is run by {who} at this moment; wait for it, or "
                    "leave --fresh out"
                )
        if problems:
            raise UserError(*problems)

    def _forget(self, tracker: SweepTracker) -> None:
        """Drops earlier results; their MLflow runs stay, beside the new ones."""
        trials = [*self.strategy.trials, *self.strategy.test_trials]
        for planned in self.strategy.trials:
            tracker.supersede(planned.signature)
        self.strategy.forget()
        for planned in trials:  # the locked files went with the results
            self.lock.release(self.ledger.trial(planned.signature))

    def _prune(self, tracker: SweepTracker) -> None:
        """Marks the trials that only an earlier spec had, or says how to."""
        record = self.ledger.sweep(self.plan.spec.name)
        unmarked = [entry for entry in record.dropped if not entry.get("pruned")]
        if unmarked and not self.options.prune:
            hint = f"{len(unmarked)} trials of an earlier spec are no longer part of this sweep; "
            self.console.print(f"{hint}--prune marks them in MLflow.", style="dim")
        if not unmarked or not self.options.prune:
            return
        for entry in unmarked:
            tracker.prune(entry["signature"])
        self.console.print(f"{len(unmarked)} trials of an earlier spec are marked as pruned.")
        pruned = [{**entry, "pruned": True} for entry in record.dropped]
        self.ledger.record_sweep(replace(record, dropped=pruned))

    def _record(self) -> SweepRecord:
        record = replace(self.plan, trials=tuple(self.strategy.trials)).record()
        for planned in self.strategy.test_trials:
            record.trials.append({**planned.entry(), "final": True})
        self.ledger.record_sweep(record)
        return record

    def _ended(self) -> list[PlannedTrial]:
        """The trials of which MLflow is to have a run, but for those that are still to run."""
        trials = [*self.strategy.trials, *self.strategy.test_trials]
        missing = {planned.signature for planned in self.strategy.missing}
        return [
            planned
            for planned in trials
            if planned.signature not in missing and self.ledger.trial(planned.signature).ended
        ]

    def _is_logged(self, record: SweepRecord) -> bool:
        """Whether the tracking store has the sweep and all that ended; UserError if it is away."""
        from diffgap.tracking.audit import is_logged

        signatures = [planned.signature for planned in self._ended()]
        bridges = {name: self.ledger.trial(name).finished_bridge for name in signatures}
        facts = record.public_facts()
        return is_logged(self.ledger.output, self.ledger.identity(), facts, bridges)

    def _by_label(self, reasons: dict[str, str]) -> dict[str, str]:
        trials = (*self.strategy.trials, *self.strategy.test_trials)
        labels = {planned.signature: planned.label for planned in trials}
        return {labels[signature]: reason for signature, reason in reasons.items()}
