"""Runs a search: a study in each point of the axes, then the winner of each on test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from diffgap.sweep.observer import Observer
from diffgap.sweep.plan import PlannedTrial
from diffgap.sweep.searchers import PackSearcher, pack_of
from diffgap.sweep.study import Study
from diffgap.sweep.tune import SweepContext, TrialOptions, run_searcher


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
    def left(self) -> int:
        return sum(study.left for study in self._studies)

    @property
    def largest(self) -> int:
        asked = self.context.plan.spec.resources.pack
        return asked if isinstance(asked, int) else 1

    def next_pack(self) -> dict[str, Any] | str | None:
        members: list[tuple[PlannedTrial, TrialOptions]] = []
        while len(members) < self.largest and (drawn := self._draw()):
            members.append(drawn)
        if members:
            return pack_of(self.context, members)
        waiting = any(study.open or study.left for study in self._studies) and self.running
        return None if waiting else str(Searcher.FINISHED)

    def _draw(self) -> tuple[PlannedTrial, TrialOptions] | None:
        for study in self._studies:
            if planned := study.next():
                ours = self.observer.expect(planned)
                self._changed()
                return planned, TrialOptions(study.identity, study.rungs(planned), taken=not ours)
        return None

    def ended(self, signature: str) -> None:
        for study in self._studies:
            study.finish(signature)
