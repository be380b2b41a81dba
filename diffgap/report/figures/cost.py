"""What cells are worth against what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffgap.evaluation.statistics import Interval
from diffgap.report.figures.recall import BAND, cells_of, errors, mean_recalls, runs_of
from diffgap.report.figures.style import (
    Drawing,
    bare,
    mark,
    new_figure,
    recall_label,
    seeds_told,
)
from diffgap.report.tables.table import Table
from diffgap.tracking.reader import TrialRun

KIND = "cost-"
"""What the keys of tables of costs begin with."""

DECADE = 10
"""From this ratio of the dearest to the cheapest on, costs are drawn on a log scale."""


@dataclass(frozen=True)
class Point:
    """A cell: device-seconds of training, 0 for one that is not trained, and its R@1."""

    name: str
    seconds: float
    recall: Interval


def cost_figure(table: Table, trials: dict[str, TrialRun]) -> Drawing | None:
    """R@1 against device seconds; None for other tables, and where nothing was trained."""
    if not table.key.startswith(KIND):
        return None
    found = cost_points(table, trials)
    if not any(point.seconds for point in found):
        return None
    cells = cells_of(table, trials)
    caption = (
        f"R@1: mean of both directions and of {seeds_told(c.seeds for c in cells)}; {BAND}. "
        "Seconds: mean over seeds, of training times workers. Level lines: not trained."
    )
    return Drawing(
        table.key, f"{table.title}: R@1", caption, runs_of(cells), lambda: _figure(found)
    )


def cost_points(table: Table, trials: dict[str, TrialRun]) -> list[Point]:
    """What is drawn; the seconds are the table's."""
    column = table.headings.index("device seconds")
    seconds = [row.values[column].number or 0.0 for row in table.ours if row.runs]
    cells = cells_of(table, trials)
    recalls = mean_recalls(cells, 1)
    return [
        Point(cell.name, cost, recall)
        for cell, cost, recall in zip(cells, seconds, recalls, strict=True)
    ]


def _figure(found: Sequence[Point]) -> Any:
    figure = new_figure(2.6)
    axes = figure.subplots()
    trained = [point.seconds for point in found if point.seconds]
    for place, point in enumerate(found):
        _draw(axes, point, place)
    wide = max(trained) >= DECADE * min(trained)
    axes.set_xscale("log" if wide else "linear")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("training (device seconds" + (", log scale)" if wide else ")"))
    axes.set_ylabel(recall_label(1))
    axes.margins(x=0.1)
    if not wide:
        axes.set_xlim(left=0)
    bare(axes)
    figure.legend(loc="outside right center")
    return figure


def _draw(axes: Any, point: Point, place: int) -> None:
    """A mark with its interval, or a level line for what is not trained."""
    style = mark(place)
    if not point.seconds:
        axes.axhline(
            point.recall.mean, color=style.colour, linestyle=style.line, linewidth=1,
            label=point.name,
        )  # fmt: skip
        return
    axes.errorbar(
        [point.seconds], [point.recall.mean], yerr=errors([point.recall]), fmt=style.marker,
        color=style.colour, markeredgecolor="black", markeredgewidth=0.4, markersize=6,
        elinewidth=0.9, label=point.name,
    )  # fmt: skip
