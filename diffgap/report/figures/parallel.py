"""Parallel coordinates of a search: every trial a line through its settings to its value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import filterfalse
from operator import attrgetter
from typing import Any

from diffgap.evaluation.metrics import METRICS
from diffgap.report.figures.style import GREY, Drawing, new_figure
from diffgap.report.results import setting_of
from diffgap.report.tables.search import searched, value_of, values_of
from diffgap.spec.sweep import Dimension
from diffgap.tracking.reader import LoggedSweep


@dataclass(frozen=True)
class Scale:
    """One vertical axis."""

    name: str
    low: float  # of categories, the first index
    high: float
    log: bool = False
    choices: tuple[Any, ...] = ()  # spaced evenly; empty for numbers

    def place(self, value: Any) -> float:
        """Where a value stands, 0 below and 1 above; the middle where all are the same."""
        number = self.choices.index(value) if self.choices else value
        ends = (self.low, number, self.high)
        low, at, high = map(math.log, ends) if self.log else ends
        return 0.5 if high == low else (at - low) / (high - low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and their labels."""
        if self.low == self.high and not self.choices:
            return [(0.5, f"{self.low:.4g}")]
        values = self.choices or (self.low, *self._inner, self.high)
        label = str if self.choices else "{:.3g}".format
        return list(zip(map(self.place, values), map(label, values), strict=True))

    @property
    def _inner(self) -> list[float]:
        """Round values between the ends, but for those whose labels would touch an end's."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        whole = isinstance(self.low, int) and isinstance(self.high, int)
        locator = LogLocator(subs=(1, 3), numticks=8) if self.log else MaxNLocator(4, integer=whole)
        values = []
        for value in map(float, locator.tick_values(self.low, self.high)):
            # Locators go beyond the ends, on a log scale down to 0, which has no place.
            if self.low < value < self.high and 0.1 < self.place(value) < 0.9:
                values.append(value)
        return values


@dataclass(frozen=True)
class TrialLine:
    """One trial: its place on every axis, the last one only where it has a value."""

    signature: str
    places: tuple[float, ...]
    value: float | None
    finished: bool


def parallel_figure(sweep: LoggedSweep) -> Drawing | None:
    """A search's trials; None without a search, or without finished trials."""
    if not sweep.spec["search"]:
        return None
    scales, lines = parallel_lines(sweep)
    finished = sum(map(attrgetter("finished"), lines))
    if not finished:
        return None
    caption = (
        f"{finished} finished trials, the darker the better on val (last axis: mean of both "
        "directions), the best one thick with dots"
    )
    if len(lines) > finished:
        caption += f"; thin and grey: {len(lines) - finished} that were stopped or failed"
    return Drawing(
        f"parallel-{sweep.name}",
        f"The search on {setting_of(sweep).dataset}, val (sweep {sweep.name})",
        f"{caption}.",
        tuple(map(attrgetter("signature"), lines)),
        lambda: _figure(scales, lines),
    )


def parallel_lines(sweep: LoggedSweep) -> tuple[list[Scale], list[TrialLine]]:
    """What is drawn: the axes, the value on val last, and the trials that are over."""
    metric = sweep.spec["search"]["metric"]
    trials = []
    for trial in sweep.trials:
        is_over = trial.is_complete or trial.status in ("KILLED", "FAILED")
        if is_over and not trial.final:
            trials.append(trial)
    values = [value_of(trial, metric) for trial in trials]
    numbers = [value for value in values if value is not None] or [0.0]
    objective = Scale(f"val {METRICS[metric].title} (%)", min(numbers), max(numbers))
    scales = [_scale(sweep, field) for field in searched(sweep) if field != "seed"]
    lines = []
    for trial, value in zip(trials, values, strict=True):
        settings = values_of(trial)
        places = [scale.place(settings[scale.name]) for scale in scales]
        if value is not None:  # one that failed at once has none
            places.append(objective.place(value))
        lines.append(TrialLine(trial.signature, tuple(places), value, trial.is_complete))
    return [*scales, objective], lines


def _scale(sweep: LoggedSweep, field: str) -> Scale:
    """The axis of a field, as the search's space or the sweep's axes have it."""
    space = sweep.spec["search"]["space"]
    dimension = Dimension(**space[field]) if field in space else None
    choices = dimension.choices if dimension else sweep.spec["axes"][field]
    if choices is not None:
        return Scale(field, 0, len(choices) - 1, choices=tuple(choices))
    assert dimension is not None  # an axis has choices
    assert dimension.low is not None  # and so has a dimension that is no range
    assert dimension.high is not None
    return Scale(field, dimension.low, dimension.high, dimension.log)


def _figure(scales: Sequence[Scale], lines: Sequence[TrialLine]) -> Any:
    figure = new_figure(2.9)
    axes = figure.subplots()
    axes.spines[:].set_visible(False)
    for at, scale in enumerate(scales):
        _axis(axes, at, scale)
    _lines(axes, lines)
    names = [scale.name.replace(".", ".\n") + "\n(log)" * scale.log for scale in scales]
    axes.set_xticks(range(len(scales)), names)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, pad=6)
    axes.set_xlim(-0.35, len(scales) - 0.9)
    axes.set_ylim(-0.05, 1.05)
    return figure


def _axis(axes: Any, at: int, scale: Scale) -> None:
    """A vertical axis with its ticks, readable over the lines."""
    axes.axvline(at, color="black", linewidth=0.8, zorder=1)
    paper = {"facecolor": "white", "alpha": 0.9, "linewidth": 0, "pad": 0.6}
    for place, text in scale.ticks:
        axes.plot([at - 0.02, at], [place, place], color="black", linewidth=0.8, zorder=1)
        style = {"ha": "right", "va": "center", "fontsize": 7, "zorder": 4, "bbox": paper}
        axes.text(at - 0.035, place, text, **style)


def _lines(axes: Any, lines: Sequence[TrialLine]) -> None:
    """Stopped trials below, then finished ones, the better the later."""
    import matplotlib

    colours = matplotlib.colormaps["viridis_r"]
    finished = sorted(filter(attrgetter("finished"), lines), key=lambda line: line.value or 0.0)
    for line in filterfalse(attrgetter("finished"), lines):
        axes.plot(line.places, color=GREY, linewidth=0.5, alpha=0.8, zorder=2)
    for line in finished:
        is_best = line is finished[-1]
        axes.plot(
            line.places, color=colours(0.12 + 0.88 * line.places[-1]), zorder=3,
            linewidth=2.4 if is_best else 1.1, marker="o" if is_best else None, clip_on=False,
        )  # fmt: skip
