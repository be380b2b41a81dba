"""Modality gap before and after a bridge: both clouds in the plane, and the pairs' cosines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffgap.ledger.artifacts import EXPLAINED, GAP_SAMPLE
from diffgap.report.figures.style import Drawing, faint_grid, mark, new_figure
from diffgap.report.results import read_cells, setting_of
from diffgap.report.tables.registry import compares_methods
from diffgap.store.schema import split_task
from diffgap.tracking.reader import LoggedSweep, TrialRun

WHEN = ("before", "after")

SIDES = (mark(3), mark(4))
"""Of x and of a."""

ABOVE: dict[str, Any] = {
    "loc": "lower right", "bbox_to_anchor": (1.03, 0.98), "ncols": 2,
    "handlelength": 1.4, "columnspacing": 1.0, "handletextpad": 0.4,
}  # fmt: skip
"""A legend over its panel's right end, where it covers no point."""


def gap_figure(sweep: LoggedSweep) -> Drawing | None:
    """The gap of the trained trial that was best on val; None where no trial has a sample of it."""
    best = best_bridge(sweep) if compares_methods(sweep) else None
    if best is None:
        return None
    table, setting = pq.read_table(_sample(best)), setting_of(sweep)
    modalities = split_task(sweep.spec["task"])
    caption = (
        f"{best.label}: the trial that was best on val ({best.signature}); {len(table)} pairs. "
        f"Left and middle: {modalities[0]} and {modalities[1]} embeddings on the first two "
        "principal components of both clouds together, lines join pairs; before and after have "
        "components of their own. Right: cosines of the same pairs."
    )
    return Drawing(
        f"gap-{sweep.name}",
        f"The modality gap on {setting}, before and after the bridge (sweep {sweep.name})",
        caption,
        (best.signature,),
        lambda: _figure(table, modalities),
    )


def best_bridge(sweep: LoggedSweep) -> TrialRun | None:
    """The finished trial that was best on val while training, of those with both samples."""
    candidates = []
    for cell in read_cells(sweep):
        if cell.trial.trains:
            candidates += [trial for trial in cell.finished if _has_after(trial)]
    return max(candidates, key=lambda t: t.metrics.get("best/val_R5", -math.inf), default=None)


def _sample(trial: TrialRun) -> Path:
    assert trial.files is not None  # a complete trial has files
    return trial.files / GAP_SAMPLE


def _has_after(trial: TrialRun) -> bool:
    """False for a bridge that moves nothing, and for trials of versions without the sample."""
    path = _sample(trial)
    return path.is_file() and "after_cosine" in pq.read_schema(path).names


def points(table: pa.Table, when: str) -> np.ndarray:
    """(2, N, 2): coordinates of x and of a."""
    clouds = []
    for side in "xa":
        first, second = table[f"{when}_{side}_1"], table[f"{when}_{side}_2"]
        clouds.append(np.column_stack([first.to_numpy(), second.to_numpy()]))
    return np.stack(clouds)


def _figure(table: pa.Table, modalities: tuple[str, str]) -> Any:
    figure = new_figure(2.5)
    *planes, histogram = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
    explained = json.loads(table.schema.metadata[EXPLAINED.encode()])
    for axes, when in zip(planes, WHEN, strict=True):
        first, second = explained[when]
        _clouds(axes, points(table, when), modalities)
        axes.set_title(when, loc="left")
        axes.set_xlabel(f"component 1 ({100 * first:.0f} % of variance)")
        axes.set_ylabel(f"component 2 ({100 * second:.0f} %)")
    planes[0].legend(**ABOVE)
    _cosines(histogram, table["before_cosine"].to_numpy(), table["after_cosine"].to_numpy())
    return figure


def _clouds(axes: Any, clouds: np.ndarray, modalities: tuple[str, str]) -> None:
    """Both clouds of (2, N, 2) points, to scale, with lines between pairs."""
    from matplotlib.collections import LineCollection

    pairs = list(clouds.swapaxes(0, 1))
    axes.add_collection(LineCollection(pairs, colors="#999999", linewidths=0.3, alpha=0.5))
    for cloud, style, name in zip(clouds, SIDES, modalities, strict=True):
        axes.scatter(
            *cloud.T, s=9, marker=style.marker, color=style.colour, label=name,
            edgecolors="white", linewidths=0.25, zorder=2,
        )  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    axes.tick_params(length=2.5, width=0.7)


def _cosines(axes: Any, before: np.ndarray, after: np.ndarray) -> None:
    """Histograms of both on the same bins."""
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    edges = np.linspace(low, max(high, low + 1e-6), 31)  # all may be equal
    styles = (mark(0).colour, "--"), (mark(5).colour, "-")
    for cosines, (colour, line), when in zip((before, after), styles, WHEN, strict=True):
        axes.hist(cosines, edges, color=colour, alpha=0.25, lw=0)
        axes.hist(cosines, edges, histtype="step", color=colour, ls=line, label=when, lw=1.2)
    axes.set_xlabel("cosine of a pair")
    axes.set_ylabel("pairs")
    axes.legend(**ABOVE)
    faint_grid(axes)
