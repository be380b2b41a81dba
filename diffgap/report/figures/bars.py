"""Bars of recall with intervals: the tables of cells that are methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffgap.evaluation.metrics import table_metrics
from diffgap.evaluation.statistics import Interval, mean_interval
from diffgap.report.figures.recall import BAND, bar_data, cells_of, runs_of, seeds_of
from diffgap.report.figures.style import Drawing, faint_grid, mark, new_figure
from diffgap.report.results import Cell, RankedQueries
from diffgap.report.tables.table import Table
from diffgap.tracking.reader import TrialRun

KINDS = ("ablation-", "methods-")
"""Prefixes of the keys of tables that are drawn as bars."""

SIDE_BY_SIDE = 4
"""Cells at most for which both directions stand side by side."""


def recall_bars(table: Table, trials: dict[str, TrialRun]) -> Drawing | None:
    """One group of bars a direction and cutoff; None for other tables, and without runs."""
    cells = cells_of(table, trials) if table.key.startswith(KINDS) else []
    if not cells:
        return None
    seeds = seeds_of(cells)
    caption = f"Mean over {seeds} of each; {BAND}. The bars stand in the order of the legend."
    title = table.title.replace("in %", "with intervals")
    return Drawing(f"recall-{table.key}", title, caption, runs_of(cells), lambda: _figure(cells))


def heights(queries: RankedQueries) -> dict[str, Interval]:
    """The intervals of one cell in one direction, by metric such as ``R@5``."""
    intervals = {}
    for metric in table_metrics():
        intervals[metric.title] = mean_interval(queries.values(metric), queries.clips)
    return intervals


def _figure(cells: Sequence[Cell]) -> Any:
    directions = list(cells[0].directions)
    metrics = [metric.title for metric in table_metrics()]
    beside = len(cells) <= SIDE_BY_SIDE
    shape = (1, len(directions)) if beside else (len(directions), 1)
    figure = new_figure(2.5 if beside else 2.05 * len(directions) + 0.5)
    panels = figure.subplots(*shape, sharey=beside, squeeze=False).flat
    for axes, direction in zip(panels, directions, strict=True):
        for index, cell in enumerate(cells):
            intervals = heights(cell.directions[direction])
            _bars(axes, index, len(cells), list(intervals.values()), cell.name)
        axes.set_xticks(range(len(metrics)), metrics)
        axes.set_xlabel(direction.replace("_to_", " → "))
        axes.set_ylabel("recall (%)")
        faint_grid(axes)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4)
    return figure


def _bars(axes: Any, index: int, cells: int, intervals: list[Interval], name: str) -> None:
    """The bars of one cell in all groups of a panel."""
    from matplotlib.patheffects import withStroke

    width, style = 0.84 / cells, mark(index)
    means, errors = bar_data(intervals)
    bars = axes.bar(
        np.arange(len(means)) + (index - (cells - 1) / 2) * width, means, width * 0.92,
        yerr=errors, label=name, color=style.colour, hatch=style.hatch, edgecolor=style.edge,
        linewidth=0.4, error_kw={"elinewidth": 0.9, "capthick": 0.9},
    )  # fmt: skip
    halo = [withStroke(linewidth=2, foreground="white")]  # intervals are black, as some bars are
    _, caps, lines = bars.errorbar
    for line in (*caps, *lines):
        line.set_path_effects(halo)
