"""Runs a search: a study in each point of the axes, then the winner of each on test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """Runs what is left of some studies, as many trials at once as fit.

    Args:
        stage: what they are run with.
        studies: whose trials are missing.
        changed: called whenever there is one more.
    """
    searcher = StudySearcher(context, studies, changed)
    seeds = len(context.plan.spec.seed_list)
    most = seeds * sum(len(study.open) + study.left for study in studies)
    run_searcher(searcher, most)


class _Listener(Observer):
    """Passes every validation on to the studies too."""

    def __init__(self, context: SweepContext, studies: Sequence[Study]) -> None:
        super().__init__(context)
        self._studies = studies

    def on_report(self, planned: PlannedTrial, points: Sequence[dict[str, Any]]) -> None:
        for study in self._studies:
            study.report(planned.signature, points)


class StudySearcher(PackSearcher):
    """Tune's side of the studies: asks them for trials, tells them how these ended.

    A pack is one trial, so that each is drawn knowing how the others ended, unless `resources.pack`
    asks for more at once.
    """

    def __init__(
        self, context: SweepContext, studies: Sequence[Study], changed: Callable[[], None]
    ) -> None:
        super().__init__(context, _Listener(context, studies))
        self._studies, self._changed = studies, changed

    @property
    def remaining(self) -> int:
        return sum(study.left for study in self._studies)

    @property
    def largest_pack(self) -> int:
        trials = self.context.plan.spec.resources.pack
        return trials if isinstance(trials, int) else 1

    @property
    def is_exhausted(self) -> bool:
        unfinished = any(study.open or study.left for study in self._studies)
        return not (unfinished and self.in_flight)

    def next_pack(self) -> PackJob | None:
        jobs: list[TrialJob] = []
        while len(jobs) < self.largest_pack and (job := self._next_trial()):
            jobs.append(job)
        return pack_job(self.context, jobs) if jobs else None

    def _next_trial(self) -> TrialJob | None:
        for study in self._studies:
            if planned := study.next():
                is_claimed = self.observer.register(planned)
                self._changed()
                return TrialJob(
                    planned.signature,
                    planned.trial,
                    study.identity,
                    study.rungs(planned),
                    is_claimed_elsewhere=not is_claimed,
                )
        return None

    def on_trial_end(self, signature: str) -> None:
        for study in self._studies:
            study.finish(signature)
