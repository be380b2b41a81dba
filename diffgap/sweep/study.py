"""The study of one search: which trial to run next, told by what the last ones found on val.

Optuna keeps it in a journal beside the sweep's output: suggestions, and how each ended. A search
that is killed goes on with the trials it was in, and one that asks for more trials goes on from
those it has. What is drawn next follows from the seed and from how many were drawn before, so that
a search that was killed draws what it would have drawn.

Early stopping is asynchronous successive halving (ASHA, Li et al. 2020): a trial that reaches a
rung goes on if it is among the best 1/reduction of those that have been there. The rungs are kept
with the trials, and a trial waits at its rung for the verdict.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from diffgap.errors import require
from diffgap.io.paths import StoragePath
from diffgap.ledger.ledger import Ledger, Rung
from diffgap.spec import flatten
from diffgap.sweep.optuna_storage import backend
from diffgap.sweep.plan import Plan, PlannedTrial, label, planned_trial

STARTUP = 10
"""Random trials before the sampler models what it has seen."""

SEED_STRIDE = 1_000_003
"""Between the seeds of one suggestion and the next."""

REPEATS = 100
"""Suggestions of trials that were there before, after which a space counts as searched through."""


@dataclass
class Suggestion:
    """Values that a study has asked for: a trial a seed, of which the first speaks for all."""

    seeds: tuple[PlannedTrial, ...]
    values: dict[str, Any]
    trial: Any
    """Optuna's, while the study has not heard its end."""
    queued: set[str] = field(default_factory=set)
    """Signatures of the seeds that have been given out."""


class Study:
    """The study of one point of a sweep's axes.

    Args:
        plan: the sweep, whose spec has a `search` block.
        ledger: what is finished, and where the journal is.
        point: the values of the axes there.
    """

    def __init__(self, plan: Plan, ledger: Ledger, point: Mapping[str, Any] | None = None) -> None:
        assert plan.spec.search, "a study needs a search block"
        self.plan, self.ledger, self.search = plan, ledger, plan.spec.search
        self.point = dict(point or {})
        self.optuna = require("optuna", "search", "a search")
        self.optuna.logging.set_verbosity(self.optuna.logging.ERROR)
        self.identity = self._identity()
        self.study = self._open()
        self.suggestions = [self._suggestion(t) for t in self._whole_trials()]
        self.open = {s.seeds[0].signature: s for s in self.suggestions if s.trial}
        self._owner = {p.signature: s for s in self.suggestions for p in s.seeds}
        self.exhausted = False
        """Whether only trials that were there before have been drawn, again and again."""
        self._again: list[PlannedTrial] = []
        for suggestion in list(self.open.values()):
            self._go_on(suggestion)

    # What a runner asks and tells ----------------------------------------------------------------

    def next(self) -> PlannedTrial | None:
        """The next trial to run; None where there is none, for now or for good (`left`)."""
        if self._again:
            return self._again.pop(0)
        for _ in range(REPEATS if self.left else 0):
            suggestion = self._ask()
            if suggestion is None:
                continue  # a small space has few points: ask for another
            self._go_on(suggestion)
            if self._again:  # else another sweep has finished all of it
                return self._again.pop(0)
        self.exhausted = True
        return None

    @property
    def left(self) -> int:
        """Suggestions that the search may still ask for."""
        if self.exhausted:
            return 0
        most = int(min(self.search.trials, self._points()))
        return max(0, most - len(self.suggestions))

    @property
    def over(self) -> bool:
        """Whether every suggestion has come to its end, and none is left."""
        return not (self.open or self.left)

    @property
    def trials(self) -> list[PlannedTrial]:
        """Every trial that has been begun, in the order of the suggestions."""
        begun = [self.begun(suggestion) for suggestion in self.suggestions]
        return [planned for trials in begun for planned in trials]

    def rungs(self, planned: PlannedTrial) -> tuple[int, ...]:
        """Where a trial waits for a verdict: the first seed of a suggestion, under ASHA."""
        scheduler, train = self.plan.spec.scheduler, planned.trial.train
        first = self._owner[planned.signature].seeds[0].signature == planned.signature
        if not (scheduler and first and planned.trial.trains):
            return ()
        return scheduler.rungs(train.steps, train.epoch_steps)

    def report(self, signature: str, points: Iterable[Mapping[str, Any]]) -> None:
        """Hears of a trial's points, and decides at its rungs whether it goes on."""
        suggestion = self._owner.get(signature)
        if suggestion is None:
            return
        record, planned = self.ledger.trial(signature), suggestion.seeds[0]
        rungs = self.rungs(planned) if planned.signature == signature else ()
        for point in points:
            step, metrics = point["step"], point["metrics"]
            known = record.rungs(self.identity)
            if step in rungs and step not in known and any(n.startswith("val/") for n in metrics):
                self._decide(signature, step, self.objective(metrics))

    def finish(self, signature: str) -> None:
        """Hears that a trial has ended; one that was only interrupted stays open."""
        suggestion = self._owner.get(signature)
        if suggestion is None or suggestion.trial is None:
            return
        record, states = self.ledger.trial(signature), self.optuna.trial.TrialState
        if record.finished:
            self._go_on(suggestion)
        elif self._stopped_at(signature):
            self._tell(suggestion, state=states.PRUNED)
        elif record.failure:
            self._tell(suggestion, state=states.FAIL)

    def best(self) -> Suggestion | None:
        """The finished suggestion that is best on val."""
        done = [s for s in self.suggestions if all(self._finished(p) for p in s.seeds)]
        return max(done, key=self.value, default=None)

    def value(self, suggestion: Suggestion) -> float:
        """A finished suggestion's objective, mean over its seeds."""
        return mean(
            self.objective(self.ledger.trial(p.signature).metrics()) for p in suggestion.seeds
        )

    def objective(self, metrics: Mapping[str, float]) -> float:
        """The search's metric on val, mean of both directions, in percent."""
        return objective(metrics, self.search.metric)

    def forget(self) -> None:
        """Drops the study and the results of its trials, so that the search begins anew."""
        for planned in self.trials:
            self.ledger.trial(planned.signature).forget()
        self.optuna.delete_study(study_name=self.identity, storage=self.storage)

    # Verdicts ------------------------------------------------------------------------------------

    def _decide(self, signature: str, step: int, value: float) -> None:
        assert self.plan.spec.scheduler
        earlier = [
            rungs[step].value
            for suggestion in self.suggestions
            if (own := suggestion.seeds[0].signature) != signature
            and step in (rungs := self.ledger.trial(own).rungs(self.identity))
        ]
        goes_on = survives(value, earlier, self.plan.spec.scheduler.reduction)
        record = self.ledger.trial(signature)
        if suggestion := self.open.get(signature):
            suggestion.trial.report(value, step)  # the sampler learns from stopped trials too
        if not goes_on:
            record.request_stop(f"behind the others at step {step} (ASHA)", step, value)
        record.record_rung(self.identity, step, Rung(value, goes_on))

    def _stopped_at(self, signature: str) -> int | None:
        """The rung at which the study has ended a trial."""
        rungs = self.ledger.trial(signature).rungs(self.identity)
        return next((step for step, rung in rungs.items() if not rung.goes_on), None)

    # Suggestions ---------------------------------------------------------------------------------

    def _ask(self) -> Suggestion | None:
        """A new suggestion; None where its trials were there before."""
        waiting = (self.optuna.trial.TrialState.WAITING,)
        if not self.suggestions and not self.study.get_trials(deepcopy=False, states=waiting):
            self.study.enqueue_trial(self._defaults())
        self._seed_sampler()
        suggestion = self._suggestion(self.study.ask(self._distributions()))
        if suggestion.seeds[0].signature in self._owner:
            self.study.tell(suggestion.trial, state=self.optuna.trial.TrialState.FAIL)
            return None
        self.suggestions.append(suggestion)
        self.open[suggestion.seeds[0].signature] = suggestion
        self._owner |= {planned.signature: suggestion for planned in suggestion.seeds}
        return suggestion

    def _go_on(self, suggestion: Suggestion) -> None:
        """Queues what a suggestion needs next: its first seed, then the others, then its end."""
        if self._stopped_at(suggestion.seeds[0].signature):
            self._tell(suggestion, state=self.optuna.trial.TrialState.PRUNED)
            return
        if all(self._finished(planned) for planned in suggestion.seeds):
            self._tell(suggestion, self.value(suggestion))
        elif suggestion.trial:
            begun = self.begun(suggestion)
            missing = [p for p in begun if not self._finished(p)]
            self._again += [p for p in missing if p.signature not in suggestion.queued]
            suggestion.queued |= {p.signature for p in missing}

    def begun(self, suggestion: Suggestion) -> tuple[PlannedTrial, ...]:
        """The seeds whose turn has come; the others wait until the first has spoken for them."""
        first = suggestion.seeds[0]
        return suggestion.seeds if self._finished(first) else (first,)

    def _finished(self, planned: PlannedTrial) -> bool:
        return self.ledger.trial(planned.signature).finished

    def _tell(self, suggestion: Suggestion, value: float | None = None, state: Any = None) -> None:
        if suggestion.trial is not None:
            self.study.tell(suggestion.trial, value, state=state)
            suggestion.trial = None
            self.open.pop(suggestion.seeds[0].signature, None)

    def _suggestion(self, asked: Any) -> Suggestion:
        """Of a trial of Optuna's, new or frozen in the journal."""
        values = {name: asked.params[name] for name in self.search.space}
        seeds = tuple(self._planned(values, seed) for seed in self.plan.spec.seed_list)
        running = self.optuna.trial.TrialState.RUNNING
        if isinstance(asked, self.optuna.trial.FrozenTrial):
            live = asked.state == running
            asked = self.optuna.trial.Trial(self.study, asked._trial_id) if live else None
        return Suggestion(seeds, values, asked)

    def _planned(self, values: Mapping[str, Any], seed: int) -> PlannedTrial:
        short = {n: float(f"{v:.3g}") if isinstance(v, float) else v for n, v in values.items()}
        trial = self.plan.spec.trial_at({**self.point, **values}, seed)
        return planned_trial(trial, label({**self.point, **short}, trial), self.plan.fingerprint)

    # Optuna --------------------------------------------------------------------------------------

    def _open(self) -> Any:
        storages = self.optuna.storages
        self.storage = storages.JournalStorage(backend(journal_of(self.plan, self.ledger)))
        return self.optuna.create_study(
            storage=self.storage,
            study_name=self.identity,
            direction="maximize",
            load_if_exists=True,
        )

    def _whole_trials(self) -> list[Any]:
        """Each suggestion once: what was drawn again was told as failed."""
        found: dict[str, Any] = {}
        for frozen in self._drawn():
            found.setdefault(json.dumps(frozen.params, sort_keys=True), frozen)
        return list(found.values())

    def _drawn(self) -> list[Any]:
        """Optuna's trials with all of their values; a search killed while it drew left one without
        some."""
        size = len(self.search.space)
        return [t for t in self.study.get_trials(deepcopy=False) if len(t.params) == size]

    def _seed_sampler(self) -> None:
        seed = self.search.seed + SEED_STRIDE * len(self._drawn())
        samplers = self.optuna.samplers
        if self.search.kind == "random":
            self.study.sampler = samplers.RandomSampler(seed=seed)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
            self.study.sampler = samplers.TPESampler(
                seed=seed, multivariate=True, n_startup_trials=STARTUP
            )

    def _distributions(self) -> dict[str, Any]:
        return {name: d.distribution() for name, d in self.search.space.items()}

    def _points(self) -> float:
        """How many points the space has."""
        return math.prod(dimension.size for dimension in self.search.space.values())

    def _defaults(self) -> dict[str, Any]:
        """The sweep's own trial, which is tried first, as far as it lies in the space."""
        values = flatten(self.plan.spec.trial)
        return {n: values[n] for n, d in self.search.space.items() if d.holds(values[n])}

    def _identity(self) -> str:
        """Changes with whatever makes values of searches incomparable; not with their length."""
        content = {
            "trial": self.plan.spec.trial.model_dump(mode="json", exclude={"generation"}),
            "task": self.plan.spec.task,
            "store": self.plan.fingerprint,
            "seeds": self.plan.spec.seed_list,
            "point": self.point,
            "search": self.search.model_dump(mode="json", exclude={"trials"}),
            "scheduler": self.plan.spec.scheduler and self.plan.spec.scheduler.model_dump(),
        }
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def survives(value: float, earlier: Sequence[float], reduction: int) -> bool:
    """Whether a trial goes on from a rung (ASHA, Li et al. 2020, algorithm 2).

    Args:
        value: its own, to be maximised.
        earlier: of the trials that were at the rung before it.
        reduction: one of so many goes on; the best always does.
    """
    everyone = sorted([*earlier, value], reverse=True)
    return value >= everyone[max(1, len(everyone) // reduction) - 1]


def objective(metrics: Mapping[str, float], metric: str) -> float:
    """A metric such as R5 on val, mean of both directions, in percent."""
    found = [v for n, v in metrics.items() if n.startswith("val/") and n.endswith(f"/{metric}")]
    assert len(found) == 2, f"val metrics of two directions, not {sorted(metrics)}"
    return mean(found)


def journal_of(plan: Plan, ledger: Ledger) -> StoragePath:
    """Where the studies of a sweep are kept."""
    return ledger.output / "search" / f"{plan.spec.name}.journal"
