"""`diffgap sweep`: from a plan to finished trials, doing only what is missing."""

from __future__ import annotations

from rich.console import Console

from diffgap.ledger import Ledger
from diffgap.sweep.plan import Plan

INTERRUPTED = "interrupted; the same command continues it"


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
    """
    if fresh:
        for planned in plan.trials:
            ledger.trial(planned.signature).forget()
    ledger.record_sweep(plan.record())
    missing = plan.missing(ledger)
    untold = [
        planned
        for planned in plan.trials
        if planned not in missing and not ledger.trial(planned.signature).run_id(plan.spec.name)
    ]
    if not missing and not untold:
        return {}
    from diffgap.sweep.runner import Outcome, finish_run, open_tracker, run_missing

    tracker = open_tracker(plan, ledger, fresh)
    for planned in untold:
        finish_run(ledger, tracker, planned)
    outcome = Outcome()
    if missing:
        from diffgap.sweep.cluster import cluster, place
        from diffgap.sweep.display import SweepDisplay

        console.print("Starting Ray ...", style="dim")
        with cluster(address):
            placement = place(plan.spec.resources)
            if plan.spec.resources.gpus_per_worker and not placement.gpus:
                console.print("No GPU in this cluster: trials run on CPUs.", style="yellow")
            console.print(f"{len(missing)} of {len(plan.trials)} trials to run, {placement}.")
            with SweepDisplay(console, missing, len(plan.trials) - len(missing)) as display:
                outcome = run_missing(plan, ledger, tracker, placement, display)
    tracker.close(outcome.status)
    labels = {planned.signature: planned.label for planned in plan.trials}
    reasons = dict.fromkeys(outcome.unfinished, INTERRUPTED)
    return {labels[signature]: why for signature, why in {**reasons, **outcome.failed}.items()}
