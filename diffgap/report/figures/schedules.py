"""Recall against noise schedules, by what the network predicts and how times are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffgap.evaluation.statistics import Interval
from diffgap.report.figures.against import Series, series_against
from diffgap.report.figures.recall import BAND, CUTOFFS, errors, mean_recalls, runs_of
from diffgap.report.figures.style import (
    Drawing,
    bare,
    mark,
    new_figure,
    recall_label,
    seeds_told,
)
from diffgap.report.results import setting_of
from diffgap.tracking.reader import LoggedSweep

FIELD = "cdm.schedule"
SAMPLER = "cdm.t_sampler.kind"
PREDICTION = "cdm.prediction"

Points = dict[tuple[str, str, int], dict[Any, Interval]]
"""By panel, series and cutoff: recall of each schedule."""


def schedule_figure(sweep: LoggedSweep) -> Drawing | None:
    """R@K, mean of both directions; None without finished trials, or without schedules."""
    axes = sweep.spec["axes"]
    if FIELD not in axes or sweep.spec["search"]:
        return None
    split_by = [SAMPLER] if {SAMPLER, PREDICTION} <= set(axes) else []
    series = [one for one in series_against(sweep, FIELD, split_by) if one.values]
    cells = [cell for one in series for cell in one.cells]
    if not cells:
        return None
    points = recall_points(series)
    caption = f"Mean of both directions and of {seeds_told(c.seeds for c in cells)}; {BAND}."
    return Drawing(
        f"schedules-{sweep.name}",
        f"Noise schedules on {setting_of(sweep)}: recall (sweep {sweep.name})",
        caption,
        runs_of(cells),
        lambda: _figure(points, axes[FIELD]),
    )


def recall_points(series: Sequence[Series]) -> Points:
    """What is drawn."""
    cells = [cell for one in series for cell in one.cells]
    found: Points = {}
    for cutoff in CUTOFFS:
        intervals = iter(mean_recalls(cells, cutoff))
        for one in series:
            found[one.panel, one.name, cutoff] = {v: next(intervals) for v in one.values}
    return found


def _figure(points: Points, schedules: Sequence[str]) -> Any:
    rows, names, _ = (list(dict.fromkeys(part)) for part in zip(*points, strict=True))
    figure = new_figure(1.55 * len(rows) + 1.0)
    grid = figure.subplots(len(rows), len(CUTOFFS), sharex=True, sharey="col", squeeze=False)
    for axes_of_row, row in zip(grid, rows, strict=True):
        for axes, cutoff in zip(axes_of_row, CUTOFFS, strict=True):
            for place, name in enumerate(names):
                shift = 0.6 * ((place + 0.5) / len(names) - 0.5)
                _points(axes, points.get((row, name, cutoff), {}), schedules, shift, place, name)
            axes.set_ylabel(recall_label(cutoff))
            bare(axes)
        axes_of_row[0].set_title(row, loc="left")
    for axes in grid[-1]:
        axes.set_xticks(range(len(schedules)), schedules, rotation=40, ha="right")
        axes.set_xlim(-0.5, len(schedules) - 0.5)
        axes.set_xlabel("noise schedule")
    if names != [""]:
        handles, told = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, told, loc="outside upper center", ncols=4)
    return figure


def _points(
    axes: Any,
    found: dict[Any, Interval],
    schedules: Sequence[str],
    shift: float,
    place: int,
    name: str,
) -> None:
    """One series in a panel, beside its schedules' ticks."""
    style = mark(place)
    axes.errorbar(
        [schedules.index(schedule) + shift for schedule in found],
        [interval.mean for interval in found.values()],
        yerr=errors(list(found.values())),
        fmt=style.marker,
        color=style.colour,
        markeredgecolor="black",
        markeredgewidth=0.4,
        elinewidth=0.9,
        label=name,
    )
