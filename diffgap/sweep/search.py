"""Search: which trial to run next, told by what the last ones found on val.

Optuna keeps the study in a journal beside the sweep's output: suggestions, values on the way, and
how each trial ended. A search that is killed goes on with the trials it was in, and one that asks
for more trials goes on from those it has. Early stopping is asynchronous successive halving (ASHA,
Li et al. 2020), whose rungs are the values in that journal.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from diffgap.errors import require
from diffgap.ledger import Ledger
from diffgap.spec import flatten
from diffgap.spec.sweep import Dimension
from diffgap.sweep.plan import Plan, PlannedTrial, label, planned_trial

STARTUP = 10
"""Random trials before the sampler models what it has seen."""

SEED_STRIDE = 1_000_003
"""Between the seeds of a search that goes on."""

REPEATS = 100
"""Suggestions of trials that were there before, after which a space counts as searched through."""


@dataclass
class Suggestion:
    """A trial that the study has asked for and not heard the end of."""

    planned: PlannedTrial
    trial: Any
    """Optuna's."""


class Study:
    """The study of one search.

    Args:
        plan: the sweep, whose spec has a `search` block.
        ledger: what is finished, and where the journal is.
    """

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        assert plan.spec.search, "a study needs a search block"
        self.plan, self.ledger, self.search = plan, ledger, plan.spec.search
        self.optuna = require("optuna", "search", "a search")
        self.optuna.logging.set_verbosity(self.optuna.logging.ERROR)
        self.study = self._open()
        self._seed_sampler()
        self.open = {s.planned.signature: s for s in self._left_open()}
        self._again = list(self.open.values())
        whole = [t for t in self.study.get_trials(deepcopy=False) if self._whole(t)]
        self.seen = {p.signature: p for p in (self._planned(t.params) for t in whole)}

    def next(self) -> PlannedTrial | None:
        """The next trial to run, or None when the search has had all of its trials."""
        if self._again:
            return self._again.pop(0).planned
        for _ in range(REPEATS if self.left else 0):
            trial = self.study.ask(self._distributions())
            planned = self._planned(trial.params)
            if planned.signature in self.seen:  # a small space has few points: ask for another
                self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
                continue
            self.seen[planned.signature] = planned
            record = self.ledger.trial(planned.signature)
            if record.finished:  # by another sweep
                self.study.tell(trial, self.objective(record.metrics()))
                return self.next()
            self.open[planned.signature] = Suggestion(planned, trial)
            return planned
        return None

    @property
    def left(self) -> int:
        """Trials that the search may still ask for."""
        return max(0, self.search.trials - len(self.seen))

    def report(self, signature: str, step: int, metrics: Mapping[str, float]) -> None:
        """Hears of a trial's validation, and tells it to stop where it has fallen behind."""
        suggestion = self.open.get(signature)
        if suggestion is None:
            return
        value = self.objective(metrics)
        suggestion.trial.report(value, step)
        record = self.ledger.trial(signature)
        if self.plan.spec.scheduler and record.stop is None and suggestion.trial.should_prune():
            record.tell_to_stop("behind the others at its rung (ASHA)", step, value)

    def finish(self, signature: str) -> None:
        """Hears that a trial has ended, whichever way."""
        suggestion = self.open.pop(signature, None)
        if suggestion is None:
            return
        record, states = self.ledger.trial(signature), self.optuna.trial.TrialState
        if record.finished:
            self.study.tell(suggestion.trial, self.objective(record.metrics()))
        else:
            self.study.tell(suggestion.trial, state=states.PRUNED if record.stop else states.FAIL)

    def objective(self, metrics: Mapping[str, float]) -> float:
        """The search's metric on val, mean of both directions, in percent."""
        ending = f"/{self.search.metric}"
        found = [v for n, v in metrics.items() if n.startswith("val/") and n.endswith(ending)]
        assert len(found) == 2, f"val metrics of two directions, not {sorted(metrics)}"
        return mean(found)

    def forget(self) -> None:
        """Drops the study and the results of its trials, so that the search begins anew."""
        for signature in self.seen:
            self.ledger.trial(signature).forget()
        journal_of(self.plan, self.ledger).unlink(missing_ok=True)

    # The study itself -----------------------------------------------------------------------------

    def _open(self) -> Any:
        optuna = self.optuna
        journal = journal_of(self.plan, self.ledger)
        journal.parent.mkdir(parents=True, exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(journal))
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=_identity(self.plan),
            direction="maximize",
            pruner=self._pruner(),
            load_if_exists=True,
        )
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(self._defaults())
        return study

    def _seed_sampler(self) -> None:
        """Gives the study its sampler: one that goes on must not draw again what it drew before."""
        seed = self.search.seed + SEED_STRIDE * len(self.study.get_trials(deepcopy=False))
        samplers = self.optuna.samplers
        if self.search.kind == "random":
            self.study.sampler = samplers.RandomSampler(seed=seed)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
            self.study.sampler = samplers.TPESampler(
                seed=seed, multivariate=True, n_startup_trials=STARTUP
            )

    def _pruner(self) -> Any:
        scheduler = self.plan.spec.scheduler
        if scheduler is None:
            return self.optuna.pruners.NopPruner()
        return self.optuna.pruners.SuccessiveHalvingPruner(
            min_resource=scheduler.min_steps, reduction_factor=scheduler.reduction
        )

    def _distributions(self) -> dict[str, Any]:
        return {name: self._distribution(d) for name, d in self.search.space.items()}

    def _distribution(self, dimension: Dimension) -> Any:
        distributions = self.optuna.distributions
        if dimension.choices is not None:
            return distributions.CategoricalDistribution(dimension.choices)
        low, high = dimension.low, dimension.high
        if isinstance(low, int) and isinstance(high, int):
            return distributions.IntDistribution(low, high, log=dimension.log)
        return distributions.FloatDistribution(low, high, log=dimension.log)

    def _defaults(self) -> dict[str, Any]:
        """The sweep's own trial, which is tried first, as far as it lies in the space."""
        values = flatten(self.plan.spec.trial)
        distributions = self._distributions()
        return {
            name: values[name]
            for name, distribution in distributions.items()
            if _holds(self.search.space[name], values[name])
        }

    def _planned(self, params: Mapping[str, Any]) -> PlannedTrial:
        spec = self.plan.spec
        values = {name: params[name] for name in self.search.space if name in params}
        (seed,) = spec.seed_list
        short = {n: float(f"{v:.3g}") if isinstance(v, float) else v for n, v in values.items()}
        trial = spec.trial_at(values, seed)
        return planned_trial(trial, label(short, trial), self.plan.fingerprint)

    def _left_open(self) -> list[Suggestion]:
        """Trials that a killed search was in."""
        running = (self.optuna.trial.TrialState.RUNNING,)
        return [
            Suggestion(
                self._planned(frozen.params),
                self.optuna.trial.Trial(self.study, frozen._trial_id),
            )
            for frozen in self.study.get_trials(deepcopy=False, states=running)
            if self._whole(frozen)
        ]

    def _whole(self, frozen: Any) -> bool:
        """Whether all of its values have been drawn; one that is only enqueued has none."""
        return len(frozen.params) == len(self.search.space)


def journal_of(plan: Plan, ledger: Ledger) -> Path:
    """Where the study of a sweep is kept."""
    return ledger.output / "search" / f"{plan.spec.name}.journal"


def _holds(dimension: Dimension, value: Any) -> bool:
    if dimension.choices is not None:
        return value in dimension.choices
    return bool(dimension.low <= value <= dimension.high)


def _identity(plan: Plan) -> str:
    """Changes with whatever makes values of another search incomparable; not with its length."""
    search = plan.spec.search
    assert search, "a study needs a search block"
    content = {
        "trial": plan.spec.trial.model_dump(mode="json"),
        "task": plan.spec.task,
        "store": plan.fingerprint,
        "seeds": plan.spec.seed_list,
        "search": search.model_dump(mode="json", exclude={"trials"}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
