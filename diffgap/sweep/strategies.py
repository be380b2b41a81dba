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
    from diffgap.sweep.tune import Stage


class Kind(ABC):
    """What is to be done for a sweep, and what is done of it."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.plan, self.ledger = plan, ledger

    @property
    @abstractmethod
    def trials(self) -> list[PlannedTrial]:
        """The trials that are known so far, but for `finals`."""

    @property
    def finals(self) -> list[PlannedTrial]:
        """What scores the winners of a search on test, once they are known."""
        return []

    @property
    @abstractmethod
    def wanted(self) -> list[PlannedTrial]:
        """The trials that should have a result in the end, as far as they are known."""

    @property
    def new(self) -> int:
        """Trials beyond those, which are not known yet."""
        return 0

    @property
    @abstractmethod
    def total(self) -> int:
        """Trials of the whole sweep, but for `finals`."""

    @abstractmethod
    def go(self, stage: Stage, changed: Callable[[], None]) -> None:
        """Runs what is missing; calls `changed` whenever more trials are known."""

    def forget(self) -> None:
        """Drops all results, so that the sweep begins anew."""
        for planned in [*self.trials, *self.finals]:
            self.ledger.trial(planned.signature).forget()

    @property
    def missing(self) -> list[PlannedTrial]:
        """The wanted trials without a result."""
        return [planned for planned in self.wanted if not self.finished(planned)]

    def finished(self, planned: PlannedTrial) -> bool:
        return self.ledger.trial(planned.signature).finished

    def _finals(self, winners: Iterable[tuple[dict[str, Any], PlannedTrial]]) -> list[PlannedTrial]:
        """Winners with their points, scored on test; nothing where the sweep stays on val."""
        if self.plan.spec.split == "val":
            return []
        return [_on_test(p, point, self.plan.fingerprint) for point, p in winners]

    def _run_finals(self, stage: Stage, changed: Callable[[], None]) -> None:
        from diffgap.sweep.tune import run_trials

        changed()
        run_trials(stage, [planned for planned in self.finals if not self.finished(planned)])


class Fixed(Kind):
    """Axes and seeds, crossed."""

    @property
    def trials(self) -> list[PlannedTrial]:
        return list(self.plan.trials)

    @property
    def wanted(self) -> list[PlannedTrial]:
        return self.trials

    @property
    def total(self) -> int:
        return len(self.plan.trials)

    def go(self, stage: Stage, changed: Callable[[], None]) -> None:
        from diffgap.sweep.tune import run_trials

        run_trials(stage, self.missing)


class Searching(Kind):
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
    def finals(self) -> list[PlannedTrial]:
        if not all(study.over for study in self.studies):
            return []
        found = [(study.point, study.best()) for study in self.studies]
        return self._finals((point, p) for point, best in found if best for p in best.seeds)

    @property
    def wanted(self) -> list[PlannedTrial]:
        going_on = [p for s in self.studies for o in s.open.values() for p in s.begun(o)]
        running = {planned.signature for planned in going_on}
        begun = [p for p in self.trials if self.finished(p) or p.signature in running]
        return [*begun, *self.finals]

    @property
    def new(self) -> int:
        return len(self.plan.spec.seed_list) * sum(study.left for study in self.studies)

    @property
    def total(self) -> int:
        assert self.plan.spec.search
        each = self.plan.spec.search.trials * len(self.plan.spec.seed_list)
        return each * len(self.studies)

    def go(self, stage: Stage, changed: Callable[[], None]) -> None:
        from diffgap.sweep.search import run_studies

        if not all(study.over for study in self.studies):
            run_studies(stage, self.studies, changed)
        self._run_finals(stage, changed)

    def forget(self) -> None:
        super().forget()
        for study in self.studies:
            study.forget()
        self._open()


class Breeding(Kind):
    """A population in each point of the axes; then its best member on test."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        from diffgap.sweep.population import Population

        super().__init__(plan, ledger)
        self.populations = [Population(plan, ledger, point) for point in points_of(plan)]

    @property
    def trials(self) -> list[PlannedTrial]:
        return [planned for population in self.populations for planned in population.trials]

    @property
    def finals(self) -> list[PlannedTrial]:
        if not all(p.is_last and all(map(self.finished, p.youngest)) for p in self.populations):
            return []
        found = [(p.point, p.best()) for p in self.populations]
        return self._finals((point, best) for point, best in found if best)

    @property
    def wanted(self) -> list[PlannedTrial]:
        return [*(p for population in self.populations for p in population.youngest), *self.finals]

    @property
    def total(self) -> int:
        return sum(len(population.youngest) for population in self.populations)

    def go(self, stage: Stage, changed: Callable[[], None]) -> None:
        for population in self.populations:
            while self._train(stage, population) and not population.is_last:
                for planned, why in population.breed():
                    self.ledger.trial(planned.signature).tell_to_stop(why)
                    stage.telling.kill(planned.signature, why)
                    stage.show.stopped(planned.signature, why)
                changed()
        self._run_finals(stage, changed)

    def _train(self, stage: Stage, population: Any) -> bool:
        """Trains the youngest generation to its end; False where that was interrupted."""
        from diffgap.sweep.tune import Extra, run_wave

        run_wave(stage, population.missing(), Extra(until=population.until))
        return all(planned.signature in stage.failed for planned in population.missing())

    def forget(self) -> None:
        super().forget()
        for population in self.populations:
            population.forget()


def kind_of(plan: Plan, ledger: Ledger) -> Kind:
    """What a plan asks for."""
    if not plan.spec.search:
        return Fixed(plan, ledger)
    scheduler = plan.spec.scheduler
    return (Breeding if scheduler and scheduler.kind == "pbt" else Searching)(plan, ledger)


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
