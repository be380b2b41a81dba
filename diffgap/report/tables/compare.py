"""Recall of cells side by side: intervals, what is best, and how surely others differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffgap.evaluation.statistics import Interval, PairedTest, holm, mean_intervals, paired_tests
from diffgap.report.results import Cell
from diffgap.report.tables.table import NOTHING, Value

CUTOFFS = (1, 5, 10)
SIGNIFICANT = 0.05

Column = tuple[str, int]
"""A direction such as ``text_to_audio``, and a cutoff."""


@dataclass(frozen=True)
class RecallCell:
    """R@K of a cell in one direction, in percent."""

    interval: Interval
    best: bool
    near: bool
    """Not the best, and not significantly different from it."""
    difference: float | None
    """Points above the baseline; None for the baseline itself, or without one."""
    p: float | None
    """Of the paired test against the baseline, Holm-corrected over the table."""

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True)
class Comparison:
    """The figures of cells, by place in `cells` and column; cells without results have none."""

    cells: tuple[Cell, ...]
    columns: tuple[Column, ...]
    figures: dict[tuple[int, Column], RecallCell]
    baseline: int | None

    def values(self, place: int) -> tuple[Value, ...]:
        """One row of a table."""
        return tuple(
            _value(self.figures[place, column]) if (place, column) in self.figures else NOTHING
            for column in self.columns
        )

    @property
    def headings(self) -> tuple[str, ...]:
        return tuple(heading(column) for column in self.columns)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the marks mean."""
        if not self.figures:
            return ("No trial is finished yet.",)
        told = (
            "Mean over seeds ± half of the 95 % interval over queries and seeds. Bold: best of its "
            "column; underlined: not significantly different from it, of the trained seeds.",
        )
        if self.baseline is None:
            return (*told, "No frozen baseline here: nothing to test against.")
        return told


def compare(cells: Sequence[Cell], baseline: int | None) -> Comparison:
    """Compares cells on the queries that they have in common by construction: one split of a store.

    Intervals are of 95 %, over queries and seeds (`mean_intervals`); tests are paired by query, and
    Holm-corrected over the table, those against the baseline and those against the best apart.

    Args:
        cells: finished or not.
        baseline: the place of the cell that others are tested against; None where there is none.
    """
    done = [place for place, cell in enumerate(cells) if cell.seeds]
    if baseline not in done:
        baseline = None
    directions = list(cells[done[0]].directions) if done else []
    columns = tuple((direction, k) for direction in directions for k in CUTOFFS)
    intervals: dict[tuple[int, Column], Interval] = {}
    against: dict[tuple[int, Column], PairedTest] = {}
    to_best: dict[tuple[int, Column], PairedTest] = {}
    for direction in directions:
        mine = [column for column in columns if column[0] == direction]
        hits, clips = _hits(cells, done, mine)
        keys = list(hits)
        found = mean_intervals([hits[key] for key in keys], clips)
        intervals |= dict(zip(keys, found, strict=True))
        best = {column: _best(done, column, intervals) for column in mine}
        against |= _tests(hits, clips, {k: (baseline, k[1]) for k in keys if k[0] != baseline})
        to_best |= _tests(hits, clips, {k: (best[k[1]], k[1]) for k in keys if k[0] != best[k[1]]})
    figures = _figures(intervals, against, to_best, columns)
    return Comparison(tuple(cells), columns, figures, baseline)


def heading(column: Column) -> str:
    """``text->audio R@5``."""
    direction, k = column
    source, _, target = direction.partition("_to_")
    return f"{source}->{target} R@{k}"


def _hits(
    cells: Sequence[Cell], done: list[int], columns: list[Column]
) -> tuple[dict[tuple[int, Column], np.ndarray], np.ndarray]:
    """100 where a query's rank is within the cutoff, else 0, (S, Q); and the queries' clips."""
    hits = {}
    clips = np.zeros(0, np.int64)
    for place in done:
        for column in columns:
            found = cells[place].directions[column[0]]
            hits[place, column] = np.where(found.ranks <= column[1], 100.0, 0.0)
            clips = found.clips
    return hits, clips


def _best(done: list[int], column: Column, intervals: dict[tuple[int, Column], Interval]) -> int:
    return max(done, key=lambda place: intervals[place, column].mean)


def _tests(
    hits: dict[tuple[int, Column], np.ndarray],
    clips: np.ndarray,
    pairs: dict[tuple[int, Column], tuple[int | None, Column]],
) -> dict[tuple[int, Column], PairedTest]:
    keys = [key for key, other in pairs.items() if other[0] is not None]
    compared = [(hits[key], hits[pairs[key]]) for key in keys]  # type: ignore[index]
    return dict(zip(keys, paired_tests(compared, clips), strict=True))


def _figures(
    intervals: dict[tuple[int, Column], Interval],
    against: dict[tuple[int, Column], PairedTest],
    to_best: dict[tuple[int, Column], PairedTest],
    columns: tuple[Column, ...],
) -> dict[tuple[int, Column], RecallCell]:
    p_values = dict(zip(against, holm([test.p for test in against.values()]), strict=True))
    p_best = dict(zip(to_best, holm([test.p for test in to_best.values()]), strict=True))
    tops = {c: max(i.mean for (_, at), i in intervals.items() if at == c) for c in columns}
    figures = {}
    for key, interval in intervals.items():
        best = interval.mean == tops[key[1]]
        test = against.get(key)
        figures[key] = RecallCell(
            interval,
            best,
            not best and p_best[key] >= SIGNIFICANT,
            test.difference if test else None,
            p_values.get(key),
        )
    return figures


def _value(figure: RecallCell) -> Value:
    interval = figure.interval
    return Value(
        f"{interval.mean:.1f} ± {(interval.high - interval.low) / 2:.1f}",
        interval.mean,
        figure.best,
        figure.near,
        figure.significant,
    )
