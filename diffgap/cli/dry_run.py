"""Printed plan of a sweep (`--dry-run`): its trials, their states, and what the rest asks for."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from diffgap.ledger.ledger import Ledger
from diffgap.ledger.states import TrialState, state_at_rest
from diffgap.sweep.plan import Plan


def print_plan(plan: Plan, ledger: Ledger | None, console: Console) -> None:
    """Prints a plan; without a ledger, as before the store is built, no trial has started."""
    if plan.trials:
        console.print(_trial_table(plan, ledger))
    training = [planned.training for planned in plan.trials if planned.trial.trains]
    trainings = len(set(training))
    if plan.spec.search:
        console.print(f"A search over {', '.join(plan.spec.search.space)}.")
    elif trainings < len(training):  # some only evaluate weights that another trial trains
        noun = "training" if trainings == 1 else "trainings"
        console.print(f"{trainings} {noun}; the other trials evaluate the same weights.")
    total = plan.spec.search.trials if plan.spec.search else len(plan.trials)
    missing = len(plan.missing(ledger)) if ledger and plan.trials else total
    resources = plan.spec.resources
    console.print(
        f"{missing} of {total} trials to run; each asks for {resources.workers} worker(s) "
        f"x {resources.cpus_per_worker:g} CPU and {resources.gpus_per_worker:g} GPU (CPU only "
        "where there is no GPU). Nothing was started.",
    )


def _trial_table(plan: Plan, ledger: Ledger | None) -> Table:
    table = Table(title=f"Plan of {plan.spec.name}", title_justify="left", title_style="bold")
    for header in ("signature", "trial", "steps", "score", "state"):
        table.add_column(header)
    for planned in plan.trials:
        trial, signature = planned.trial, planned.signature
        table.add_row(
            # Without the store's fingerprint, the signature is not known yet.
            signature if ledger else "-",
            planned.label,
            str(trial.train.steps) if trial.trains else "none",
            trial.effective_score,
            state_at_rest(ledger.trial(signature)) if ledger else TrialState.NOT_STARTED,
        )
    return table
