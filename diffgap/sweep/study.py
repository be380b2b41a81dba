"""Study of one search: which trial to run next, given the results of the last ones on val.

Optuna keeps suggestions and values in a journal in the sweep's output. What is suggested next
depends on the seed and the suggestions so far alone, so that a killed search continues unchanged.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from statistics import mean
from typing import Any

from diffgap.compat.optuna_trial import reopen_trial
from diffgap.errors import require
from diffgap.ledger.ledger import Ledger
from diffgap.spec import flatten
from diffgap.spec.label import rounded
from diffgap.sweep.halving import SuccessiveHalving
from diffgap.sweep.objective import final_objective, objective
from diffgap.sweep.optuna_storage import backend, make_sampler, read_problem, study_identity
from diffgap.sweep.plan import Plan, PlannedTrial, planned_trial

SEED_STRIDE = 1_000_003  # between the sampler's seeds of one suggestion and the next

MAX_DUPLICATES = 100
"""Suggestions of earlier trials in a row, after which a space counts as exhausted."""


@dataclass
class Suggestion:
    """Values that a study has suggested, as one trial for each seed."""

    trials: tuple[PlannedTrial, ...]
    optuna_trial: Any  # Optuna's side of it; None once that knows the outcome
    queued: set[str] = field(default_factory=set)  # signatures; a seed is queued once

    @property
    def first(self) -> PlannedTrial:
        """The trial that runs before the other seeds: only if it finishes, they run too."""
        return self.trials[0]


class Study:
    """The study of one point of a sweep's axes."""

    def __init__(self, plan: Plan, ledger: Ledger, point: Mapping[str, Any] | None = None) -> None:
        assert plan.spec.search, "a study needs a search block"
        self.plan, self.ledger, self.search = plan, ledger, plan.spec.search
        self.point = dict(point or {})
        self.optuna = require("optuna", "search", "a search")
        self.optuna.logging.set_verbosity(self.optuna.logging.ERROR)
        self._states = self.optuna.trial.TrialState
        self.identity = study_identity(plan, self.point)
        self.halving = SuccessiveHalving(plan.spec.scheduler, ledger, self.identity)
        self.suggestions: list[Suggestion] = []
        # Those whose outcome Optuna does not know yet, by their first trial's signature.
        self.open: dict[str, Suggestion] = {}
        self._suggestion_of: dict[str, Suggestion] = {}
        self._queue: deque[PlannedTrial] = deque()
        self._is_exhausted = False
        self._load()

    def next(self) -> PlannedTrial | None:
        """The next trial to run; None where there is none, for now or for good (`is_finished`)."""
        if not self._queue:
            self._suggest()
        return self._queue.popleft() if self._queue else None

    @property
    def remaining(self) -> int:
        """How many suggestions the search may still make."""
        if self._is_exhausted:
            return 0
        space_size = math.prod(dimension.size for dimension in self.search.space.values())
        return max(0, int(min(self.search.trials, space_size)) - len(self.suggestions))

    @property
    def is_finished(self) -> bool:
        """Whether every suggestion has its outcome, and none remains to be made."""
        return not (self.open or self.remaining)

    @property
    def trials(self) -> list[PlannedTrial]:
        """Every trial that was queued so far, in the order of the suggestions."""
        return list(chain.from_iterable(map(self._active_trials, self.suggestions)))

    @property
    def required(self) -> list[PlannedTrial]:
        """Trials that have a result, or are to get one: not those that failed or were stopped."""
        trials: list[PlannedTrial] = []
        for suggestion in self.suggestions:
            for planned in self._active_trials(suggestion):
                if suggestion.optuna_trial or self._is_done(planned):
                    trials.append(planned)
        return trials

    def rungs(self, planned: PlannedTrial) -> tuple[int, ...]:
        """The steps at which a trial waits for a verdict: none for a suggestion's later seeds."""
        is_first = self._suggestion_of[planned.signature].first.signature == planned.signature
        return self.halving.rungs(planned) if is_first else ()

    def report(self, signature: str, points: Iterable[Mapping[str, Any]]) -> None:
        """Takes a trial's points, and decides at its rungs whether it continues."""
        suggestion = self._suggestion_of.get(signature)
        if suggestion is None or suggestion.first.signature != signature:
            return
        rungs = self.rungs(suggestion.first)
        for point in points:
            step, value = point["step"], objective(point["metrics"], self.search.metric)
            if step not in rungs or value is None:  # no validation
                continue
            if not self.halving.is_decided(signature, step):  # a resumed trial reports it again
                self._decide(suggestion, step, value)

    def finish(self, signature: str) -> None:
        """Takes note that a trial has ended; one that was only interrupted stays open."""
        suggestion = self._suggestion_of.get(signature)
        if suggestion is None or suggestion.optuna_trial is None:
            return
        record = self.ledger.trial(signature)
        if record.finished:
            self._advance(suggestion)
        elif self.halving.is_stopped(signature):
            self._settle(suggestion, state=self._states.PRUNED)
        elif record.failure:
            self._settle(suggestion, state=self._states.FAIL)

    def best(self) -> Suggestion | None:
        """The finished suggestion that is best on val."""
        finished = [s for s in self.suggestions if all(map(self._is_done, s.trials))]
        return max(finished, key=self.value, default=None)

    def winners(self) -> tuple[PlannedTrial, ...]:
        """The best suggestion's trials; none where no suggestion has finished."""
        best = self.best()
        return best.trials if best else ()

    def value(self, suggestion: Suggestion) -> float:
        """A finished suggestion's objective, mean over its seeds."""
        records = map(self.ledger.trial, [planned.signature for planned in suggestion.trials])
        return mean(map(final_objective, records, repeat(self.search.metric)))

    def forget(self) -> None:
        """Removes the study, so that the search starts anew."""
        self.optuna.delete_study(study_name=self.identity, storage=self.storage)

    def _decide(self, suggestion: Suggestion, step: int, value: float) -> None:
        if suggestion.optuna_trial:
            suggestion.optuna_trial.report(value, step)  # TPE learns from stopped trials too
        others = [s.first.signature for s in self.suggestions if s is not suggestion]
        self.halving.decide(suggestion.first.signature, step, value, others)

    def _suggest(self) -> None:
        """Makes suggestions until one of them has something to run."""
        duplicates = 0
        while self.remaining and not self._queue:
            suggestion = self._ask()
            if suggestion is None:  # a small space repeats itself soon
                duplicates += 1
                self._is_exhausted = duplicates == MAX_DUPLICATES
            else:
                duplicates = 0
                self._advance(suggestion)  # queues nothing where another sweep has finished it all

    def _ask(self) -> Suggestion | None:
        """A new suggestion; None where its trials have been suggested before."""
        if not self.suggestions:
            self._enqueue_defaults()
        # Seeded by the number of draws, so that a restart does not change them.
        seed = self.search.seed + SEED_STRIDE * len(self._complete_draws())
        self.study.sampler = make_sampler(self.optuna, self.search.kind, seed)
        distributions = {name: d.distribution() for name, d in self.search.space.items()}
        suggestion = self._suggestion(self.study.ask(distributions))
        if suggestion.first.signature in self._suggestion_of:
            self.study.tell(suggestion.optuna_trial, state=self._states.FAIL)
            return None
        self._add(suggestion)
        return suggestion

    def _add(self, suggestion: Suggestion) -> None:
        self.suggestions.append(suggestion)
        if suggestion.optuna_trial:
            self.open[suggestion.first.signature] = suggestion
        for planned in suggestion.trials:
            self._suggestion_of[planned.signature] = suggestion

    def _advance(self, suggestion: Suggestion) -> None:
        """Queues what a suggestion needs next, or settles it: its first seed, then the others."""
        if self.halving.is_stopped(suggestion.first.signature):
            self._settle(suggestion, state=self._states.PRUNED)
        elif all(map(self._is_done, suggestion.trials)):
            self._settle(suggestion, self.value(suggestion))
        elif suggestion.optuna_trial:
            for planned in self._active_trials(suggestion):
                if planned.signature not in suggestion.queued and not self._is_done(planned):
                    suggestion.queued.add(planned.signature)
                    self._queue.append(planned)

    def _settle(
        self, suggestion: Suggestion, value: float | None = None, state: Any = None
    ) -> None:
        """Tells Optuna the outcome of a suggestion, once."""
        if suggestion.optuna_trial is not None:
            self.study.tell(suggestion.optuna_trial, value, state=state)
            suggestion.optuna_trial = None
            self.open.pop(suggestion.first.signature, None)

    def _active_trials(self, suggestion: Suggestion) -> tuple[PlannedTrial, ...]:
        """Its trials whose turn has come: the other seeds wait for the first to finish."""
        return suggestion.trials if self._is_done(suggestion.first) else (suggestion.first,)

    def _is_done(self, planned: PlannedTrial) -> bool:
        return self.ledger.trial(planned.signature).finished

    def _suggestion(self, optuna_trial: Any) -> Suggestion:
        """The suggestion of one of Optuna's trials, new or read from the journal."""
        values = {name: optuna_trial.params[name] for name in self.search.space}
        trials = tuple(map(partial(self._planned, values), self.plan.spec.seed_list))
        if isinstance(optuna_trial, self.optuna.trial.FrozenTrial):
            is_running = optuna_trial.state == self._states.RUNNING
            optuna_trial = reopen_trial(self.study, optuna_trial) if is_running else None
        return Suggestion(trials, optuna_trial)

    def _planned(self, values: Mapping[str, Any], seed: int) -> PlannedTrial:
        trial = self.plan.spec.trial_at({**self.point, **values}, seed)
        return planned_trial(trial, {**self.point, **rounded(values)}, self.plan.fingerprint)

    def _load(self) -> None:
        """Opens the journal, and resumes what an earlier process left open."""
        journal = self.ledger.output / "search" / f"{self.plan.spec.name}.journal"
        try:
            self.storage = self.optuna.storages.JournalStorage(backend(journal))
        except ValueError as error:
            raise read_problem(journal, error) from None
        self.study = self.optuna.create_study(
            storage=self.storage,
            study_name=self.identity,
            direction="maximize",
            load_if_exists=True,
        )
        distinct: dict[str, Any] = {}
        for frozen in self._complete_draws():
            # The first of the same values counts; the others were told as failed.
            distinct.setdefault(json.dumps(frozen.params, sort_keys=True), frozen)
        for frozen in distinct.values():
            self._add(self._suggestion(frozen))
        for suggestion in list(self.open.values()):
            self._advance(suggestion)

    def _complete_draws(self) -> list[Any]:
        """Optuna's trials that have all their values; a kill amid a draw leaves one without."""
        size = len(self.search.space)
        return [t for t in self.study.get_trials(deepcopy=False) if len(t.params) == size]

    def _enqueue_defaults(self) -> None:
        """Lets the sweep's own trial come first, as far as it lies in the space."""
        if self.study.get_trials(deepcopy=False, states=(self._states.WAITING,)):
            return  # an earlier process has enqueued it
        defaults = flatten(self.plan.spec.trial)
        space = self.search.space.items()
        self.study.enqueue_trial({n: defaults[n] for n, d in space if d.holds(defaults[n])})
