"""Bars of recall with intervals: the tables of cells that are methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.patheffects import withStroke

from diffgap.evaluation.statistics import Interval
from diffgap.report.figures.recall import BAND, CUTOFFS, cells_of, errors, runs_of
from diffgap.report.figures.style import Drawing, bare, mark, new_figure, seeds_told
from diffgap.report.results import Cell
from diffgap.report.tables.compare import Comparison
from diffgap.report.tables.recall import compare_recall, heading
from diffgap.report.tables.table import Table
from diffgap.tracking.reader import TrialRun

KINDS = ("ablation-", "methods-")
"""What the keys of tables that are drawn as bars begin with."""

SIDE_BY_SIDE = 4
"""Cells at most for which both directions stand side by side."""


def recall_bars(table: Table, trials: dict[str, TrialRun]) -> Drawing | None:
    """One group of bars a direction and cutoff; None for other tables, and without runs."""
    cells = cells_of(table, trials) if table.key.startswith(KINDS) else []
    if not cells:
        return None
    caption = (
        f"Mean over {seeds_told(cell.seeds for cell in cells)} of each; {BAND}. The bars stand in "
        "the order of the legend."
    )
    compared = compare_recall(cells, None)
    title = table.title.replace("in %", "with intervals")
    return Drawing(
        f"recall-{table.key}", title, caption, runs_of(cells), lambda: _figure(cells, compared)
    )


def heights(compared: Comparison, place: int, direction: str) -> list[Interval]:
    """R@K of one cell in one direction, K rising."""
    return [compared.estimates[place, heading(direction, f"R@{k}")].interval for k in CUTOFFS]


def _figure(cells: Sequence[Cell], compared: Comparison) -> Any:
    directions = list(cells[0].directions)
    beside = len(cells) <= SIDE_BY_SIDE
    shape = (1, len(directions)) if beside else (len(directions), 1)
    figure = new_figure(2.5 if beside else 2.05 * len(directions) + 0.5)
    panels = figure.subplots(*shape, sharey=beside, squeeze=False).flat
    for axes, direction in zip(panels, directions, strict=True):
        for place, cell in enumerate(cells):
            _bars(axes, place, len(cells), heights(compared, place, direction), cell.name)
        axes.set_xticks(range(len(CUTOFFS)), [f"R@{k}" for k in CUTOFFS])
        axes.set_xlabel(direction.replace("_to_", " → "))
        axes.set_ylabel("recall (%)")
        axes.tick_params(axis="x", length=0)
        bare(axes)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4)
    return figure


def _bars(axes: Any, place: int, cells: int, found: list[Interval], name: str) -> None:
    """The bars of one cell in all groups of a panel."""
    width, style = 0.84 / cells, mark(place)
    drawn = axes.bar(
        np.arange(len(found)) + (place - (cells - 1) / 2) * width,
        [interval.mean for interval in found],
        width * 0.92,
        yerr=errors(found),
        label=name,
        color=style.colour,
        hatch=style.hatch,
        edgecolor=style.edge,
        linewidth=0.4,
        error_kw={"elinewidth": 0.9, "capthick": 0.9},
    )
    halo = [withStroke(linewidth=2, foreground="white")]
    _, caps, lines = drawn.errorbar
    for line in (*caps, *lines):
        line.set_path_effects(halo)
