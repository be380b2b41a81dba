"""What a search may choose from, as Optuna knows it."""

from __future__ import annotations

from typing import Any

from diffgap.errors import require
from diffgap.spec.sweep import Dimension


def distribution(dimension: Dimension) -> Any:
    """Optuna's distribution of one dimension."""
    distributions = require("optuna", "search", "a search").distributions
    if dimension.choices is not None:
        return distributions.CategoricalDistribution(dimension.choices)
    low, high = dimension.low, dimension.high
    if isinstance(low, int) and isinstance(high, int):
        return distributions.IntDistribution(low, high, log=dimension.log)
    return distributions.FloatDistribution(low, high, log=dimension.log)
