"""The plan of a sweep: its trials, their signatures, and what is left to do.

A plan is made without starting anything, which is what `--dry-run` prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffgap.ledger import Ledger, SweepRecord
from diffgap.spec import SweepSpec, Trial, flatten, signature


@dataclass(frozen=True)
class PlannedTrial:
    """One experiment of a sweep."""

    signature: str
    label: str
    """What sets it apart from its sweep's other trials, such as ``cdm on, bst off, seed 2``."""
    trial: Trial


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep, in the order of its axes, seeds innermost."""

    spec: SweepSpec
    store: str
    """Path or URI of the embedding store."""
    trials: tuple[PlannedTrial, ...]

    def missing(self, ledger: Ledger) -> list[PlannedTrial]:
        """The trials that no sweep has finished."""
        return [t for t in self.trials if not ledger.trial(t.signature).finished]

    def record(self) -> SweepRecord:
        """What the ledger keeps of this sweep."""
        trials = [
            {
                "signature": planned.signature,
                "label": planned.label,
                "trial": planned.trial.model_dump(mode="json"),
            }
            for planned in self.trials
        ]
        return SweepRecord(self.spec.name, self.spec.model_dump(mode="json"), self.store, trials)


def make_plan(spec: SweepSpec, store: str, fingerprint: str) -> Plan:
    """Plans a sweep over a store with this fingerprint."""
    planned = [
        PlannedTrial(signature(trial, fingerprint), label(trial, list(spec.axes)), trial)
        for trial in spec.trials()
    ]
    return Plan(spec, store, tuple(planned))


def label(trial: Trial, axes: Sequence[str]) -> str:
    """The values of a trial's axes and its seed, as a person reads them."""
    values = flatten(trial)
    parts = []
    for axis in axes:
        value = values[axis]
        if isinstance(value, bool):
            parts.append(f"{axis.removesuffix('.enabled')} {'on' if value else 'off'}")
        else:
            parts.append(f"{axis} {value}")
    return ", ".join([*parts, f"seed {trial.seed}"])
