"""Recall of every cell of a sweep, and how surely it differs from the frozen embeddings.

One table in three dresses: `ablation` (the cells of CDM x BST), `methods` (the siblings, with the
gap and the cost beside the figures) and `axes` (whatever the sweep crosses).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import mean

import numpy as np

from diffgap.errors import UserError, nearest
from diffgap.evaluation.statistics import Interval, holm, mean_interval, paired_test
from diffgap.ledger import Ledger
from diffgap.report.results import Cell, read_cells
from diffgap.secrets import redact

CUTOFFS = (1, 5, 10)
SIGNIFICANT = 0.05

TITLES = {"ablation": "CDM x BST", "methods": "Methods", "axes": "Sweep"}

NAMES = {
    "frozen": "frozen embeddings",
    "bst": "BST only",
    "cdm": "CDM only",
    "cdm+bst": "CDM + BST",
}

METHOD_NAMES = {
    "none": "frozen embeddings",
    "center": "center",
    "mean_shift": "mean shift",
    "close": "C3 (close)",
    "deterministic": "deterministic bridge",
    "diffusion_bridge": "Diffusion-Bridge",
    "diffusion_link": "Diffusion-Link",
    "diffgap": "DiffGAP",
}

FACTS = {
    "gap before": "gap/before/mean_distance",
    "gap after": "gap/after/mean_distance",
    "pairs' cosine before": "gap/before/paired_cosine",
    "pairs' cosine after": "gap/after/paired_cosine",
    "training s": "cost/train_seconds",
}
"""Further columns of the methods' table, means over seeds: distance of the modality means, mean
cosine of pairs, and what training took."""


Column = tuple[str, int]
"""A direction such as ``text_to_audio``, and a cutoff."""


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
    figures: dict[Column, Figure]
    """By direction and cutoff; empty where nothing is finished."""
    facts: dict[str, float | None] = field(default_factory=dict)
    """Further columns, by heading; None where a method has no such thing."""


@dataclass(frozen=True)
class RecallTable:
    """The whole table, with what a reader must know of it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    baseline: str | None


def recall_table(ledger: Ledger, name: str, kind: str, against: str | None = None) -> RecallTable:
    """A table of a recorded sweep, finished or not.

    Intervals are 95 % bootstraps over queries nested in seeds; tests compare each cell with the
    baseline, paired by query, and are Holm-corrected over the table.

    Args:
        ledger: where the sweep is.
        name: the sweep's.
        kind: a key of `TITLES`.
        against: the row that others are tested against; default the frozen embeddings.

    Raises:
        UserError: where there is no such sweep or row.
    """
    sweep = ledger.sweep(name)
    if sweep.spec["search"]:  # its winners; the others never saw this split
        finals = [entry for entry in sweep.trials if entry.get("final")]
        sweep = replace(sweep, trials=finals)
    cells = read_cells(ledger, sweep)
    done = [cell for cell in cells if cell.seeds]
    baseline = _baseline(done, {_name(cell, cells, kind): cell for cell in cells}, against)
    columns, figures = _figures(done, baseline)
    rows = tuple(
        Row(
            _name(cell, cells, kind),
            cell,
            figures.get(cell.name, {}),
            _facts(cell) if kind == "methods" else {},
        )
        for cell in cells
    )
    spec = sweep.spec
    return RecallTable(
        title=f"{TITLES[kind]} on {redact(spec['store'])}, {spec['task']}, {spec['split']}: "
        f"R@K in % (sweep {name})",
        columns=columns,
        rows=rows,
        baseline=_name(baseline, cells, kind) if baseline else None,
    )


def _baseline(done: list[Cell], rows: dict[str, Cell], against: str | None) -> Cell | None:
    """The finished cell that others are tested against, if there is one."""
    if against is None:
        return next((cell for cell in done if cell.trial.method == "none"), None)
    if against not in rows:
        raise UserError(f"--against: no row {against!r}; {nearest(against, rows)}")
    return rows[against] if rows[against] in done else None


def _figures(
    done: list[Cell], baseline: Cell | None
) -> tuple[tuple[Column, ...], dict[str, dict[Column, Figure]]]:
    """Columns, and the figures of each finished cell by its name."""
    columns = tuple((d, k) for d in (done[0].directions if done else ()) for k in CUTOFFS)
    tested = _p_values(done, baseline, columns)
    intervals = {
        (c.name, column): mean_interval(*_hits(c, column)) for c in done for column in columns
    }
    best = {column: max(intervals[c.name, column].mean for c in done) for column in columns}
    figures: dict[str, dict[Column, Figure]] = {cell.name: {} for cell in done}
    for (name, column), interval in intervals.items():
        difference, p = tested.get((name, column), (None, None))
        figures[name][column] = Figure(interval, interval.mean == best[column], difference, p)
    return columns, figures


def _name(cell: Cell, cells: list[Cell], kind: str) -> str:
    """What the table calls a cell; its axes too where that alone does not tell it apart."""
    if kind == "axes":
        return cell.name or METHOD_NAMES[cell.trial.method]

    def short(of: Cell) -> str:
        if kind == "ablation" and of.trial.cell:
            return NAMES[of.trial.cell]
        return METHOD_NAMES[of.trial.method]

    alone = sum(short(other) == short(cell) for other in cells) == 1
    return short(cell) if alone else f"{short(cell)} ({cell.name})"


def _facts(cell: Cell) -> dict[str, float | None]:
    return {
        heading: mean(found[name] for found in cell.metrics)
        if cell.metrics and all(name in found for found in cell.metrics)
        else None
        for heading, name in FACTS.items()
    }


def _hits(cell: Cell, column: Column) -> tuple[np.ndarray, np.ndarray]:
    """100 where a query's rank is within the cutoff, else 0, (S, Q); and the queries' clips."""
    direction, k = column
    found = cell.directions[direction]
    return np.where(found.ranks <= k, 100.0, 0.0), found.clips


def _p_values(
    cells: list[Cell], baseline: Cell | None, columns: tuple[Column, ...]
) -> dict[tuple[str, Column], tuple[float, float]]:
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
