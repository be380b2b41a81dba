"""Hands Tune its trials, as many at once as the cluster has room for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from diffgap.sweep.worker import JOB

if TYPE_CHECKING:
    from diffgap.sweep.runner import Observer, Stage


class TrialSearcher(Searcher):
    """Hands Tune one trial after another, as many at once as the cluster has room for."""

    def __init__(self, stage: Stage, observer: Observer) -> None:
        super().__init__()
        self.stage, self.observer = stage, observer
        self.running: dict[str, str] = {}
        """Signatures of trials in flight, by Tune's ids."""

    @abstractmethod
    def next_job(self) -> dict[str, Any] | str | None:
        """The next trial's job; None while others must end first; Searcher.FINISHED at the end."""

    def ended(self, signature: str) -> None:
        """Hears that a trial is in flight no more."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if len(self.running) >= self.stage.room.trials():
            return None
        job = self.next_job()
        if not isinstance(job, dict):
            return job
        self.running[trial_id] = job["signature"]
        return {JOB: job}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        if signature := self.running.pop(trial_id, None):
            self.ended(signature)

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles searchers with its state, which is not used again."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""


class Wave(TrialSearcher):
    """Trials that are all known, in their order."""

    def __init__(self, stage: Stage, observer: Observer, jobs: Sequence[dict[str, Any]]) -> None:
        super().__init__(stage, observer)
        self._jobs = iter(jobs)

    def next_job(self) -> dict[str, Any] | str | None:
        return next(self._jobs, str(Searcher.FINISHED))
