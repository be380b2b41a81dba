"""`diffgap sweep`: from a plan to finished trials, doing only what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from diffgap.ledger.ledger import Ledger, SweepRecord
from diffgap.ledger.locks import Running, running_of
from diffgap.sweep.display import SweepDisplay
from diffgap.sweep.plan import Plan, PlannedTrial
from diffgap.sweep.strategies import Kind, kind_of

if TYPE_CHECKING:
    from diffgap.cluster.capacity import Room
    from diffgap.sweep.tracking import Telling

INTERRUPTED = "interrupted; the same command continues"
MLFLOW = "MLflow"
"""Stands for a trial's label where it is MLflow that does not know all."""


@dataclass(frozen=True)
class Wishes:
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
    meanwhile: Callable[[], None] | None = None
    """Called in a thread once trials run, and this process waits for them."""


def run_sweep(plan: Plan, ledger: Ledger, console: Console, wishes: Wishes) -> dict[str, str]:
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
    with running_of(ledger.output, plan.spec.name, say) as running:
        return _Run(plan, ledger, console, wishes, running).carry_out()


@dataclass
class _Run:
    """One run of a sweep."""

    plan: Plan
    ledger: Ledger
    console: Console
    wishes: Wishes
    running: Running

    def carry_out(self) -> dict[str, str]:
        kind = kind_of(self.plan, self.ledger)
        left = kind.total if self.wishes.fresh else len(kind.missing) + kind.new
        untold, record = self._untold(kind), self._record(kind)
        told = not untold and self.ledger.told(record.name) == record.digest
        if told and not (left or self.wishes.prune or self.running.was_cut_short):
            return {}
        failed: dict[str, str] = {}
        with self._placed(left) as room, self._telling() as telling:
            self.running.beat({}, force=True)
            if self.wishes.fresh:
                self._begin_anew(kind, telling)
            telling.describe(self._record(kind))
            self._prune(telling)
            for planned in untold:
                telling.finish(planned)
            if room:
                failed = self._go(kind, telling, room, left)
            without = dict.fromkeys((p.signature for p in kind.missing), INTERRUPTED) | failed
            for signature in without.keys() - failed.keys():
                telling.kill(signature)
            telling.describe(self._record(kind))
            telling.status = _status(failed, without)
        return self._by_label(kind, without, telling)

    def _go(self, kind: Kind, telling: Telling, room: Room, left: int) -> dict[str, str]:
        """Runs what is missing; returns what failed, with the reasons, by signature."""
        from diffgap.sweep.tune import Stage

        placement = room.placement
        if self.plan.spec.resources.gpus_per_worker and not placement.gpus:
            self._warn("No GPU in this cluster: trials run on CPUs.")
        more = f"; {left - placement.concurrent} wait" if left > placement.concurrent else ""
        self.console.print(f"{left} of {kind.total} trials to run, {placement}{more}.")
        with SweepDisplay(self.console, kind.total, left, quiet=self.wishes.quiet) as show:
            stage = Stage(
                self.plan,
                self.ledger,
                telling,
                self.running,
                room,
                show,
                verbose=self.wishes.verbose,
                meanwhile=self.wishes.meanwhile,
            )
            kind.go(stage, lambda: telling.describe(self._record(kind)))
        return stage.failed

    @contextmanager
    def _placed(self, left: int) -> Iterator[Room | None]:
        """Ray, and the room that it has for trials; nothing where none is left.

        Whatever keeps a node from taking part is found here, before anything is written.
        """
        if not left:
            yield None
            return
        from diffgap.cluster.capacity import Room
        from diffgap.cluster.connect import cluster
        from diffgap.tracking.client import warm_up

        wishes = self.wishes
        self.console.print("Starting Ray ...", style="dim")
        warm_up(self.ledger.output)  # meanwhile: both take seconds
        with cluster(wishes.address, verbose=wishes.verbose, on_loss=wishes.on_loss) as joined:
            if joined:
                self._check_nodes()
            asked, most = self.plan.spec.resources, wishes.max_concurrent
            room = Room(asked, most, joined, self._warn, wishes.patience)
            try:
                room.enter()
                yield room
            finally:
                room.close()

    def _check_nodes(self) -> None:
        from diffgap.sweep.preflight import check_nodes, several_nodes, shared_store

        if several_nodes() or self.wishes.patience:
            store = shared_store(self.plan.store, self.ledger)
            self.plan = replace(self.plan, store=store)
        check_nodes(self.ledger, self.plan.store)

    def _warn(self, text: str) -> None:
        self.console.print(text, style="yellow", soft_wrap=True)

    def _telling(self) -> Telling:
        from diffgap.sweep.tracking import Telling

        return Telling(self.plan, self.ledger, self.console)

    def _begin_anew(self, kind: Kind, telling: Telling) -> None:
        for planned in kind.trials:
            telling.set_aside(planned.signature)
        kind.forget()

    def _prune(self, telling: Telling) -> None:
        """Marks what an earlier spec asked for, if that is wished."""
        record = self.ledger.sweep(self.plan.spec.name)
        dropped = [entry for entry in record.dropped if not entry.get("pruned")]
        if not dropped:
            return
        if not self.wishes.prune:
            said = f"{len(dropped)} trials of an earlier spec are no longer asked for; "
            self.console.print(f"{said}--prune marks them in MLflow.", style="dim")
            return
        for entry in dropped:
            telling.prune(entry["signature"])
        self.console.print(f"{len(dropped)} trials of an earlier spec are marked as pruned.")
        pruned = [{**entry, "pruned": True} for entry in record.dropped]
        self.ledger.record_sweep(replace(record, dropped=pruned))

    def _record(self, kind: Kind) -> SweepRecord:
        """Keeps the sweep as it is now, with the trials that are known."""
        asked = replace(self.plan, trials=tuple(kind.trials)).record()
        finals = [{**planned.entry(), "final": True} for planned in kind.finals]
        record = replace(asked, trials=[*asked.trials, *finals])
        self.ledger.record_sweep(record)
        return record

    def _untold(self, kind: Kind) -> list[PlannedTrial]:
        """Finished trials of which this sweep has no whole MLflow run."""
        if self.wishes.fresh:
            return []
        name = self.plan.spec.name
        done = [planned for planned in kind.wanted if kind.finished(planned)]
        return [p for p in done if not self.ledger.trial(p.signature).run_id(name)]

    def _by_label(self, kind: Kind, without: dict[str, str], telling: Telling) -> dict[str, str]:
        """What is left without a result, as people know it; and what MLflow does not know."""
        self.running.clean = not telling.problem
        labels = {planned.signature: planned.label for planned in (*kind.trials, *kind.finals)}
        named = {labels[signature]: why for signature, why in without.items()}
        return named | ({MLFLOW: telling.problem} if telling.problem else {})


def _status(failed: dict[str, str], without: dict[str, str]) -> str:
    """What the sweep's own run ends as."""
    from diffgap.tracking.client import FAILED, FINISHED, KILLED

    if failed:
        return FAILED
    return KILLED if without else FINISHED
