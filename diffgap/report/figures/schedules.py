"""Recall against noise schedules, by what the network predicts and how times are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffgap.evaluation.metrics import table_metrics
from diffgap.evaluation.statistics import Interval
from diffgap.report.figures.against import CellSeries, cells_of_series, series_against
from diffgap.report.figures.recall import OUTLINED, averages, mean_recalls, plot_intervals, runs_of
from diffgap.report.figures.style import Drawing, faint_grid, new_figure
from diffgap.report.results import setting_of
from diffgap.tracking.reader import LoggedSweep

FIELD = "cdm.schedule"
SAMPLER = "cdm.t_sampler.kind"
PREDICTION = "cdm.prediction"

Recalls = dict[tuple[str, str, str], dict[Any, Interval]]
"""By panel, series and metric such as ``R@5``: the recall with each schedule."""


def schedule_figure(sweep: LoggedSweep) -> Drawing | None:
    """R@K, mean of both directions; None without finished trials, or without schedules."""
    axes = sweep.spec["axes"]
    if FIELD not in axes or sweep.spec["search"]:
        return None
    split_by = [SAMPLER] if {SAMPLER, PREDICTION} <= set(axes) else []
    series = [one for one in series_against(sweep, FIELD, split_by) if one.values]
    if not series:
        return None
    cells = cells_of_series(series)
    recalls = recall_by_schedule(series)
    return Drawing(
        f"schedules-{sweep.name}",
        f"Noise schedules on {setting_of(sweep)}: recall (sweep {sweep.name})",
        f"Mean {averages(cells)}.",
        runs_of(cells),
        lambda: _figure(recalls, axes[FIELD]),
    )


def recall_by_schedule(series: Sequence[CellSeries]) -> Recalls:
    """What is drawn."""
    recalls: Recalls = {}
    for metric in table_metrics():
        for one in series:
            intervals = mean_recalls(one.cells, metric)
            by_schedule = dict(zip(one.values, intervals, strict=True))
            recalls[one.panel, one.name, metric.title] = by_schedule
    return recalls


def _figure(recalls: Recalls, schedules: Sequence[str]) -> Any:
    panels, names, metrics = map(list, map(dict.fromkeys, zip(*recalls, strict=True)))
    figure = new_figure(1.55 * len(panels) + 1.0)
    grid = figure.subplots(len(panels), len(metrics), sharex=True, sharey="col", squeeze=False)
    for row, panel in zip(grid, panels, strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            for index, name in enumerate(names):
                shift = 0.6 * ((index + 0.5) / len(names) - 0.5)
                # A series that a panel lacks is drawn empty: the legend is the first panel's.
                by_schedule = recalls.get((panel, name, metric), {})
                x = [schedules.index(schedule) + shift for schedule in by_schedule]
                intervals = list(by_schedule.values())
                plot_intervals(axes, x, intervals, index, name, **OUTLINED)
            axes.set_ylabel(f"{metric} (%)")
            faint_grid(axes)
        row[0].set_title(panel, loc="left")
    for axes in grid[-1]:
        axes.set_xticks(range(len(schedules)), schedules, rotation=40, ha="right")
        axes.set_xlim(-0.5, len(schedules) - 0.5)
        axes.set_xlabel("noise schedule")
    if names != [""]:  # one series needs no legend
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure
