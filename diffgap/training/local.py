"""A trial in this very process, without Ray: `diffgap train`."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from diffgap.io.paths import remove
from diffgap.ledger.ledger import Ledger, TrialRecord
from diffgap.spec import Trial
from diffgap.training.checkpoint import Progress
from diffgap.training.context import TrialContext, local_device
from diffgap.training.trial import run_trial


class LocalTrialContext(TrialContext):
    """A trial's one worker, in the process that shows it."""

    def __init__(self, record: TrialRecord, on_epoch: Callable[[Progress], None]) -> None:
        super().__init__(record, local_device())
        self._on_epoch = on_epoch

    def report(self, progress: Progress) -> None:
        self._on_epoch(progress)


def train_here(
    trial: Trial, signature: str, store_uri: str, ledger: Ledger, console: Console
) -> None:
    """Runs a trial in this process, from its checkpoint if it has one, with a progress bar."""
    record = ledger.trial(signature)
    if record.finished:
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("Training", total=trial.train.steps)

        def on_epoch(progress: Progress) -> None:
            bar.update(task, completed=progress.step)

        run_trial(trial, signature, store_uri, ledger, LocalTrialContext(record, on_epoch))
    remove(record.checkpoints)
