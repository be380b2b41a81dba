"""Recall against the steps of the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from diffgap.evaluation.metrics import METRICS
from diffgap.evaluation.statistics import Interval
from diffgap.report.figures.against import CellSeries, cells_of_series, series_against
from diffgap.report.figures.recall import averages, mean_recalls, plot_intervals, runs_of
from diffgap.report.figures.style import Drawing, faint_grid, mark, new_figure
from diffgap.report.results import setting_of
from diffgap.tracking.reader import LoggedSweep

FIELD = "score.sample_steps"
METRIC = METRICS["R1"]


class ScoreLine(NamedTuple):
    """A score's recall at each of its steps, rising; one that does not sample has none."""

    name: str
    steps: list[int]
    intervals: list[Interval]


def steps_figure(sweep: LoggedSweep) -> Drawing | None:
    """R@1 by score; None without finished trials that sample, or where steps are not varied."""
    if FIELD not in sweep.spec["axes"] or sweep.spec["search"]:
        return None
    series = series_against(sweep, FIELD)
    if not any(map(attrgetter("values"), series)):
        return None
    cells = cells_of_series(series)
    lines = recall_lines(series)
    return Drawing(
        f"steps-{sweep.name}",
        f"Denoising steps on {setting_of(sweep)}: {METRIC.title} (sweep {sweep.name})",
        f"Mean {averages(cells)}. Scores that do not sample are level lines, with their intervals "
        "at the right.",
        runs_of(cells),
        lambda: _figure(lines),
    )


def recall_lines(series: Sequence[CellSeries]) -> list[ScoreLine]:
    """What is drawn; of a score that does not sample, an interval a cell."""
    lines = []
    for one in series:
        steps, intervals = list(one.values), mean_recalls(one.cells, METRIC)
        if steps:
            by_step = sorted(zip(steps, intervals, strict=True), key=itemgetter(0))
            steps, intervals = map(list, zip(*by_step, strict=True))
        lines.append(ScoreLine(one.name, steps, intervals))
    return lines


def _figure(lines: Sequence[ScoreLine]) -> Any:
    figure = new_figure(2.6)
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    ticks = sorted(set(chain.from_iterable(line.steps for line in lines)))
    # Lines first, so that they lead the legend; then levels, further right one by one.
    for index, line in enumerate(lines):
        if line.steps:
            shift = 2 ** (0.03 * (index % 5 - 2))  # side by side, not one upon the other
            x = [step * shift for step in line.steps]
            plot_intervals(axes, x, line.intervals, index, line.name, ls=mark(index).line)
    beyond = float(ticks[-1])
    for index, line in enumerate(lines):
        if not line.steps:
            beyond *= 2**0.2
            level, style = line.intervals[:1], mark(index)
            axes.axhline(level[0].mean, color=style.colour, ls=style.line, lw=0.9)
            plot_intervals(axes, [beyond], level, index, line.name, ls=style.line)
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.set_xlabel("denoising steps (log scale)")
    axes.set_ylabel(f"{METRIC.title} (%)")
    faint_grid(axes)
    figure.legend(loc="outside right center")
    return figure
