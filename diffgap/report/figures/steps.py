"""Recall against the steps of the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffgap.evaluation.statistics import Interval
from diffgap.report.figures.against import Series, series_against
from diffgap.report.figures.recall import BAND, errors, mean_recalls, runs_of
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

FIELD = "score.sample_steps"
CUTOFF = 1

Line = tuple[str, list[int], list[Interval]]
"""A series' name, its steps rising, and its recall at each."""


def steps_figure(sweep: LoggedSweep) -> Drawing | None:
    """R@1 by score; None without finished trials that sample, or where steps are not varied."""
    if FIELD not in sweep.spec["axes"] or sweep.spec["search"]:
        return None
    series = series_against(sweep, FIELD)
    cells = [cell for one in series for cell in one.cells]
    if not any(one.values for one in series):
        return None
    lines = recall_lines(series)
    caption = (
        f"Mean of both directions and of {seeds_told(c.seeds for c in cells)}; {BAND}. Scores "
        "that do not sample are level lines, with their intervals at the right."
    )
    return Drawing(
        f"steps-{sweep.name}",
        f"Denoising steps on {setting_of(sweep)}: R@1 (sweep {sweep.name})",
        caption,
        runs_of(cells),
        lambda: _figure(lines),
    )


def recall_lines(series: Sequence[Series]) -> list[Line]:
    """What is drawn; scores that do not sample have no steps, and one interval a cell."""
    intervals = iter(mean_recalls([cell for one in series for cell in one.cells], CUTOFF))
    found: list[Line] = []
    for one in series:
        own = [next(intervals) for _ in one.cells]
        order = sorted(range(len(one.values)), key=lambda place: one.values[place])
        steps = [one.values[place] for place in order]
        found.append((one.name, steps, [own[place] for place in order] if order else own))
    return found


def _figure(lines: Sequence[Line]) -> Any:
    figure = new_figure(2.6)
    axes = figure.subplots()
    levels = sum(not steps for _, steps, _ in lines)
    for place, (name, steps, found) in enumerate(lines):
        if steps:
            _line(axes, steps, found, place, name)
    ticks = sorted({step for _, steps, _ in lines for step in steps})
    axes.set_xscale("log", base=2)
    beyond = iter(ticks[-1] * 2 ** (0.2 * (1 + np.arange(levels))))
    for place, (name, steps, found) in enumerate(lines):
        if not steps:
            _level(axes, next(beyond), found[0], place, name)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("denoising steps (log scale)")
    axes.set_ylabel(recall_label(CUTOFF))
    bare(axes)
    figure.legend(loc="outside right center")
    return figure


def _line(axes: Any, steps: list[int], found: list[Interval], place: int, name: str) -> None:
    style = mark(place)
    axes.errorbar(
        [step * 2 ** (0.03 * (place % 5 - 2)) for step in steps],  # side by side
        [interval.mean for interval in found],
        yerr=errors(found),
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        elinewidth=0.9,
        label=name,
    )


def _level(axes: Any, at: float, found: Interval, place: int, name: str) -> None:
    """A level line, with its interval at one place."""
    style = mark(place)
    axes.axhline(found.mean, color=style.colour, linestyle=style.line, linewidth=0.9)
    axes.errorbar(
        [at],
        [found.mean],
        yerr=errors([found]),
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        elinewidth=0.9,
        label=name,
    )
