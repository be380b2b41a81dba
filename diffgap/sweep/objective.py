"""The objective by which a search compares trials."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean


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
