"""The modality gap before and after a bridge: both clouds in the plane, and pairs' cosines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffgap.ledger.artifacts import EXPLAINED, GAP_SAMPLE
from diffgap.report.figures.style import Drawing, bare, mark, new_figure
from diffgap.report.results import read_cells, setting_of
from diffgap.report.tables.registry import compares_methods
from diffgap.spec import Trial
from diffgap.store.schema import split_task
from diffgap.tracking.reader import LoggedSweep, TrialRun

WHEN = ("before", "after")
SIDES = (mark(3), mark(4))
"""Of x and of a."""
TIMES = (mark(0), mark(5))
"""Of before and of after."""

ABOVE: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1.03, 0.98),
    "ncols": 2,
    "handlelength": 1.4,
    "columnspacing": 1.0,
    "handletextpad": 0.4,
}
"""A legend over its panel's right end, where it hides no point."""


def gap_figure(sweep: LoggedSweep) -> Drawing | None:
    """The gap in the trained trial that was best on val; None where no trial has sampled it."""
    if not compares_methods(sweep):
        return None
    best = best_bridge(sweep)
    if best is None:
        return None
    table = pq.read_table(_sample(best))
    modalities = split_task(sweep.spec["task"])
    caption = (
        f"{best.label}: the trial that was best on val ({best.signature}); {len(table)} pairs. "
        f"Left and middle: {modalities[0]} and {modalities[1]} embeddings on the first two "
        "principal components of both clouds together, lines join pairs; before and after have "
        "components of their own. Right: cosines of the same pairs."
    )
    return Drawing(
        f"gap-{sweep.name}",
        f"The modality gap on {setting_of(sweep)}, before and after the bridge "
        f"(sweep {sweep.name})",
        caption,
        (best.signature,),
        lambda: _figure(table, modalities),
    )


def best_bridge(sweep: LoggedSweep) -> TrialRun | None:
    """The finished trial that was best on val while training, of those with both samples."""
    found = [
        trial
        for cell in read_cells(sweep)
        for trial in cell.finished
        if Trial.model_validate(trial.trial).trains and _has_after(trial)
    ]
    return max(found, key=lambda t: t.metrics.get("best/val_R5", -math.inf), default=None)


def _sample(trial: TrialRun) -> Path:
    assert trial.files is not None  # it counts
    return trial.files / GAP_SAMPLE


def _has_after(trial: TrialRun) -> bool:
    path = _sample(trial)
    return path.is_file() and "after_cosine" in pq.read_schema(path).names


def points(table: pa.Table, when: str) -> np.ndarray:
    """(2, N, 2): coordinates of x and of a."""
    names = [[f"{when}_{side}_{i}" for i in (1, 2)] for side in "xa"]
    return np.array([[table[name].to_numpy() for name in side] for side in names]).swapaxes(1, 2)


def _figure(table: pa.Table, modalities: tuple[str, str]) -> Any:
    figure = new_figure(2.5)
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
    explained = json.loads(table.schema.metadata[EXPLAINED.encode()])
    for axes, when in zip(panels, WHEN, strict=False):
        _clouds(axes, points(table, when), modalities)
        axes.set_title(when, loc="left")
        axes.set_xlabel(f"component 1 ({100 * explained[when][0]:.0f} % of variance)")
        axes.set_ylabel(f"component 2 ({100 * explained[when][1]:.0f} %)")
    panels[0].legend(**ABOVE)
    _cosines(panels[2], {when: table[f"{when}_cosine"].to_numpy() for when in WHEN})
    return figure


def _clouds(axes: Any, clouds: np.ndarray, modalities: tuple[str, str]) -> None:
    """Both clouds of (2, N, 2) points, to scale, with lines between pairs."""
    from matplotlib.collections import LineCollection

    axes.add_collection(
        LineCollection(list(clouds.swapaxes(0, 1)), colors="#999999", linewidths=0.3, alpha=0.5)
    )
    for cloud, style, name in zip(clouds, SIDES, modalities, strict=True):
        axes.scatter(
            *cloud.T, s=9, marker=style.marker, color=style.colour, label=name,
            edgecolors="white", linewidths=0.25, zorder=2,
        )  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    axes.tick_params(length=2.5, width=0.7)


def _cosines(axes: Any, cosines: dict[str, np.ndarray]) -> None:
    both = np.concatenate(list(cosines.values()))
    edges = np.linspace(both.min(), max(both.max(), both.min() + 1e-6), 31)
    for (when, found), style in zip(cosines.items(), TIMES, strict=True):
        axes.hist(found, edges, color=style.colour, alpha=0.25, linewidth=0)
        axes.hist(
            found, edges, histtype="step", color=style.colour, label=when,
            linestyle="--" if when == "before" else "-", linewidth=1.2,
        )  # fmt: skip
    axes.set_xlabel("cosine of a pair")
    axes.set_ylabel("pairs")
    axes.legend(**ABOVE)
    bare(axes)
