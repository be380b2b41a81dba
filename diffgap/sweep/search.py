"""Ray Tune's side of a search: trials come from the studies, and results go back to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from diffgap.sweep.context import SweepContext
from diffgap.sweep.messages import PackJob, TrialJob
from diffgap.sweep.observer import Observer
from diffgap.sweep.plan import PlannedTrial
from diffgap.sweep.searchers import PackSearcher, pack_job
from diffgap.sweep.study import Study
from diffgap.sweep.tune import run_searcher


def run_studies(
    context: SweepContext, studies: Sequence[Study], changed: Callable[[], None]
) -> None:
    """Runs what studies still need; calls `changed` whenever a trial was added."""
    searcher = StudySearcher(context, studies, changed)
    suggestions = sum(len(study.open) + study.remaining for study in studies)
    run_searcher(searcher, len(context.plan.spec.seed_list) * suggestions)


class StudyObserver(Observer):
    """An observer that passes validations on to the studies."""

    def __init__(self, context: SweepContext, studies: Sequence[Study]) -> None:
        super().__init__(context)
        self._studies = studies

    def on_report(self, planned: PlannedTrial, points: Sequence[dict[str, Any]]) -> None:
        for study in self._studies:
            study.report(planned.signature, points)


class StudySearcher(PackSearcher):
    """The trials that studies suggest."""

    def __init__(
        self, context: SweepContext, studies: Sequence[Study], changed: Callable[[], None]
    ) -> None:
        super().__init__(StudyObserver(context, studies))
        self._studies, self._changed = studies, changed

    @property
    def remaining(self) -> int:
        return sum(study.remaining for study in self._studies)

    @property
    def largest_pack(self) -> int:
        trials = self.context.plan.spec.resources.pack
        # By default one, so that each is suggested knowing the results of the others.
        return trials if isinstance(trials, int) else 1

    @property
    def is_exhausted(self) -> bool:
        # With nothing in flight, no result will come that could lead to another trial.
        return not self.in_flight or all(study.is_finished for study in self._studies)

    def next_pack(self) -> PackJob | None:
        jobs = list(islice(iter(self._next_trial, None), self.largest_pack))
        return pack_job(self.context, jobs) if jobs else None

    def _next_trial(self) -> TrialJob | None:
        for study in self._studies:
            planned = study.next()
            if planned is None:
                continue
            is_claimed = self.observer.register(planned)
            self._changed()
            job = TrialJob(planned.signature, planned.trial, study.identity, study.rungs(planned))
            return replace(job, is_claimed_elsewhere=not is_claimed)
        return None

    def on_trial_end(self, signature: str) -> None:
        for study in self._studies:
            study.finish(signature)
