"""Printed plan of a sweep (`--dry-run`): its trials, their states, and what the rest asks for."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from diffgap.ledger.ledger import Ledger
from diffgap.ledger.states import TrialState, state_at_rest
from diffgap.sweep.plan import Plan


def print_plan(plan: Plan, ledger: Ledger | None, console: Console) -> int:
    """Prints a plan, and returns how many trials are to run.

    Without a ledger, as before the store is built, no trial has started.
    """
    search, resources = plan.spec.search, plan.spec.resources
    if search:
        console.print(f"A search over {', '.join(search.space)}.")
        to_run, total = search.trials, search.trials
    else:
        to_run, total = _print_trials(plan, ledger, console), len(plan.trials)
    console.print(
        f"{to_run} of {total} trials to run; each asks for {resources.workers} worker(s) "
        f"x {resources.cpus_per_worker:g} CPU and {resources.gpus_per_worker:g} GPU (CPU only "
        "where there is no GPU). Nothing was started.",
    )
    return to_run


def _print_trials(plan: Plan, ledger: Ledger | None, console: Console) -> int:
    """Prints the trials of a plan; returns how many of them are not finished."""
    table = Table(title=f"Plan of {plan.spec.name}", title_justify="left", title_style="bold")
    for header in ("signature", "trial", "steps", "score", "state"):
        table.add_column(header)
    to_run = 0
    for planned in plan.trials:
        trial, state = planned.trial, TrialState.NOT_STARTED
        if ledger:
            state = state_at_rest(ledger.trial(planned.signature))
        to_run += state != TrialState.FINISHED
        # Without the store's fingerprint, the signature is not known yet.
        signature = planned.signature if ledger else "-"
        steps = str(trial.train.steps) if trial.trains else "none"
        table.add_row(signature, planned.label, steps, trial.effective_score, state)
    console.print(table)
    training = [planned.training for planned in plan.trials if planned.trial.trains]
    trainings = len(set(training))
    if trainings < len(training):  # some only evaluate weights that another trial trains
        noun = "training" if trainings == 1 else "trainings"
        console.print(f"{trainings} {noun}; the other trials evaluate the same weights.")
    return to_run
