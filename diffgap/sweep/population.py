"""Population-based training (PBT, Jaderberg et al. 2017), as trials that anybody can repeat.

After each interval, copies of the best members with changed hyperparameters replace the worst. A
copy is a trial whose spec says which values it had from which step on (`Trial.changes`). All
members share seed and batches: trained from its start, it arrives at the same weights.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, filterfalse
from typing import Any

from numpy.random import Generator, default_rng

from diffgap.io.atomic import new_directory, write_json
from diffgap.io.paths import StoragePath, local_copy
from diffgap.ledger.ledger import Ledger
from diffgap.spec import Trial, flatten
from diffgap.spec.label import recorded_points, rounded, trial_label
from diffgap.spec.sweep import Dimension
from diffgap.spec.trial import Change
from diffgap.sweep.objective import final_objective, objective
from diffgap.sweep.plan import Plan, PlannedTrial, planned_trial

FACTORS = (0.8, 1.2)  # by which a copy's numbers are multiplied (Jaderberg et al. 2017, 4.1)
RESAMPLE = 0.25  # probability that a copy's value is drawn anew instead


@dataclass(frozen=True)
class PopulationMember:
    """A trial of one generation."""

    planned: PlannedTrial
    parent: str | None = None  # signature of the trial whose checkpoint a copy continues from

    def entry(self) -> dict[str, Any]:
        return {**self.planned.entry(), "parent": self.parent}


Generation = tuple[PopulationMember, ...]


class Population:
    """The generations of one point of a sweep's axes; each follows from the one before alone."""

    def __init__(self, plan: Plan, ledger: Ledger, point: Mapping[str, Any]) -> None:
        assert plan.spec.search
        assert plan.spec.scheduler
        self.plan, self.ledger, self.point = plan, ledger, dict(point)
        self.search, self.scheduler = plan.spec.search, plan.spec.scheduler
        (self.seed,) = plan.spec.seed_list
        steps = plan.spec.trial.train.steps
        self.last_steps = [*range(self.scheduler.interval, steps, self.scheduler.interval), steps]
        self.generations = self._read() or [self._first_generation()]

    @property
    def trials(self) -> list[PlannedTrial]:
        """Every trial of every generation."""
        members = chain.from_iterable(self.generations)
        return list({member.planned.signature: member.planned for member in members}.values())

    @property
    def required(self) -> list[PlannedTrial]:
        """The trials of the youngest generation, which are to reach its end."""
        return [member.planned for member in self.generations[-1]]

    def missing(self) -> list[PlannedTrial]:
        """The trials of the youngest generation that have not reached its end."""
        if self.is_last:  # which ends with the evaluation after the last step
            return list(filterfalse(self._is_finished, self.required))
        return [planned for planned in self.required if self._value(planned, self.end) is None]

    @property
    def end(self) -> int:
        """The step at which the youngest generation ends."""
        return self.last_steps[len(self.generations) - 1]

    @property
    def pause_at(self) -> int | None:
        """The step at which the youngest generation pauses; None where it trains to the end."""
        return None if self.is_last else self.end

    @property
    def is_last(self) -> bool:
        """Whether the youngest generation trains to the end."""
        return len(self.generations) == len(self.last_steps)

    @property
    def is_finished(self) -> bool:
        """Whether the last generation is finished."""
        return self.is_last and all(map(self._is_finished, self.required))

    def breed(self) -> list[tuple[PlannedTrial, str]]:
        """Makes the next generation; returns the trials that it replaces, each with a reason."""
        step, members = self.end, self.generations[-1]
        best, worst = self._select(members)
        random = default_rng([self.search.seed, len(self.generations)])
        generation, replaced = [], []
        for member in members:
            if member not in worst:
                generation.append(PopulationMember(member.planned))
                continue
            parent = best[random.integers(len(best))].planned
            copy = self._changed_copy(parent, step, random)
            generation.append(PopulationMember(copy, parent.signature))
            reason = f"behind at step {step}; continued as a copy of {parent.signature} (PBT)"
            replaced.append((member.planned, reason))
        self.generations.append(tuple(generation))
        self._copy_checkpoints()  # before the file: once that is written, copies can resume
        self._write()
        return replaced

    def _select(self, members: Generation) -> tuple[list[PopulationMember], list[PopulationMember]]:
        """The best members, to be copied, and the worst, to be replaced."""
        values = {m.planned.signature: self._value(m.planned, self.end) for m in members}
        failed = list(values.values()).count(None)
        # A failed member counts as 0, the worst.
        ranked = sorted(members, key=lambda m: values[m.planned.signature] or 0.0, reverse=True)
        count = max(1, math.floor(self.scheduler.quantile * len(members)))
        return ranked[: min(count, len(members) - failed)], ranked[-max(count, failed) :]

    def winners(self) -> list[PlannedTrial]:
        """The finished trial that is best on val, if there is one."""
        finished = list(filter(self._is_finished, self.trials))
        return [max(finished, key=self._final_value)] if finished else []

    def forget(self) -> None:
        """Removes the generations."""
        self._path.unlink(missing_ok=True)
        self.generations = [self._first_generation()]

    def _first_generation(self) -> Generation:
        """The sweep's own trial, and others drawn from the space."""
        random = default_rng([self.search.seed, 0])
        space = self.search.space.items()
        defaults = flatten(self.plan.spec.trial_at(self.point, self.seed))
        values = {n: defaults[n] for n, dimension in space if dimension.holds(defaults[n])}
        members: dict[str, PopulationMember] = {}
        while len(members) < self.search.trials:
            random_values = {n: draw(dimension, random) for n, dimension in space}
            planned = self._planned({**random_values, **values})
            members.setdefault(planned.signature, PopulationMember(planned))
            values = {}  # the defaults are for the first member only
        return tuple(members.values())

    def _planned(self, values: Mapping[str, Any]) -> PlannedTrial:
        trial = self.plan.spec.trial_at({**self.point, **values}, self.seed)
        return planned_trial(trial, {**self.point, **rounded(values)}, self.plan.fingerprint)

    def _changed_copy(self, parent: PlannedTrial, step: int, random: Generator) -> PlannedTrial:
        """The trial that continues from another with changed values from a step on."""
        current = flatten(parent.trial.at(step))
        space = self.search.space.items()
        values = {n: explore(dimension, current[n], random) for n, dimension in space}
        changes = (*parent.trial.changes, Change(step=step, values=values))
        trial = parent.trial.model_copy(update={"changes": changes})
        return planned_trial(trial, {**self.point, **rounded(values)}, self.plan.fingerprint)

    def _is_finished(self, planned: PlannedTrial) -> bool:
        return self.ledger.trial(planned.signature).finished

    def _value(self, planned: PlannedTrial, step: int) -> float | None:
        """The objective of a trial's validation at a step; None before it has got there."""
        for point in self._history(planned):
            value = objective(point["metrics"], self.search.metric)
            if point["step"] == step and value is not None:
                return value
        return None

    def _history(self, planned: PlannedTrial) -> list[dict[str, Any]]:
        """The points of a trial so far, from its result or its latest checkpoint."""
        from diffgap.training.checkpoint import read_progress
        from diffgap.training.remote_checkpoints import checkpoints_of

        record = self.ledger.trial(planned.signature)
        if record.finished:
            return record.history()
        latest = checkpoints_of(record.checkpoints).latest()
        return list(map(vars, read_progress(latest).history)) if latest else []

    def _final_value(self, planned: PlannedTrial) -> float:
        return final_objective(self.ledger.trial(planned.signature), self.search.metric)

    def _copy_checkpoints(self) -> None:
        """Gives the copies of the youngest generation the checkpoints they continue from."""
        for member in self.generations[-1]:
            if member.parent is None:
                continue
            source = self.ledger.trial(member.parent).checkpoints
            target = self.ledger.trial(member.planned.signature).checkpoints
            if not target.exists():
                with local_copy(source) as local, new_directory(target) as temporary:
                    shutil.copytree(local, temporary, dirs_exist_ok=True)

    @property
    def _path(self) -> StoragePath:
        point = trial_label(self.point, self.plan.spec.trial_at(self.point, self.seed))
        name = "".join(c if c.isalnum() else "-" for c in point)
        return self.ledger.output / "search" / f"{self.plan.spec.name}.{name}.population.json"

    def _write(self) -> None:
        entries = [list(map(PopulationMember.entry, members)) for members in self.generations]
        # "asked" is its name on disk since the first version.
        write_json(self._path, {"asked": self._identity(), "generations": entries})

    def _read(self) -> list[Generation] | None:
        """The generations that were written; None where they are of another population."""
        if not self._path.is_file():
            return None
        content = json.loads(self._path.read_text())
        if content["asked"] != self._identity():
            return None
        return [tuple(map(self._member, entries)) for entries in content["generations"]]

    def _member(self, entry: dict[str, Any]) -> PopulationMember:
        trial = Trial.model_validate(entry["trial"])
        (point,) = recorded_points([entry], self.plan.spec)
        return PopulationMember(planned_trial(trial, point, self.plan.fingerprint), entry["parent"])

    def _identity(self) -> dict[str, Any]:
        """What decides the first generation, and how the others follow."""
        spec = self.plan.spec.model_dump(mode="json", include={"search", "scheduler"})
        first = [member.planned.signature for member in self._first_generation()]
        return {**spec, "first": first}


def draw(dimension: Dimension, random: Generator) -> Any:
    """A value of a dimension, drawn uniformly."""
    if dimension.choices is not None:
        return dimension.choices[random.integers(len(dimension.choices))]
    low, high = dimension.low, dimension.high
    assert low is not None
    assert high is not None
    if dimension.log:
        value = math.exp(random.uniform(math.log(low), math.log(high)))
    else:
        value = random.uniform(low, high)
    return _clip(dimension, value)


def explore(dimension: Dimension, value: Any, random: Generator) -> Any:
    """A changed value: multiplied by one of `FACTORS`, or drawn anew now and then."""
    if random.random() < RESAMPLE or dimension.choices is not None:
        return draw(dimension, random)
    return _clip(dimension, value * FACTORS[random.integers(2)])


def _clip(dimension: Dimension, value: float) -> float | int:
    """A number brought into a dimension's range, and rounded where that is of integers."""
    assert dimension.low is not None
    assert dimension.high is not None
    value = min(max(value, dimension.low), dimension.high)
    is_integer = isinstance(dimension.low, int) and isinstance(dimension.high, int)
    return round(value) if is_integer else float(value)
