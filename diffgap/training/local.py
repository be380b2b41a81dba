"""A trial in this process, without Ray: `diffgap train`."""

from __future__ import annotations

from collections.abc import Callable

from diffgap.io.paths import remove
from diffgap.ledger.ledger import Ledger, TrialRecord
from diffgap.spec import Trial
from diffgap.training.checkpoint import Progress
from diffgap.training.context import TrialContext, local_device
from diffgap.training.trial import run_trial


class LocalTrialContext(TrialContext):
    """The only worker of a trial; passes each epoch's progress to a function."""

    def __init__(self, record: TrialRecord, on_epoch: Callable[[Progress], None]) -> None:
        super().__init__(record, local_device())
        self._on_epoch = on_epoch

    def report(self, progress: Progress) -> None:
        self._on_epoch(progress)


def train_here(
    trial: Trial,
    signature: str,
    store_uri: str,
    ledger: Ledger,
    advance: Callable[[int, int], None] = lambda step, steps: None,
) -> None:
    """Runs or resumes an unfinished trial here; calls `advance(step, steps)` every epoch."""
    record, steps = ledger.trial(signature), trial.train.steps
    if record.finished:
        return
    advance(0, steps)
    context = LocalTrialContext(record, lambda progress: advance(progress.step, steps))
    run_trial(trial, signature, store_uri, ledger, context)
    remove(record.checkpoints)
