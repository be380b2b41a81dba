"""Figures of a report, drawn from what MLflow has, each as SVG and PNG.

To add a figure, write a module with a function like those below and name it here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diffgap.report.figures.bars import recall_bars
from diffgap.report.figures.cost import cost_figure
from diffgap.report.figures.curves import curves_figure
from diffgap.report.figures.gap import gap_figure
from diffgap.report.figures.parallel import parallel_figure
from diffgap.report.figures.recall import trials_of
from diffgap.report.figures.schedules import schedule_figure
from diffgap.report.figures.steps import steps_figure
from diffgap.report.figures.style import Drawing, Picture
from diffgap.report.tables.table import Table
from diffgap.tracking.reader import LoggedSweep

TABLE_FIGURES = (recall_bars, cost_figure)
SWEEP_FIGURES = (schedule_figure, steps_figure, gap_figure, curves_figure, parallel_figure)


def draw(sweeps: Sequence[LoggedSweep], tables: Sequence[Table]) -> list[Picture]:
    """All figures that there are runs for: those of the tables of these sweeps first."""
    return [drawing.picture() for drawing in drawings(sweeps, tables)]


def drawings(sweeps: Sequence[LoggedSweep], tables: Sequence[Table]) -> Iterator[Drawing]:
    """The figures of `draw`, not drawn yet."""
    trials = trials_of(sweeps)
    for table in tables:
        for of_table in TABLE_FIGURES:
            if drawing := of_table(table, trials):
                yield drawing
    for sweep in sweeps:
        for of_sweep in SWEEP_FIGURES:
            if drawing := of_sweep(sweep):
                yield drawing
