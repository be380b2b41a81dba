"""`diffgap sweep`: from a plan to finished trials, doing only what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from diffgap.ledger.leases import sweep_lock
from diffgap.ledger.ledger import Ledger, SweepRecord
from diffgap.ledger.locks import SweepLock
from diffgap.sweep.display import SweepDisplay
from diffgap.sweep.plan import Plan, PlannedTrial
from diffgap.sweep.strategies import SweepStrategy, make_strategy

if TYPE_CHECKING:
    from diffgap.cluster.capacity import ClusterCapacity
    from diffgap.sweep.tracking import SweepTracker

INTERRUPTED = "interrupted; the same command continues"
MLFLOW = "MLflow"
"""Stands for a trial's label where it is MLflow that does not know all."""


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is to be run."""

    address: str | None = None
    """The Ray cluster to join; else RAY_ADDRESS, else a local Ray."""
    fresh: bool = False
    """Forget earlier results of these trials first."""
    prune: bool = False
    """Mark in MLflow what an edited spec no longer asks for."""
    max_concurrent: int | None = None
    """The most trials in flight at once."""
    verbose: bool = False
    """Show what Ray and its workers say."""
    quiet: bool = False
    """Show nothing on the way."""
    patience: float | None = None
    """Minutes to wait for a cluster that is to grow; None for one that has what it has."""
    on_loss: Callable[[str], None] | None = None
    """Called when a local Ray is lost; see `ray_cluster.cluster`."""


def run_sweep(
    plan: Plan, ledger: Ledger, console: Console, options: SweepOptions
) -> dict[str, str]:
    """Runs what is missing of a plan and brings MLflow up to date.

    A trial that any sweep has finished is not repeated; where this sweep has no MLflow run of it
    yet, it gets one. With everything done and told, neither Ray nor MLflow is even imported.

    Args:
        plan: what is wanted.
        ledger: what is done.
        console: for people.
        wishes: how to go about it.

    Returns:
        The trials without a result, with the reason of each, by label.

    Raises:
        UserError: where not one trial fits the cluster, MLflow cannot be had, or another process
            runs the sweep; then no trial has been started or forgotten.
    """
    say = partial(console.print, style="yellow", soft_wrap=True)
    with sweep_lock(ledger.output, plan.spec.name, say) as lock:
        return SweepRun(plan, ledger, console, options, lock).run()


@dataclass
class SweepRun:
    """One run of a sweep."""

    plan: Plan
    ledger: Ledger
    console: Console
    options: SweepOptions
    lock: SweepLock

    def run(self) -> dict[str, str]:
        strategy = make_strategy(self.plan, self.ledger)
        left = strategy.total if self.options.fresh else len(strategy.missing) + strategy.undrawn
        untold, record = self._untold(strategy), self._record(strategy)
        synced_digest = not untold and self.ledger.synced_digest(record.name) == record.digest
        if synced_digest and not (left or self.options.prune or self.lock.was_interrupted):
            return {}
        failed: dict[str, str] = {}
        with self._placed(left) as capacity, self._tracker() as tracker:
            self.lock.heartbeat({}, force=True)
            if self.options.fresh:
                self._begin_anew(strategy, tracker)
            tracker.describe(self._record(strategy))
            self._prune(tracker)
            for planned in untold:
                tracker.finish(planned)
            if capacity:
                failed = self._run_missing(strategy, tracker, capacity, left)
            without = dict.fromkeys((p.signature for p in strategy.missing), INTERRUPTED) | failed
            for signature in without.keys() - failed.keys():
                tracker.kill(signature)
            tracker.describe(self._record(strategy))
            tracker.status = _status(failed, without)
        return self._by_label(strategy, without, tracker)

    def _run_missing(
        self, strategy: SweepStrategy, tracker: SweepTracker, capacity: ClusterCapacity, left: int
    ) -> dict[str, str]:
        """Runs what is missing; returns what failed, with the reasons, by signature."""
        from diffgap.sweep.context import SweepContext

        placement = capacity.placement
        if self.plan.spec.resources.gpus_per_worker and not placement.gpus:
            self._warn("No GPU in this cluster: trials run on CPUs.")
        more = f"; {left - placement.concurrent} wait" if left > placement.concurrent else ""
        self.console.print(f"{left} of {strategy.total} trials to run, {placement}{more}.")
        with SweepDisplay(self.console, strategy.total, left, quiet=self.options.quiet) as show:
            context = SweepContext(
                self.plan,
                self.ledger,
                tracker,
                self.lock,
                capacity,
                show,
                verbose=self.options.verbose,
            )
            strategy.run(context, lambda: tracker.describe(self._record(strategy)))
        return context.failures

    @contextmanager
    def _placed(self, left: int) -> Iterator[ClusterCapacity | None]:
        """Ray, and the room that it has for trials; nothing where none is left.

        Whatever keeps a node from taking part is found here, before anything is written.
        """
        if not left:
            yield None
            return
        from diffgap.cluster.capacity import ClusterCapacity
        from diffgap.cluster.connect import cluster
        from diffgap.tracking.client import warm_up

        options = self.options
        self.console.print("Starting Ray ...", style="dim")
        warm_up(self.ledger.output)  # meanwhile: both take seconds
        with cluster(options.address, verbose=options.verbose, on_loss=options.on_loss) as joined:
            if joined:
                self._check_nodes()
            asked, most = self.plan.spec.resources, options.max_concurrent
            capacity = ClusterCapacity(asked, most, joined, self._warn, options.patience)
            try:
                capacity.wait_for_room()
                yield capacity
            finally:
                capacity.close()

    def _check_nodes(self) -> None:
        from diffgap.sweep.preflight import check_nodes, several_nodes, shared_store

        if several_nodes() or self.options.patience:
            store = shared_store(self.plan.store, self.ledger)
            self.plan = replace(self.plan, store=store)
        check_nodes(self.ledger, self.plan.store)

    def _warn(self, text: str) -> None:
        self.console.print(text, style="yellow", soft_wrap=True)

    def _tracker(self) -> SweepTracker:
        from diffgap.sweep.tracking import SweepTracker

        return SweepTracker(self.plan, self.ledger, self.console)

    def _begin_anew(self, strategy: SweepStrategy, tracker: SweepTracker) -> None:
        for planned in strategy.trials:
            tracker.supersede(planned.signature)
        strategy.forget()

    def _prune(self, tracker: SweepTracker) -> None:
        """Marks what an earlier spec asked for, if that is wished."""
        record = self.ledger.sweep(self.plan.spec.name)
        dropped = [entry for entry in record.dropped if not entry.get("pruned")]
        if not dropped:
            return
        if not self.options.prune:
            said = f"{len(dropped)} trials of an earlier spec are no longer asked for; "
            self.console.print(f"{said}--prune marks them in MLflow.", style="dim")
            return
        for entry in dropped:
            tracker.prune(entry["signature"])
        self.console.print(f"{len(dropped)} trials of an earlier spec are marked as pruned.")
        pruned = [{**entry, "pruned": True} for entry in record.dropped]
        self.ledger.record_sweep(replace(record, dropped=pruned))

    def _record(self, strategy: SweepStrategy) -> SweepRecord:
        """Keeps the sweep as it is now, with the trials that are known."""
        asked = replace(self.plan, trials=tuple(strategy.trials)).record()
        test_trials = [{**planned.entry(), "final": True} for planned in strategy.test_trials]
        record = replace(asked, trials=[*asked.trials, *test_trials])
        self.ledger.record_sweep(record)
        return record

    def _untold(self, strategy: SweepStrategy) -> list[PlannedTrial]:
        """Finished trials of which this sweep has no whole MLflow run."""
        if self.options.fresh:
            return []
        name = self.plan.spec.name
        done = [planned for planned in strategy.required if strategy.finished(planned)]
        return [p for p in done if not self.ledger.trial(p.signature).run_id(name)]

    def _by_label(
        self, strategy: SweepStrategy, without: dict[str, str], tracker: SweepTracker
    ) -> dict[str, str]:
        """What is left without a result, as people know it; and what MLflow does not know."""
        self.lock.is_settled = not tracker.problem
        labels = {
            planned.signature: planned.label
            for planned in (*strategy.trials, *strategy.test_trials)
        }
        named = {labels[signature]: why for signature, why in without.items()}
        return named | ({MLFLOW: tracker.problem} if tracker.problem else {})


def _status(failed: dict[str, str], without: dict[str, str]) -> str:
    """What the sweep's own run ends as."""
    from diffgap.tracking.client import FAILED, FINISHED, KILLED

    if failed:
        return FAILED
    return KILLED if without else FINISHED
