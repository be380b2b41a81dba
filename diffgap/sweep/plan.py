"""The plan of a sweep: its trials, their signatures, and what is left to do.

A plan is made without starting anything, which is what `--dry-run` prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffgap.ledger.ledger import Ledger, SweepRecord
from diffgap.spec import SweepSpec, Trial, signature, training_signature


@dataclass(frozen=True)
class PlannedTrial:
    """One experiment of a sweep."""

    signature: str
    label: str
    """What sets it apart from its sweep's other trials, such as ``cdm on, bst off, seed 2``."""
    trial: Trial
    training: str
    """Its training signature: trials that share it share the trained weights."""

    def entry(self) -> dict[str, Any]:
        """What the ledger keeps of it in a sweep's record."""
        trial = self.trial.model_dump(mode="json")
        return {"signature": self.signature, "label": self.label, "trial": trial}


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep, in the order of its axes, seeds innermost."""

    spec: SweepSpec
    store: str
    """Path or URI of the embedding store."""
    fingerprint: str
    """Of the store's content."""
    trials: tuple[PlannedTrial, ...]

    def missing(self, ledger: Ledger) -> list[PlannedTrial]:
        """The trials that no sweep has finished."""
        return [t for t in self.trials if not ledger.trial(t.signature).finished]

    def record(self) -> SweepRecord:
        """What the ledger keeps of this sweep."""
        trials = [planned.entry() for planned in self.trials]
        return SweepRecord(self.spec.name, self.spec.model_dump(mode="json"), self.store, trials)


def make_plan(spec: SweepSpec, store: str, fingerprint: str) -> Plan:
    """Plans a sweep over a store with this fingerprint; a search plans its trials as it goes."""
    if spec.search:
        return Plan(spec, store, fingerprint, ())
    planned: dict[str, PlannedTrial] = {}
    for values, trial in spec.points():
        one = planned_trial(trial, label(values, trial), fingerprint)
        planned.setdefault(one.signature, one)  # axes that a trial has no use for make it again
    return Plan(spec, store, fingerprint, tuple(planned.values()))


def planned_trial(trial: Trial, label: str, fingerprint: str) -> PlannedTrial:
    """A trial with its signatures on one store."""
    training = training_signature(trial, fingerprint)
    return PlannedTrial(signature(trial, fingerprint), label, trial, training)


def label(values: Mapping[str, Any], trial: Trial) -> str:
    """What sets a trial apart, as a person reads it: ``cdm on, bst off, seed 2``."""
    parts = []
    idle = tuple(trial.inactive_fields())
    for field, value in values.items():
        if field.startswith(idle):
            continue
        if isinstance(value, bool):
            parts.append(f"{field.removesuffix('.enabled')} {'on' if value else 'off'}")
        elif field in ("method", "task"):
            parts.append(str(value))
        else:
            name = field.removesuffix(".kind").removeprefix("generation.")
            parts.append(f"{name} {value}")
    return ", ".join([*parts, f"seed {trial.seed}"])
