"""The kinds of sweeps: trials that are all known, a search, and population-based training.

Each knows its trials, which of them should have a result, and how to come to them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from diffgap.ledger.ledger import Ledger
from diffgap.sweep.plan import Plan, PlannedTrial, label, planned_trial

if TYPE_CHECKING:
    from diffgap.sweep.context import SweepContext


class SweepStrategy(ABC):
    """What is to be done for a sweep, and what is done of it."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.plan, self.ledger = plan, ledger

    @property
    @abstractmethod
    def trials(self) -> list[PlannedTrial]:
        """The trials that are known so far, but for `test_trials`."""

    @property
    def test_trials(self) -> list[PlannedTrial]:
        """What scores the winners of a search on test, once they are known."""
        return []

    @property
    @abstractmethod
    def required(self) -> list[PlannedTrial]:
        """The trials that should have a result in the end, as far as they are known."""

    @property
    def new(self) -> int:
        """Trials beyond those, which are not known yet."""
        return 0

    @property
    @abstractmethod
    def total(self) -> int:
        """Trials of the whole sweep, but for `test_trials`."""

    @abstractmethod
    def run(self, context: SweepContext, changed: Callable[[], None]) -> None:
        """Runs what is missing; calls `changed` whenever more trials are known."""

    def forget(self) -> None:
        """Drops all results, so that the sweep begins anew."""
        for planned in [*self.trials, *self.test_trials]:
            self.ledger.trial(planned.signature).forget()

    @property
    def missing(self) -> list[PlannedTrial]:
        """The wanted trials without a result."""
        return [planned for planned in self.required if not self.finished(planned)]

    def finished(self, planned: PlannedTrial) -> bool:
        return self.ledger.trial(planned.signature).finished

    def _test_trials(
        self, winners: Iterable[tuple[dict[str, Any], PlannedTrial]]
    ) -> list[PlannedTrial]:
        """Winners with their points, scored on test; nothing where the sweep stays on val."""
        if self.plan.spec.split == "val":
            return []
        return [_on_test(p, point, self.plan.fingerprint) for point, p in winners]

    def _run_test_trials(self, context: SweepContext, changed: Callable[[], None]) -> None:
        from diffgap.sweep.tune import run_trials

        changed()
        run_trials(context, [planned for planned in self.test_trials if not self.finished(planned)])


class GridStrategy(SweepStrategy):
    """Axes and seeds, crossed."""

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
    """A study in each point of the axes; then its winner on test."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        super().__init__(plan, ledger)
        self._open()

    def _open(self) -> None:
        from diffgap.sweep.study import Study

        self.studies = [Study(self.plan, self.ledger, point) for point in points_of(self.plan)]

    @property
    def trials(self) -> list[PlannedTrial]:
        return [planned for study in self.studies for planned in study.trials]

    @property
    def test_trials(self) -> list[PlannedTrial]:
        if not all(study.over for study in self.studies):
            return []
        found = [(study.point, study.best()) for study in self.studies]
        return self._test_trials((point, p) for point, best in found if best for p in best.seeds)

    @property
    def required(self) -> list[PlannedTrial]:
        going_on = [p for s in self.studies for o in s.open.values() for p in s.begun(o)]
        running = {planned.signature for planned in going_on}
        begun = [p for p in self.trials if self.finished(p) or p.signature in running]
        return [*begun, *self.test_trials]

    @property
    def new(self) -> int:
        return len(self.plan.spec.seed_list) * sum(study.left for study in self.studies)

    @property
    def total(self) -> int:
        assert self.plan.spec.search
        each = self.plan.spec.search.trials * len(self.plan.spec.seed_list)
        return each * len(self.studies)

    def run(self, context: SweepContext, changed: Callable[[], None]) -> None:
        from diffgap.sweep.search import run_studies

        if not all(study.over for study in self.studies):
            run_studies(context, self.studies, changed)
        self._run_test_trials(context, changed)

    def forget(self) -> None:
        super().forget()
        for study in self.studies:
            study.forget()
        self._open()


class PopulationStrategy(SweepStrategy):
    """A population in each point of the axes; then its best member on test."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        from diffgap.sweep.population import Population

        super().__init__(plan, ledger)
        self.populations = [Population(plan, ledger, point) for point in points_of(plan)]

    @property
    def trials(self) -> list[PlannedTrial]:
        return [planned for population in self.populations for planned in population.trials]

    @property
    def test_trials(self) -> list[PlannedTrial]:
        if not all(p.is_last and all(map(self.finished, p.youngest)) for p in self.populations):
            return []
        found = [(p.point, p.best()) for p in self.populations]
        return self._test_trials((point, best) for point, best in found if best)

    @property
    def required(self) -> list[PlannedTrial]:
        return [
            *(p for population in self.populations for p in population.youngest),
            *self.test_trials,
        ]

    @property
    def total(self) -> int:
        return sum(len(population.youngest) for population in self.populations)

    def run(self, context: SweepContext, changed: Callable[[], None]) -> None:
        for population in self.populations:
            while self._train(context, population) and not population.is_last:
                for planned, why in population.breed():
                    self.ledger.trial(planned.signature).request_stop(why)
                    context.tracker.kill(planned.signature, why)
                    context.display.stopped(planned.signature, why)
                changed()
        self._run_test_trials(context, changed)

    def _train(self, context: SweepContext, population: Any) -> bool:
        """Trains the youngest generation to its end; False where that was interrupted."""
        from diffgap.sweep.tune import run_wave

        run_wave(context, population.missing(), pause_at=population.until)
        return all(planned.signature in context.failures for planned in population.missing())

    def forget(self) -> None:
        super().forget()
        for population in self.populations:
            population.forget()


def make_strategy(plan: Plan, ledger: Ledger) -> SweepStrategy:
    """What a plan asks for."""
    if not plan.spec.search:
        return GridStrategy(plan, ledger)
    scheduler = plan.spec.scheduler
    return (PopulationStrategy if scheduler and scheduler.kind == "pbt" else SearchStrategy)(
        plan, ledger
    )


def points_of(plan: Plan) -> list[dict[str, Any]]:
    """The points of a sweep's axes that differ in what they train."""
    found: dict[str, dict[str, Any]] = {}
    first = plan.spec.seed_list[0]
    for values, trial in plan.spec.points():
        if trial.seed == first:
            found.setdefault(planned_trial(trial, "", plan.fingerprint).signature, values)
    return list(found.values())


def _on_test(planned: PlannedTrial, point: dict[str, Any], fingerprint: str) -> PlannedTrial:
    """A trial of a search, scored on test: it shares the training."""
    tested = planned.trial.model_copy(update={"split": "test"})
    return planned_trial(tested, label(point, tested), fingerprint)
