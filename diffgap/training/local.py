"""A trial in this very process, without Ray: `diffgap train`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from diffgap.files import new_directory
from diffgap.ledger import Ledger, TrialRecord
from diffgap.spec import Trial
from diffgap.training.checkpoint import Progress
from diffgap.training.trial import run_trial


class LocalHost:
    """Keeps the latest checkpoint in the trial's directory and reports to a callback."""

    rank = 0
    workers = 1

    def __init__(self, record: TrialRecord, on_epoch: Callable[[Progress], None]) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._latest = record.checkpoints / "local"
        self._on_epoch = on_epoch

    def resume(self, load: Callable[[Path], None]) -> None:
        if self._latest.is_dir():
            load(self._latest)

    def epoch(self, progress: Progress, save: Callable[[Path], None]) -> None:
        with new_directory(self._latest) as path:
            save(path)
        self._on_epoch(progress)

    def told_to_stop(self) -> bool:
        return False


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

        run_trial(trial, signature, store_uri, ledger, LocalHost(record, on_epoch))
    shutil.rmtree(record.checkpoints, ignore_errors=True)
