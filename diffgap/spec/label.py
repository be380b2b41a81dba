"""Labels of trials: what sets one apart from its sweep's others, as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffgap.spec.signature import flatten, signature
from diffgap.spec.sweep import SweepSpec
from diffgap.spec.trial import Trial


def trial_label(point: Mapping[str, Any], trial: Trial) -> str:
    """A trial by its point and its seed: ``cdm on, bst off, seed 2``."""
    return ", ".join(filter(None, (cell_label(point, trial), f"seed {trial.seed}")))


def cell_label(point: Mapping[str, Any], trial: Trial) -> str:
    """What all seeds have in common: ``cdm on, bst off``; without the fields they do not use."""
    inactive = tuple(trial.inactive_fields())
    parts = [_part(name, value) for name, value in point.items() if not name.startswith(inactive)]
    label = ", ".join(parts)
    # Population-based training has trials of the same values from different steps on.
    return f"{label} from step {trial.changes[-1].step}" if trial.changes else label


def _part(name: str, value: Any) -> str:
    if name in ("method", "task"):
        return str(value)
    if isinstance(value, bool):
        return f"{name.removesuffix('.enabled')} {'on' if value else 'off'}"
    return f"{name.removesuffix('.kind').removeprefix('generation.')} {value}"


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a search's space to three digits, for labels; the trial has the exact ones."""
    digits = dict(values)
    for name, value in values.items():
        if isinstance(value, float):
            digits[name] = float(f"{value:.3g}")
    return digits


def recorded_points(
    entries: Sequence[Mapping[str, Any]], spec: SweepSpec | Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The points of trials as sweep.json has them; in version 0.1 they follow from the spec."""
    if all("point" in entry for entry in entries):
        return [entry["point"] for entry in entries]
    spec = SweepSpec.model_validate(spec)
    axis_points: dict[str, dict[str, Any]] = {}
    for point, trial in spec.points():
        axis_points.setdefault(signature(trial, ""), point)  # on whatever store: it is the same
    points = []
    for entry in entries:
        trial = Trial.model_validate(entry["trial"])
        point = axis_points.get(signature(trial, "")) or _point_of(trial, spec)
        points.append(entry.get("point", point))
    return points


def _point_of(trial: Trial, spec: SweepSpec) -> dict[str, Any]:
    """The point of a search's trial, by its own values."""
    values = flatten(trial.at(trial.train.steps))  # at its end, after the changes of a population
    space = spec.search.space if spec.search and trial.split == "val" else ()
    return {name: values[name] for name in spec.axes} | rounded({n: values[n] for n in space})
