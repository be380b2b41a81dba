"""Ray Tune's side of a search: trials come from the studies, and results go back to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def wants(self, planned: PlannedTrial) -> bool:
        # The same search in another sweep shares the rungs, and the verdicts there.
        return not any(study.halving.is_stopped(planned.signature) for study in self._studies)


class StudySearcher(PackSearcher):
    """The trials that studies suggest."""

    def __init__(
        self, context: SweepContext, studies: Sequence[Study], changed: Callable[[], None]
    ) -> None:
        super().__init__(StudyObserver(context, studies))
        self._studies, self._changed = studies, changed
        self._study_of: dict[str, Study] = {}

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
        is_idle = not (self.in_flight or self.observer.shared)
        return is_idle or all(study.is_finished for study in self._studies)

    def next_pack(self) -> PackJob | None:
        ours, over = self.observer.claim_shared()
        for planned in over:
            self.on_trial_end(planned.signature)
        jobs = list(map(self._job, ours))
        if not jobs:
            jobs = list(islice(iter(self._next_job, None), self.largest_pack))
        return pack_job(self.context, jobs) if jobs else None

    def _next_job(self) -> TrialJob | None:
        """The next suggestion that no other sweep runs."""
        for study in self._studies:
            while self._has_room and (planned := study.next()):
                self._study_of[planned.signature] = study
                is_claimed = self.observer.register(planned)
                self._changed()
                if is_claimed:
                    return self._job(planned)
        return None

    @property
    def _has_room(self) -> bool:
        # What another sweep runs counts as running: its result is to be known as early as ours.
        return len(self.in_flight) + len(self.observer.shared) < self.context.capacity.trials()

    def _job(self, planned: PlannedTrial) -> TrialJob:
        study = self._study_of[planned.signature]
        return TrialJob(planned.signature, planned.trial, study.identity, study.rungs(planned))

    def on_trial_end(self, signature: str) -> None:
        for study in self._studies:
            study.finish(signature)
