"""Recall of cells against the cost of their training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from diffgap.evaluation.metrics import METRICS
from diffgap.evaluation.statistics import Interval
from diffgap.report.figures.recall import (
    OUTLINED,
    averages,
    cells_of,
    mean_recalls,
    plot_intervals,
    runs_of,
)
from diffgap.report.figures.style import Drawing, faint_grid, mark, new_figure
from diffgap.report.tables.table import Table
from diffgap.tracking.reader import TrialRun

KIND = "cost-"
"""Prefix of the keys of tables of costs."""

METRIC = METRICS["R1"]

DECADE = 10
"""Ratio of the highest to the lowest cost from which on the scale is logarithmic."""


@dataclass(frozen=True)
class CostPoint:
    """A cell: device-seconds of training, 0 for one that is not trained, and its R@1."""

    name: str
    seconds: float
    recall: Interval


def cost_figure(table: Table, trials: dict[str, TrialRun]) -> Drawing | None:
    """R@1 against device seconds; None for other tables, and where nothing was trained."""
    if not table.key.startswith(KIND):
        return None
    points = cost_points(table, trials)
    if not any(map(attrgetter("seconds"), points)):
        return None
    cells = cells_of(table, trials)
    caption = (
        f"{METRIC.title}: mean {averages(cells)}. Seconds: mean over seeds, of training times "
        "workers. Level lines: not trained."
    )
    title = f"{table.title}: {METRIC.title}"
    return Drawing(table.key, title, caption, runs_of(cells), lambda: _figure(points))


def cost_points(table: Table, trials: dict[str, TrialRun]) -> list[CostPoint]:
    """What is drawn; the seconds are the table's."""
    cells = cells_of(table, trials)
    if not cells:
        return []
    column = table.headings.index("device seconds")
    rows = filter(attrgetter("runs"), table.ours)  # those that have a cell
    points = []
    for row, recall in zip(rows, mean_recalls(cells, METRIC), strict=True):
        points.append(CostPoint(row.name, row.values[column].number or 0.0, recall))
    return points


def _figure(points: Sequence[CostPoint]) -> Any:
    figure = new_figure(2.6)
    axes = figure.subplots()
    for index, point in enumerate(points):
        if point.seconds:
            x, style = [point.seconds], {**OUTLINED, "markersize": 6}
            plot_intervals(axes, x, [point.recall], index, point.name, **style)
        else:
            colour, line = mark(index).colour, mark(index).line
            axes.axhline(point.recall.mean, color=colour, ls=line, lw=1, label=point.name)
    seconds = list(filter(None, map(attrgetter("seconds"), points)))
    wide = max(seconds) >= DECADE * min(seconds)
    axes.set_xscale("log" if wide else "linear")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("training (device seconds" + (", log scale)" if wide else ")"))
    axes.set_ylabel(f"{METRIC.title} (%)")
    axes.margins(x=0.1)
    if not wide:
        axes.set_xlim(left=0)
    faint_grid(axes)
    figure.legend(loc="outside right center")
    return figure
