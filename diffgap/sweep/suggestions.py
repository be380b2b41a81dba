"""Suggested trials: their labels, and the objective by which a search compares them."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from diffgap.spec import Trial
from diffgap.sweep.plan import label


def objective(metrics: Mapping[str, float], metric: str) -> float:
    """A metric such as R5 on val, mean of both directions, in percent."""
    values = [
        value
        for name, value in metrics.items()
        if name.startswith("val/") and name.endswith(f"/{metric}")
    ]
    assert len(values) == 2, f"val metrics of two directions, not {sorted(metrics)}"
    return mean(values)


def is_validation(metrics: Mapping[str, float]) -> bool:
    """Whether these are metrics of a validation; other points have the training loss alone."""
    return any(name.startswith("val/") for name in metrics)


def suggestion_label(point: Mapping[str, Any], values: Mapping[str, Any], trial: Trial) -> str:
    """A suggested trial as people read it: its point of the axes, then its values to 3 digits."""
    rounded = dict(values)
    for name, value in values.items():
        if isinstance(value, float):
            rounded[name] = float(f"{value:.3g}")
    return label({**point, **rounded}, trial)
