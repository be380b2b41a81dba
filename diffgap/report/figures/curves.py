"""Learning curves: recall on val while training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np

from diffgap.evaluation.metrics import METRICS
from diffgap.report.figures.against import describe
from diffgap.report.figures.style import Drawing, faint_grid, mark, new_figure, seed_range
from diffgap.report.results import ABLATION_TITLES, Cell, cell_names, read_cells, setting_of
from diffgap.sweep.objective import objective
from diffgap.tracking.reader import LoggedSweep, TrialRun

METRIC = METRICS["R5"]

DISTINCT = 8
"""Curves at most with a mark of their own: of more, the ones that end highest."""


@dataclass(frozen=True)
class LearningCurve:
    """One cell's recall on val."""

    name: str
    index: int  # among the sweep's cells, trained or not
    steps: np.ndarray  # (P,) of the optimiser
    values: np.ndarray  # (S, P) percent, mean of both directions, one row a seed
    runs: tuple[str, ...]


def curves_figure(sweep: LoggedSweep) -> Drawing | None:
    """R@5 on val against the step; None for searches, and without finished trials that train."""
    curves = [] if sweep.spec["search"] else learning_curves(sweep)
    if not curves:
        return None
    seeds = [len(curve.values) for curve in curves]
    caption = (
        "Mean of both directions on val, by the bridge's posterior mean, whatever the trial's own "
        f"score; {seed_range(seeds)} a line"
    )
    caption += ": their mean, and a band from the lowest to the highest." if max(seeds) > 1 else "."
    if len(curves) > DISTINCT:
        caption += f" The {DISTINCT} of {len(curves)} that end highest; the others are grey."
    return Drawing(
        f"curves-{sweep.name}",
        f"Learning curves on {setting_of(sweep).dataset}, val: {METRIC.title} (sweep {sweep.name})",
        caption,
        tuple(dict.fromkeys(chain.from_iterable(map(attrgetter("runs"), curves)))),
        lambda: _figure(curves),
    )


def learning_curves(sweep: LoggedSweep) -> list[LearningCurve]:
    """The curves of a sweep's cells; of cells that differ in their score alone, one."""
    cells: dict[str, Cell] = {}
    for cell in read_cells(sweep):
        if cell.seeds:
            # The score does not train: validation uses the posterior mean whatever it is.
            training = {**cell.trial.model_dump(mode="json"), "score": None, "seed": None}
            cells.setdefault(json.dumps(training, sort_keys=True), cell)
    names = _names(list(cells.values()), sweep)
    curves = []
    for index, (cell, name) in enumerate(zip(cells.values(), names, strict=True)):
        if curve := _curve(cell, name, index):
            curves.append(curve)
    return curves


def _names(cells: list[Cell], sweep: LoggedSweep) -> list[str]:
    """By method or cell where the sweep's table does so, else by the axes that training reads."""
    kind = sweep.spec["report"]["tables"][0]
    if kind != "axes":
        return cell_names(cells, kind)
    axes = [axis for axis in sweep.spec["axes"] if not axis.startswith("score.")]
    names = []
    for cell in cells:
        method = ABLATION_TITLES.get(cell.trial.ablation_cell or "", cell.trial.method)
        names.append(describe(cell, axes) or method)
    return names


def _curve(cell: Cell, name: str, index: int) -> LearningCurve | None:
    """A cell's curve at the steps that all its seeds have."""
    by_signature: dict[str, dict[int, float]] = {}
    for trial in cell.finished:
        if by_step := validations(trial):
            by_signature[trial.signature] = by_step
    curves = list(by_signature.values())
    steps = sorted(set(curves[0]).intersection(*curves)) if curves else []
    if not steps:
        return None
    values = np.array([list(map(curve.__getitem__, steps)) for curve in curves])
    return LearningCurve(name, index, np.array(steps), values, tuple(by_signature))


def validations(trial: TrialRun) -> dict[int, float]:
    """R@5 in percent by step, mean of both directions."""
    by_step = {}
    for point in trial.history:
        value = objective(point["metrics"], METRIC.name)
        if value is not None:
            by_step[int(point["step"])] = value
    return by_step


def _figure(curves: Sequence[LearningCurve]) -> Any:
    figure = new_figure(2.6)
    axes = figure.subplots()
    if len(curves) > DISTINCT:
        for curve in curves:
            axes.plot(curve.steps, curve.values.mean(0), color="#C8C8C8", lw=0.6, zorder=1)
        highest = sorted(curves, key=lambda c: float(c.values[:, -1].mean()), reverse=True)
        for order, curve in enumerate(sorted(highest[:DISTINCT], key=attrgetter("index"))):
            _plot(axes, curve, order)
    else:
        for curve in curves:
            _plot(axes, curve, curve.index)  # as in the other figures of the sweep
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel(f"val {METRIC.title} (%)")
    axes.set_xlim(left=0)
    faint_grid(axes)
    figure.legend(loc="outside right center")
    return figure


def _plot(axes: Any, curve: LearningCurve, index: int) -> None:
    """A curve with its mark, and its seeds' band."""
    style, means = mark(index), curve.values.mean(0)
    axes.plot(
        curve.steps, means, color=style.colour, marker=style.marker, linestyle=style.line,
        label=curve.name, markevery=max(1, len(means) // 8),
    )  # fmt: skip
    if len(curve.values) > 1:
        low, high = curve.values.min(0), curve.values.max(0)
        axes.fill_between(curve.steps, low, high, color=style.colour, alpha=0.15, linewidth=0)
