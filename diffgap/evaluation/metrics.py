"""Registries of the metrics of retrieval and of generated audio.

Free of torch, so that a report can read them at once. To add a metric of retrieval, add an entry to
`METRICS`: finished trials then log it, and `diffgap evaluate` prints it. With ``in_tables=True`` it
is in the report's tables too, of old trials as well: these are made from ``ranks.parquet``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class MetricInfo:
    """One metric of the queries of one direction.

    Attributes:
        name: in ``metrics.json`` and MLflow, such as ``R5``: MLflow refuses an @.
        title: in tables and figures, such as ``R@5``.
        of_ranks: each query's value, elementwise, from its rank (int64, counted from 1).
        column: of ``ranks.parquet`` that `of_ranks` takes; ``ap10`` is float32 from 0 to 1.
        average: how the queries' values become one number.
        unit: of that number. For %, values lie between 0 and 1, and higher is better; of ranks,
            lower is.
        in_tables: whether the report's tables compare it, with intervals and paired tests; these
            are for means in %.
    """

    name: str
    title: str
    of_ranks: Callable[[np.ndarray], np.ndarray]
    column: Literal["rank", "ap10"] = "rank"
    average: Literal["mean", "median"] = "mean"
    unit: Literal["%", "ranks"] = "%"
    in_tables: bool = False

    def __post_init__(self) -> None:
        if self.in_tables and (self.unit, self.average) != ("%", "mean"):
            raise ValueError(f"{self.name}: only a mean in % can be a column of the tables")


def _recall(cutoff: int) -> MetricInfo:
    """R@K: the share of queries whose best relevant item is among the first K."""
    return MetricInfo(f"R{cutoff}", f"R@{cutoff}", lambda rank: rank <= cutoff, in_tables=True)


METRICS: dict[str, MetricInfo] = {
    metric.name: metric
    for metric in (
        _recall(1),
        _recall(5),
        _recall(10),
        MetricInfo("MedR", "MedR", np.asarray, average="median", unit="ranks"),
        MetricInfo("mAP10", "mAP@10", np.asarray, column="ap10"),
    )
}
"""By name, in the order of tables. Read it when it is needed: constants made from it go stale."""


def table_metrics() -> list[MetricInfo]:
    """The columns of the report's retrieval tables, in each direction."""
    return [metric for metric in METRICS.values() if metric.in_tables]


def is_metric(heading: str) -> bool:
    """Whether a column is of a metric, with its direction or without: ``text->audio R@5``."""
    return heading.rpartition(" ")[2] in map(attrgetter("title"), METRICS.values())


@dataclass(frozen=True)
class AudioMetricInfo:
    """One metric of generated audio, as `audio_metrics.measure` computes it."""

    name: str  # in MLflow after test/generation/, and in tables
    lowest: float  # what it can be at least
    lower_is_better: bool = False


AUDIO_METRICS: dict[str, AudioMetricInfo] = {
    metric.name: metric
    for metric in (
        AudioMetricInfo("FAD", 0.0, lower_is_better=True),
        AudioMetricInfo("FD", 0.0, lower_is_better=True),
        AudioMetricInfo("KL", 0.0, lower_is_better=True),
        AudioMetricInfo("IS", 1.0),
        AudioMetricInfo("similarity", -1.0),
        AudioMetricInfo("fidelity", -1.0),
        AudioMetricInfo("AlignAcc", 0.0),
    )
}
"""By name, in the order of tables."""
