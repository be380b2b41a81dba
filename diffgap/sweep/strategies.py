"""Strategies of sweeps: a grid of trials, a search, and population-based training.

Each knows its trials, which of them need a result, and how to run them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import chain, filterfalse
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from diffgap.ledger.ledger import Ledger
from diffgap.sweep.plan import Plan, PlannedTrial, planned_trial

if TYPE_CHECKING:
    from diffgap.sweep.context import SweepContext
    from diffgap.sweep.population import Population
    from diffgap.sweep.study import Study

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
        return list(filterfalse(self.finished, self.required))

    def finished(self, planned: PlannedTrial) -> bool:
        return self.ledger.trial(planned.signature).finished


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


S = TypeVar("S", "Study", "Population")


class PointwiseStrategy(SweepStrategy, Generic[S]):
    """A search in each point of the axes; then the winner of each on test."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        super().__init__(plan, ledger)
        self.searches: list[S] = list(map(self._open, points_of(plan)))

    @abstractmethod
    def _open(self, point: dict[str, Any]) -> S:
        """The search in one point, with what it has done before."""

    @property
    def trials(self) -> list[PlannedTrial]:
        return list(chain.from_iterable(search.trials for search in self.searches))

    @property
    def test_trials(self) -> list[PlannedTrial]:
        if self.plan.spec.split == "val" or not self._is_searched():
            return []
        trials = []
        for search in self.searches:
            for winner in search.winners():
                # Of the same training signature: it evaluates the winner's weights.
                trial = winner.trial.model_copy(update={"split": "test"})
                trials.append(planned_trial(trial, search.point, self.plan.fingerprint))
        return trials

    @property
    def required(self) -> list[PlannedTrial]:
        trials = list(chain.from_iterable(search.required for search in self.searches))
        return trials + self.test_trials

    def forget(self) -> None:
        super().forget()
        for search in self.searches:
            search.forget()
        self.searches = list(map(self._open, points_of(self.plan)))

    def _is_searched(self) -> bool:
        return all(search.is_finished for search in self.searches)

    def _run_test_trials(self, context: SweepContext, changed: Callable[[], None]) -> None:
        from diffgap.sweep.tune import run_trials

        changed()
        run_trials(context, list(filterfalse(self.finished, self.test_trials)))


class SearchStrategy(PointwiseStrategy["Study"]):
    """A study in each point of the axes."""

    def _open(self, point: dict[str, Any]) -> Study:
        from diffgap.sweep.study import Study

        return Study(self.plan, self.ledger, point)

    @property
    def undrawn(self) -> int:
        return len(self.plan.spec.seed_list) * sum(study.remaining for study in self.searches)

    @property
    def total(self) -> int:
        assert self.plan.spec.search
        return self.plan.spec.search.trials * len(self.plan.spec.seed_list) * len(self.searches)

    def run(self, context: SweepContext, changed: Callable[[], None]) -> None:
        from diffgap.sweep.search import run_studies

        if not self._is_searched():
            run_studies(context, self.searches, changed)
        self._run_test_trials(context, changed)


class PopulationStrategy(PointwiseStrategy["Population"]):
    """A population in each point of the axes."""

    def _open(self, point: dict[str, Any]) -> Population:
        from diffgap.sweep.population import Population

        return Population(self.plan, self.ledger, point)

    @property
    def total(self) -> int:
        return sum(len(population.required) for population in self.searches)

    def run(self, context: SweepContext, changed: Callable[[], None]) -> None:
        for population in self.searches:
            while self._train(context, population) and not population.is_last:
                for planned, reason in population.breed():
                    record = self.ledger.trial(planned.signature)
                    if context.lock.claim(record):  # another sweep may want it and train it on
                        record.request_stop(reason)
                        context.lock.release(record)
                    context.tracker.kill(planned.signature, reason)
                    context.display.stopped(planned.signature, reason)
                changed()
        self._run_test_trials(context, changed)

    def _train(self, context: SweepContext, population: Population) -> bool:
        """Trains the youngest generation to its end; False where it was interrupted, or lost."""
        from diffgap.sweep.tune import run_wave

        run_wave(context, population.missing(), pause_at=population.pause_at)
        missing = population.missing()
        is_lost = len(missing) == len(population.required)  # nobody is left to copy
        return not is_lost and all(planned.signature in context.failures for planned in missing)


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
