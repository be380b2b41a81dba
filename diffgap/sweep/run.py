"""`diffgap sweep`: from a plan to finished trials, doing only what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console

from diffgap.ledger import Ledger
from diffgap.spec import Resources
from diffgap.sweep.plan import Plan, PlannedTrial

if TYPE_CHECKING:
    from diffgap.sweep.placement import Placement
    from diffgap.sweep.runner import Outcome

INTERRUPTED = "interrupted; the same command continues"


def run_sweep(
    plan: Plan, ledger: Ledger, console: Console, *, address: str | None = None, fresh: bool = False
) -> dict[str, str]:
    """Runs what is missing of a plan and brings MLflow up to date.

    A trial that any sweep has finished is not repeated; where this sweep has no MLflow run of it
    yet, it gets one. With everything done and told, neither Ray nor MLflow is even imported.

    Args:
        plan: what is wanted.
        ledger: what is done.
        console: for people.
        address: the Ray cluster to join; else RAY_ADDRESS, else a local Ray.
        fresh: forget earlier results of these trials first.

    Returns:
        The trials without a result, with the reason of each, by label.

    Raises:
        UserError: where not one trial fits the cluster; then nothing has been written.
    """
    if plan.spec.search:
        return _run_search(plan, ledger, console, address, fresh)
    missing = list(plan.trials) if fresh else plan.missing(ledger)
    with ExitStack() as stack:
        placement = None
        if missing:
            placement = stack.enter_context(_ray(plan.spec.resources, console, address))
            console.print(f"{len(missing)} of {len(plan.trials)} trials to run, {placement}.")
        if fresh:
            for planned in missing:
                ledger.trial(planned.signature).forget()
        ledger.record_sweep(plan.record())
        untold = [
            planned
            for planned in plan.trials
            if planned not in missing and not ledger.trial(planned.signature).run_id(plan.spec.name)
        ]
        return _run(plan, ledger, console, placement, untold, fresh) if missing or untold else {}


@contextmanager
def _ray(resources: Resources, console: Console, address: str | None) -> Iterator[Placement]:
    """Ray, and how the trials lie on it."""
    from diffgap.ray_cluster import cluster
    from diffgap.sweep.placement import place

    console.print("Starting Ray ...", style="dim")
    with cluster(address):
        placement = place(resources)
        if resources.gpus_per_worker and not placement.gpus:
            console.print("No GPU in this cluster: trials run on CPUs.", style="yellow")
        yield placement


def _run(
    plan: Plan,
    ledger: Ledger,
    console: Console,
    placement: Placement | None,
    untold: list[PlannedTrial],
    fresh: bool,
) -> dict[str, str]:
    """Tells MLflow what it has not heard, and runs the rest where there is a Ray to run it on."""
    from diffgap.sweep.display import SweepDisplay
    from diffgap.sweep.runner import Outcome, finish_run, open_tracker, run_missing

    with open_tracker(plan, ledger, fresh) as tracker:
        for planned in untold:
            finish_run(ledger, tracker, planned)
        outcome = Outcome()
        if placement:
            missing = plan.missing(ledger)
            with SweepDisplay(console, len(plan.trials), len(missing)) as display:
                outcome = run_missing(plan, ledger, tracker, placement, display)
        tracker.status = outcome.status
    return _without(outcome, {planned.signature: planned.label for planned in plan.trials})


def _run_search(
    plan: Plan, ledger: Ledger, console: Console, address: str | None, fresh: bool
) -> dict[str, str]:
    """Runs what is left of a search; with nothing left, Ray is not even started."""
    from diffgap.sweep.search import Study

    search = plan.spec.search
    assert search
    study = Study(plan, ledger)
    if fresh:
        study.forget()
        study = Study(plan, ledger)
    left = len(study.open) + study.left
    ledger.record_sweep(replace(plan, trials=tuple(study.seen.values())).record())
    if not left:
        return {}
    with _ray(plan.spec.resources, console, address) as placement:
        console.print(f"{left} of {search.trials} trials to run, {placement}.")
        from diffgap.sweep.display import SweepDisplay
        from diffgap.sweep.runner import open_tracker, run_search

        with (
            open_tracker(plan, ledger, fresh=False) as tracker,
            SweepDisplay(console, search.trials, left) as display,
        ):
            outcome = run_search(study, tracker, placement, display)
            tracker.status = outcome.status
    trials = ledger.sweep(plan.spec.name).trials
    return _without(outcome, {entry["signature"]: entry["label"] for entry in trials})


def _without(outcome: Outcome, labels: dict[str, str]) -> dict[str, str]:
    """The trials without a result, with the reason of each, by label."""
    reasons = dict.fromkeys(outcome.unfinished, INTERRUPTED) | outcome.failed
    return {labels[signature]: why for signature, why in reasons.items()}
