"""The CDM x BST ablation: what each part adds to the frozen embeddings, and how surely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffgap.evaluation.statistics import Interval, holm, mean_interval, paired_test
from diffgap.ledger import Ledger
from diffgap.report.results import Cell, read_cells

CUTOFFS = (1, 5, 10)
SIGNIFICANT = 0.05

NAMES = {
    "frozen": "frozen embeddings",
    "bst": "BST only",
    "cdm": "CDM only",
    "cdm+bst": "CDM + BST",
}


@dataclass(frozen=True)
class Figure:
    """One number of the table: R@K of a cell in one direction, in percent."""

    interval: Interval
    best: bool
    difference: float | None
    """Points above the frozen baseline; None for the baseline itself."""
    p: float | None
    """Of the paired test against it, Holm-corrected over the table."""

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True)
class Row:
    """One cell of the ablation."""

    name: str
    cell: Cell
    figures: dict[tuple[str, int], Figure]
    """By direction and cutoff; empty where nothing is finished."""


@dataclass(frozen=True)
class AblationTable:
    """The whole table, with what a reader must know of it."""

    title: str
    columns: tuple[tuple[str, int], ...]
    rows: tuple[Row, ...]
    baseline: str | None


def sweep_table(ledger: Ledger, name: str) -> AblationTable:
    """The table of a recorded sweep, finished or not; UserError where there is none."""
    sweep = ledger.sweep(name)
    return ablation_table(name, sweep.spec["store"], read_cells(ledger, sweep))


def ablation_table(sweep: str, store: str, cells: list[Cell]) -> AblationTable:
    """Means, intervals and tests of every cell.

    Intervals are 95 % bootstraps over queries nested in seeds; tests compare each cell with the
    frozen baseline, paired by query, and are Holm-corrected over the table.
    """
    done = [cell for cell in cells if cell.seeds]
    directions = list(done[0].directions) if done else []
    columns = tuple((direction, k) for direction in directions for k in CUTOFFS)
    baseline = next((cell for cell in done if cell.trial.cell == "frozen"), None)
    p_values = _p_values(done, baseline, columns)
    intervals = {
        (cell.name, column): mean_interval(*_hits(cell, column))
        for cell in done
        for column in columns
    }
    best = {column: max(intervals[cell.name, column].mean for cell in done) for column in columns}

    def figure(cell: Cell, column: tuple[str, int]) -> Figure:
        interval = intervals[cell.name, column]
        compared = p_values.get((cell.name, column))
        difference, p = compared if compared else (None, None)
        return Figure(interval, interval.mean == best[column], difference, p)

    rows = tuple(
        Row(_name(cell, cells), cell, {c: figure(cell, c) for c in columns if cell.seeds})
        for cell in cells
    )
    return AblationTable(
        title=f"CDM x BST on {store}: R@K in % (sweep {sweep})",
        columns=columns,
        rows=rows,
        baseline=_name(baseline, cells) if baseline else None,
    )


def _name(cell: Cell, cells: list[Cell]) -> str:
    """The cell's place in the 2 x 2; its axes too where the sweep has more of them."""
    name = NAMES[cell.trial.cell]
    alone = sum(other.trial.cell == cell.trial.cell for other in cells) == 1
    return name if alone else f"{name} ({cell.name})"


def _hits(cell: Cell, column: tuple[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """100 where a query's rank is within the cutoff, else 0, (S, Q); and the queries' clips."""
    direction, k = column
    found = cell.directions[direction]
    return np.where(found.ranks <= k, 100.0, 0.0), found.clips


def _p_values(
    cells: list[Cell], baseline: Cell | None, columns: tuple[tuple[str, int], ...]
) -> dict[tuple[str, tuple[str, int]], tuple[float, float]]:
    """Difference and corrected p of every figure but the baseline's own."""
    if baseline is None:
        return {}
    keys = [(cell, column) for cell in cells if cell is not baseline for column in columns]
    tests = []
    for cell, column in keys:
        hits, clips = _hits(cell, column)
        tests.append(paired_test(hits, _hits(baseline, column)[0], groups=clips))
    corrected = holm([test.p for test in tests])
    return {
        (cell.name, column): (test.difference, p)
        for (cell, column), test, p in zip(keys, tests, corrected, strict=True)
    }
