"""Strategies of sweeps: a grid of trials, a search, and population-based training.

Each knows its trials, which of them need a result, and how to run them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

from diffgap.ledger.ledger import Ledger
from diffgap.sweep.plan import Plan, PlannedTrial, planned_trial

if TYPE_CHECKING:
    from diffgap.sweep.context import SweepContext
    from diffgap.sweep.population import Population

# Ray, Optuna and NumPy are imported where they are used: a sweep with nothing to run needs none.


class SweepStrategy(ABC):
    """The trials of a sweep, and the way to run them."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.plan, self.ledger = plan, ledger

    @property
    @abstractmethod
    def trials(self) -> list[PlannedTrial]:
        """The trials that exist so far, without `test_trials`."""

    @property
    def test_trials(self) -> list[PlannedTrial]:
        """The trials that evaluate the winners of a search on test; empty before it is over."""
        return []

    @property
    @abstractmethod
    def required(self) -> list[PlannedTrial]:
        """The trials that need a result, of those that exist so far."""

    @property
    def undrawn(self) -> int:
        """How many trials a search has still to draw."""
        return 0

    @property
    @abstractmethod
    def total(self) -> int:
        """How many trials the whole sweep has, without `test_trials`."""

    @abstractmethod
    def run(self, context: SweepContext, changed: Callable[[], None]) -> None:
        """Runs what is missing; calls `changed` whenever trials were added."""

    def forget(self) -> None:
        """Removes all results, so that the sweep starts anew."""
        for planned in [*self.trials, *self.test_trials]:
            self.ledger.trial(planned.signature).forget()

    @property
    def missing(self) -> list[PlannedTrial]:
        """The required trials without a result."""
        return [planned for planned in self.required if not self.finished(planned)]

    def finished(self, planned: PlannedTrial) -> bool:
        return self.ledger.trial(planned.signature).finished

    def _on_test(
        self, point: dict[str, Any], winners: Iterable[PlannedTrial]
    ) -> list[PlannedTrial]:
        """Trials that evaluate a point's winners on test; none where the sweep stays on val."""
        if self.plan.spec.split == "val":
            return []
        trials = []
        for winner in winners:
            trial = winner.trial.model_copy(update={"split": "test"})
            # Of the same training signature: it evaluates the winner's weights.
            trials.append(planned_trial(trial, point, self.plan.fingerprint))
        return trials

    def _run_test_trials(self, context: SweepContext, changed: Callable[[], None]) -> None:
        from diffgap.sweep.tune import run_trials

        changed()
        run_trials(context, [planned for planned in self.test_trials if not self.finished(planned)])


class GridStrategy(SweepStrategy):
    """The product of axes and seeds."""

    @property
    def trials(self) -> list[PlannedTrial]:
        return list(self.plan.trials)

    @property
    def required(self) -> list[PlannedTrial]:
        return self.trials

    @property
    def total(self) -> int:
        return len(self.plan.trials)

    def run(self, context: SweepContext, changed: Callable[[], None]) -> None:
        from diffgap.sweep.tune import run_trials

        run_trials(context, self.missing)


class SearchStrategy(SweepStrategy):
    """A study in each point of the axes; then the winner of each on test."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        super().__init__(plan, ledger)
        self._open_studies()

    def _open_studies(self) -> None:
        from diffgap.sweep.study import Study

        self.studies = [Study(self.plan, self.ledger, point) for point in points_of(self.plan)]

    @property
    def trials(self) -> list[PlannedTrial]:
        return list(chain.from_iterable(study.trials for study in self.studies))

    @property
    def test_trials(self) -> list[PlannedTrial]:
        if not self._is_searched():
            return []
        trials = []
        for study in self.studies:
            best = study.best()
            if best:  # none where all of a study's trials failed
                trials += self._on_test(study.point, best.trials)
        return trials

    @property
    def required(self) -> list[PlannedTrial]:
        searched = chain.from_iterable(study.required for study in self.studies)
        return [*searched, *self.test_trials]

    @property
    def undrawn(self) -> int:
        return len(self.plan.spec.seed_list) * sum(study.remaining for study in self.studies)

    @property
    def total(self) -> int:
        assert self.plan.spec.search
        return self.plan.spec.search.trials * len(self.plan.spec.seed_list) * len(self.studies)

    def run(self, context: SweepContext, changed: Callable[[], None]) -> None:
        from diffgap.sweep.search import run_studies

        if not self._is_searched():
            run_studies(context, self.studies, changed)
        self._run_test_trials(context, changed)

    def _is_searched(self) -> bool:
        return all(study.is_finished for study in self.studies)

    def forget(self) -> None:
        super().forget()
        for study in self.studies:
            study.forget()
        self._open_studies()


class PopulationStrategy(SweepStrategy):
    """A population in each point of the axes; then the best member of each on test."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        from diffgap.sweep.population import Population

        super().__init__(plan, ledger)
        self.populations = [Population(plan, ledger, point) for point in points_of(plan)]

    @property
    def trials(self) -> list[PlannedTrial]:
        return list(chain.from_iterable(population.trials for population in self.populations))

    @property
    def test_trials(self) -> list[PlannedTrial]:
        if not all(population.is_trained for population in self.populations):
            return []
        trials = []
        for population in self.populations:
            best = population.best()
            if best:
                trials += self._on_test(population.point, [best])
        return trials

    @property
    def required(self) -> list[PlannedTrial]:
        return [*self._youngest(), *self.test_trials]

    @property
    def total(self) -> int:
        return len(self._youngest())

    def run(self, context: SweepContext, changed: Callable[[], None]) -> None:
        for population in self.populations:
            while self._train(context, population) and not population.is_last:
                for planned, reason in population.breed():
                    self.ledger.trial(planned.signature).request_stop(reason)
                    context.tracker.kill(planned.signature, reason)
                    context.display.stopped(planned.signature, reason)
                changed()
        self._run_test_trials(context, changed)

    def _train(self, context: SweepContext, population: Population) -> bool:
        """Trains the youngest generation to its end; False where it was interrupted, or lost."""
        from diffgap.sweep.tune import run_wave

        run_wave(context, population.missing(), pause_at=population.pause_at)
        missing = population.missing()
        is_lost = len(missing) == len(population.youngest)  # nobody is left to copy
        return not is_lost and all(planned.signature in context.failures for planned in missing)

    def _youngest(self) -> list[PlannedTrial]:
        return list(chain.from_iterable(population.youngest for population in self.populations))

    def forget(self) -> None:
        super().forget()
        for population in self.populations:
            population.forget()


def make_strategy(plan: Plan, ledger: Ledger) -> SweepStrategy:
    """The strategy that a sweep's spec asks for."""
    if not plan.spec.search:
        return GridStrategy(plan, ledger)
    if plan.spec.scheduler and plan.spec.scheduler.kind == "pbt":
        return PopulationStrategy(plan, ledger)
    return SearchStrategy(plan, ledger)


def points_of(plan: Plan) -> list[dict[str, Any]]:
    """The points of a sweep's axes that differ in what they train."""
    points: dict[str, dict[str, Any]] = {}
    first_seed = plan.spec.seed_list[0]
    for values, trial in plan.spec.points():
        if trial.seed == first_seed:
            # An axis that a trial has no use for leaves its signature as it is.
            signature = planned_trial(trial, values, plan.fingerprint).signature
            points.setdefault(signature, values)
    return list(points.values())
