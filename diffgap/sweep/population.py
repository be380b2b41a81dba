"""Population-based training (PBT, Jaderberg et al. 2017), as trials that can be told again.

A population trains from one generation's step to the next; then the worst go on from copies of the
best, with changed hyperparameters. A member that does is another trial: the one whose spec says
which values it had from which step on (`Trial.changes`). All members share seed and batches, so
that trial, trained from its start, comes to the same weights: what PBT finds is a schedule, and
anybody can repeat it.

The generations are kept in OUTPUT/search/NAME.population.json; each follows from the one before
alone, so that a killed population goes on as if it had not been.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffgap.io.atomic import new_directory, write_json
from diffgap.io.paths import StoragePath, local_copy
from diffgap.ledger.ledger import Ledger
from diffgap.spec import Trial, flatten
from diffgap.spec.sweep import Dimension
from diffgap.spec.trial import Change
from diffgap.sweep.plan import Plan, PlannedTrial, label, planned_trial
from diffgap.sweep.study import objective

FACTORS = (0.8, 1.2)
"""What numbers are multiplied by (Jaderberg et al. 2017, section 4.1)."""

RESAMPLE = 0.25
"""Probability that a value is drawn anew instead."""


@dataclass(frozen=True)
class Member:
    """A trial of one generation."""

    planned: PlannedTrial
    parent: str | None = None
    """The trial whose checkpoint it goes on from, where it is a copy."""

    def entry(self) -> dict[str, Any]:
        return {**self.planned.entry(), "parent": self.parent}


Generation = tuple[Member, ...]


class Population:
    """The generations of one point of a sweep's axes.

    Args:
        plan: the sweep, whose scheduler is `pbt`.
        ledger: where trials and generations are kept.
        point: the values of the axes there.
    """

    def __init__(self, plan: Plan, ledger: Ledger, point: Mapping[str, Any]) -> None:
        assert plan.spec.search
        assert plan.spec.scheduler
        self.plan, self.ledger, self.point = plan, ledger, dict(point)
        self.search, self.scheduler = plan.spec.search, plan.spec.scheduler
        (self.seed,) = plan.spec.seed_list
        self.generations = self._read() or [self._first()]

    @property
    def ends(self) -> list[int]:
        """The step at which each generation ends; the last one's is the training's."""
        steps = self.plan.spec.trial.train.steps
        return [*range(self.scheduler.interval, steps, self.scheduler.interval), steps]

    @property
    def trials(self) -> list[PlannedTrial]:
        """Every trial of every generation."""
        members = {m.planned.signature: m.planned for g in self.generations for m in g}
        return list(members.values())

    @property
    def youngest(self) -> list[PlannedTrial]:
        """The members of the youngest generation."""
        return [member.planned for member in self.generations[-1]]

    def missing(self) -> list[PlannedTrial]:
        """The members of the youngest generation that have not come to its end."""
        if self.is_last:  # whose end is the evaluation after the last step
            return [p for p in self.youngest if not self.ledger.trial(p.signature).finished]
        end = self.ends[len(self.generations) - 1]
        return [planned for planned in self.youngest if self._value(planned, end) is None]

    @property
    def is_last(self) -> bool:
        """Whether the youngest generation trains to its trials' ends."""
        return len(self.generations) == len(self.ends)

    @property
    def until(self) -> int | None:
        """Where the youngest generation pauses."""
        return None if self.is_last else self.ends[len(self.generations) - 1]

    def breed(self) -> list[tuple[PlannedTrial, str]]:
        """Makes the next generation; returns whom it replaces, and why."""
        end = self.ends[len(self.generations) - 1]
        old = self.generations[-1]
        values = {m.planned.signature: self._value(m.planned, end) for m in old}
        lost = sum(value is None for value in values.values())  # failed, and so the worst
        ranked = sorted(old, key=lambda m: -(values[m.planned.signature] or 0.0))
        count = max(1, math.floor(self.scheduler.quantile * len(old)))
        best = ranked[: min(count, len(old) - lost)]
        worst = {m.planned.signature for m in ranked[-max(count, lost) :]}
        random = np.random.default_rng([self.search.seed, len(self.generations)])
        young, replaced = [], []
        for member in old:
            if member.planned.signature not in worst:
                young.append(Member(member.planned))
                continue
            parent = best[random.integers(len(best))].planned
            young.append(Member(self._changed(parent, end, random), parent.signature))
            why = f"behind at step {end}; goes on as a copy of {parent.signature} (PBT)"
            replaced.append((member.planned, why))
        self.generations.append(tuple(young))
        self._copy_checkpoints()
        self._write()
        return replaced

    def best(self) -> PlannedTrial | None:
        """The finished member that is best on val."""
        finished = [p for p in self.trials if self.ledger.trial(p.signature).finished]
        return max(finished, key=self._final, default=None)

    def forget(self) -> None:
        """Drops the generations and the results of their trials."""
        for planned in self.trials:
            self.ledger.trial(planned.signature).forget()
        self._path.unlink(missing_ok=True)
        self.generations = [self._first()]

    # Members -------------------------------------------------------------------------------------

    def _first(self) -> Generation:
        """The sweep's own trial, and others drawn from the space."""
        random = np.random.default_rng([self.search.seed, 0])
        members: dict[str, Member] = {}
        own = flatten(self.plan.spec.trial_at(self.point, self.seed))
        values = {n: own[n] for n, d in self.search.space.items() if d.holds(own[n])}
        while len(members) < self.search.trials:
            drawn = {n: draw(d, random) for n, d in self.search.space.items()}
            planned = self._planned({**drawn, **values})
            members.setdefault(planned.signature, Member(planned))
            values = {}
        return tuple(members.values())

    def _planned(self, values: Mapping[str, Any]) -> PlannedTrial:
        trial = self.plan.spec.trial_at({**self.point, **values}, self.seed)
        return planned_trial(trial, self._label(values, trial), self.plan.fingerprint)

    def _changed(
        self, parent: PlannedTrial, step: int, random: np.random.Generator
    ) -> PlannedTrial:
        """The trial that goes on from another with values changed from a step on."""
        now = flatten(parent.trial.at(step))
        values = {n: explore(d, now[n], random) for n, d in self.search.space.items()}
        changes = (*parent.trial.changes, Change(step=step, values=values))
        trial = parent.trial.model_copy(update={"changes": changes})
        return planned_trial(trial, self._label(values, trial), self.plan.fingerprint)

    def _label(self, values: Mapping[str, Any], trial: Trial) -> str:
        short = {n: float(f"{v:.3g}") if isinstance(v, float) else v for n, v in values.items()}
        since = f" from step {trial.changes[-1].step}" if trial.changes else ""
        return label({**self.point, **short}, trial).replace(", seed", f"{since}, seed")

    def _value(self, planned: PlannedTrial, step: int) -> float | None:
        """The objective of a member's validation at a step; None before it has come there."""
        from diffgap.training.checkpoint import read_progress
        from diffgap.training.remote_checkpoints import checkpoints_of

        record = self.ledger.trial(planned.signature)
        if record.finished:
            points = record.history()
        elif latest := checkpoints_of(record.checkpoints).latest():
            points = [vars(point) for point in read_progress(latest).history]
        else:
            return None
        found = [p["metrics"] for p in points if p["step"] == step and _validates(p["metrics"])]
        return objective(found[0], self.search.metric) if found else None

    def _final(self, planned: PlannedTrial) -> float:
        return objective(self.ledger.trial(planned.signature).metrics(), self.search.metric)

    def _copy_checkpoints(self) -> None:
        """Gives the copies of the youngest generation what they go on from."""
        for member in self.generations[-1]:
            if member.parent is None:
                continue
            source = self.ledger.trial(member.parent).checkpoints
            target = self.ledger.trial(member.planned.signature).checkpoints
            if not target.exists():
                with local_copy(source) as whole, new_directory(target) as temporary:
                    shutil.copytree(whole, temporary, dirs_exist_ok=True)

    # The file ------------------------------------------------------------------------------------

    @property
    def _path(self) -> StoragePath:
        point = label(self.point, self.plan.spec.trial_at(self.point, self.seed))
        name = "".join(c if c.isalnum() else "-" for c in point)
        return self.ledger.output / "search" / f"{self.plan.spec.name}.{name}.population.json"

    def _write(self) -> None:
        entries = [[member.entry() for member in g] for g in self.generations]
        write_json(self._path, {"asked": self._asked(), "generations": entries})

    def _read(self) -> list[Generation] | None:
        """The generations of the same population; None where there is none yet."""
        if not self._path.is_file():
            return None
        kept = json.loads(self._path.read_text())
        if kept["asked"] != self._asked():
            return None
        return [tuple(self._member(e) for e in entries) for entries in kept["generations"]]

    def _member(self, entry: dict[str, Any]) -> Member:
        trial = Trial.model_validate(entry["trial"])
        return Member(planned_trial(trial, entry["label"], self.plan.fingerprint), entry["parent"])

    def _asked(self) -> dict[str, Any]:
        """What decides the first generation, and how the others follow."""
        spec = self.plan.spec.model_dump(mode="json", include={"search", "scheduler"})
        first = [member.planned.signature for member in self._first()]
        return {**spec, "first": first}


def draw(dimension: Dimension, random: np.random.Generator) -> Any:
    """A value of a dimension, drawn evenly."""
    if dimension.choices is not None:
        return dimension.choices[random.integers(len(dimension.choices))]
    low, high = dimension.low, dimension.high
    assert low is not None
    assert high is not None
    if dimension.log:
        value = math.exp(random.uniform(math.log(low), math.log(high)))
    else:
        value = random.uniform(low, high)
    return _inside(dimension, value)


def explore(dimension: Dimension, value: Any, random: np.random.Generator) -> Any:
    """A changed value: as a rule multiplied by one of `FACTORS`, sometimes drawn anew."""
    if random.random() < RESAMPLE or dimension.choices is not None:
        return draw(dimension, random)
    return _inside(dimension, value * FACTORS[random.integers(2)])


def _inside(dimension: Dimension, value: float) -> float | int:
    """A number within a dimension's range, whole where the range is."""
    assert dimension.low is not None
    assert dimension.high is not None
    value = min(max(value, dimension.low), dimension.high)
    whole = isinstance(dimension.low, int) and isinstance(dimension.high, int)
    return round(value) if whole else float(value)


def _validates(metrics: Mapping[str, float]) -> bool:
    return any(name.startswith("val/") for name in metrics)
