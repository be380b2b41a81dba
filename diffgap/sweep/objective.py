"""The objective by which a search compares trials."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from diffgap.ledger.ledger import TrialRecord


def objective(metrics: Mapping[str, float], metric: str) -> float | None:
    """A metric such as R5 on val, mean of both directions; None of a point without validation."""
    values = [v for n, v in metrics.items() if n.startswith("val/") and n.endswith(f"/{metric}")]
    return mean(values) if values else None


def final_objective(record: TrialRecord, metric: str) -> float:
    """The objective of a finished trial."""
    value = objective(record.metrics(), metric)
    assert value is not None, f"{record.path.name} has no val/.../{metric}"
    return value
