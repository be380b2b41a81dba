"""Plan of a sweep: its trials with their signatures, made without starting anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffgap.ledger.ledger import SweepRecord
from diffgap.spec import SweepSpec, Trial, signature, training_signature
from diffgap.spec.label import trial_label


@dataclass(frozen=True)
class PlannedTrial:
    """One experiment of a sweep."""

    signature: str
    label: str
    """What sets it apart from its sweep's other trials, such as ``cdm on, bst off, seed 2``."""
    trial: Trial
    training: str
    """Its training signature: trials that share it share the trained weights."""
    point: Mapping[str, Any]
    """Its values of the sweep's axes, and of a search's space to three digits."""

    def entry(self) -> dict[str, Any]:
        """The trial as the ledger records it with its sweep."""
        return {
            "signature": self.signature,
            "label": self.label,
            "trial": self.trial.model_dump(mode="json"),
            "point": dict(self.point),
        }


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep, in the order of its axes, seeds innermost."""

    spec: SweepSpec
    store: str
    """Path or URI of the embedding store."""
    fingerprint: str
    """Of the store's content."""
    trials: tuple[PlannedTrial, ...]

    def record(self) -> SweepRecord:
        """The sweep as the ledger records it."""
        trials = [planned.entry() for planned in self.trials]
        return SweepRecord(self.spec.name, self.spec.model_dump(mode="json"), self.store, trials)


def make_plan(spec: SweepSpec, store: str, fingerprint: str) -> Plan:
    """Plans a sweep over a store with this fingerprint; a search plans its trials as it goes."""
    if spec.search:
        return Plan(spec, store, fingerprint, ())
    trials: dict[str, PlannedTrial] = {}
    for point, trial in spec.points():
        planned = planned_trial(trial, point, fingerprint)
        # Points that differ only in axes that the trial does not use are the same experiment.
        trials.setdefault(planned.signature, planned)
    return Plan(spec, store, fingerprint, tuple(trials.values()))


def planned_trial(trial: Trial, point: Mapping[str, Any], fingerprint: str) -> PlannedTrial:
    """A trial at a point of its sweep, with its signatures on one store."""
    label, training = trial_label(point, trial), training_signature(trial, fingerprint)
    return PlannedTrial(signature(trial, fingerprint), label, trial, training, point)
