"""What `--dry-run` prints: the trials, which are done, and what the rest will ask for."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from diffgap.ledger.ledger import Ledger
from diffgap.sweep.plan import Plan


def print_plan(plan: Plan, ledger: Ledger | None, console: Console) -> None:
    """Prints a plan; without a ledger (the store is not built yet) nothing can be done before."""
    table = Table(title=f"Plan of {plan.spec.name}", title_justify="left", title_style="bold")
    for header in ("signature", "trial", "steps", "score", "state"):
        table.add_column(header)
    for planned in plan.trials:
        trial = planned.trial
        table.add_row(
            planned.signature if ledger else "-",
            planned.label,
            str(trial.train.steps) if trial.trains else "none",
            trial.effective_score,
            _state(ledger, planned.signature),
        )
    if plan.trials:
        console.print(table)
    resources = plan.spec.resources
    total = plan.spec.search.trials if plan.spec.search else len(plan.trials)
    left = len(plan.missing(ledger)) if ledger and plan.trials else total
    trainings = len({t.training for t in plan.trials if t.trial.trains})
    if plan.spec.search:
        console.print(f"A search over {', '.join(plan.spec.search.space)}.")
    elif trainings < sum(t.trial.trains for t in plan.trials):
        what = "training" if trainings == 1 else "trainings"
        console.print(f"{trainings} {what}; the other trials score what comes of it.")
    console.print(
        f"{left} of {total} trials to run; each asks for {resources.workers} worker(s) "
        f"x {resources.cpus_per_worker:g} CPU and {resources.gpus_per_worker:g} GPU (CPU alone "
        "where there is no GPU). Nothing was started.",
    )


def _state(ledger: Ledger | None, signature: str) -> str:
    if ledger is None:
        return "to do"
    record = ledger.trial(signature)
    if record.finished:
        return "done"
    return "to resume" if record.started else "to do"
