"""Learning curves: recall on val while training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from diffgap.report.figures.against import said
from diffgap.report.figures.style import (
    Drawing,
    bare,
    mark,
    new_figure,
    recall_label,
    seeds_told,
)
from diffgap.report.results import ABLATION_TITLES, Cell, cell_names, read_cells, setting_of
from diffgap.report.tables.search import mean_objective
from diffgap.tracking.reader import LoggedSweep, TrialRun

CUTOFF = 5

TOLD_APART = 8
"""Curves at most that have a mark of their own: of more, the ones that end highest."""

FAINT = "#C8C8C8"
"""Of the others."""


@dataclass(frozen=True)
class Curve:
    """One cell's recall on val.

    Attributes:
        name: of the cell.
        place: among the sweep's cells, trained or not.
        steps: (P,) optimiser steps.
        values: (S, P) percent, mean of both directions, one row a seed.
        runs: the trials.
    """

    name: str
    place: int
    steps: np.ndarray
    values: np.ndarray
    runs: tuple[str, ...]

    @property
    def end(self) -> float:
        return float(self.values[:, -1].mean())


def curves_figure(sweep: LoggedSweep) -> Drawing | None:
    """R@5 on val against the step; None for searches, and without finished trials that train."""
    curves = [] if sweep.spec["search"] else learning_curves(sweep)
    if not curves:
        return None
    caption = (
        "Mean of both directions on val, by the bridge's posterior mean, whatever the trial's own "
        f"score; {seeds_told(len(curve.values) for curve in curves)} a line"
    )
    several = any(len(curve.values) > 1 for curve in curves)
    caption += ": their mean, and a band from the lowest to the highest." if several else "."
    if len(curves) > TOLD_APART:
        caption += f" The {TOLD_APART} of {len(curves)} that end highest; the others are grey."
    return Drawing(
        f"curves-{sweep.name}",
        f"Learning curves on {setting_of(sweep).dataset}, val: R@5 (sweep {sweep.name})",
        caption,
        tuple(dict.fromkeys(run for curve in curves for run in curve.runs)),
        lambda: _figure(curves),
    )


def learning_curves(sweep: LoggedSweep) -> list[Curve]:
    """The curves of a sweep's cells; of cells that differ in their score alone, one."""
    cells: dict[str, Cell] = {}
    for cell in read_cells(sweep):
        if cell.seeds:
            training = {**cell.trial.model_dump(mode="json"), "score": None, "seed": None}
            cells.setdefault(json.dumps(training, sort_keys=True), cell)
    names = _names(list(cells.values()), sweep)
    found = [_curve(*one) for one in zip(cells.values(), names, count(), strict=False)]
    return [curve for curve in found if curve is not None]


def _names(cells: list[Cell], sweep: LoggedSweep) -> list[str]:
    """By method or cell where the sweep's table does so, else by the axes that training reads."""
    kind = sweep.spec["report"]["tables"][0]
    if kind != "axes":
        return cell_names(cells, kind)
    axes = [axis for axis in sweep.spec["axes"] if not axis.startswith("score.")]
    return [
        said(cell, axes) or ABLATION_TITLES.get(cell.trial.ablation_cell or "", cell.trial.method)
        for cell in cells
    ]


def _curve(cell: Cell, name: str, place: int) -> Curve | None:
    """A cell's curve at the steps that all its seeds have."""
    points = {t.signature: found for t in cell.finished if (found := validations(t))}
    shared = sorted(set.intersection(*map(set, points.values()))) if points else []
    if not shared:
        return None
    values = np.array([[found[step] for step in shared] for found in points.values()])
    return Curve(name, place, np.array(shared), values, tuple(points))


def validations(trial: TrialRun) -> dict[int, float]:
    """R@5 in percent by step, mean of both directions."""
    found = {}
    for point in trial.history:
        value = mean_objective(point["metrics"], f"R{CUTOFF}")
        if value is not None:
            found[int(point["step"])] = value
    return found


def _figure(curves: Sequence[Curve]) -> Any:
    figure = new_figure(2.6)
    axes = figure.subplots()
    if len(curves) > TOLD_APART:
        for curve in curves:
            axes.plot(curve.steps, curve.values.mean(0), color=FAINT, linewidth=0.6, zorder=1)
        places = sorted(range(len(curves)), key=lambda place: -curves[place].end)[:TOLD_APART]
        for order, place in enumerate(sorted(places)):
            _draw(axes, curves[place], order)
    else:
        for curve in curves:
            _draw(axes, curve, curve.place)
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel(recall_label(CUTOFF, "val "))
    axes.set_xlim(left=0)
    bare(axes)
    figure.legend(loc="outside right center")
    return figure


def _draw(axes: Any, curve: Curve, place: int) -> None:
    """A curve with its mark, and its seeds' band."""
    style, means = mark(place), curve.values.mean(0)
    axes.plot(
        curve.steps, means, color=style.colour, marker=style.marker, linestyle=style.line,
        label=curve.name, markevery=max(1, len(means) // 8),
    )  # fmt: skip
    if len(curve.values) > 1:
        low, high = curve.values.min(0), curve.values.max(0)
        axes.fill_between(curve.steps, low, high, color=style.colour, alpha=0.15, linewidth=0)
