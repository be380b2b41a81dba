"""Recall of cells as figures show it: one number for both directions, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffgap.evaluation.metrics import MetricInfo
from diffgap.evaluation.statistics import Interval, mean_interval
from diffgap.ledger.artifacts import RANKS
from diffgap.report.figures.style import mark, seed_range
from diffgap.report.results import Cell
from diffgap.report.tables.table import Table
from diffgap.tracking.reader import LoggedSweep, TrialRun

BAND = "bars: 95 % intervals over queries and seeds"
"""How captions explain intervals."""

OUTLINED: dict[str, Any] = {"ls": "none", "markeredgecolor": "black", "markeredgewidth": 0.4}
"""Style of marks that no line joins."""


def averages(cells: Sequence[Cell]) -> str:
    """What `mean_recalls` are means of, for captions."""
    return f"of both directions and of {seeds_of(cells)}; {BAND}"


def mean_recalls(cells: Sequence[Cell], metric: MetricInfo) -> list[Interval]:
    """A metric in percent, mean of both directions, of finished cells on one split.

    For the interval, a clip's own query stands beside each of its captions, and clips are what
    varies (see `mean_interval`).
    """
    intervals = []
    x_clips, a_query = _clips(cells[0])
    for cell in cells:
        x_to_a, a_to_x = cell.directions.values()
        from_x, from_a = x_to_a.values(metric), a_to_x.values(metric)
        interval = mean_interval((from_x + from_a[:, a_query]) / 2, x_clips)
        # There a clip's own query counts once a caption, in the tables once: move to their mean.
        mean = float(from_x.mean() + from_a.mean()) / 2
        low, high = np.array([interval.low, interval.high]) + mean - interval.mean
        intervals.append(Interval(mean, max(low, 0.0), min(high, 100.0)))
    return intervals


def _clips(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """(M,) the clip of every query of the first direction, as a number, and that clip's index
    among the queries of the other direction, where each clip is a query once."""
    files = cell.finished[0].files
    assert files is not None  # a complete trial has files
    table = pq.read_table(files / RANKS, columns=["direction", "clip"])
    numbers = table["clip"].combine_chunks().dictionary_encode().indices.to_numpy()
    x_to_a, a_to_x = cell.directions
    x_clips = numbers[pc.equal(table["direction"], x_to_a).to_numpy()]
    a_clips = numbers[pc.equal(table["direction"], a_to_x).to_numpy()]
    queries = np.empty(numbers.max() + 1, np.int64)
    queries[a_clips] = np.arange(len(a_clips))
    return x_clips, queries[x_clips]


def bar_data(intervals: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) means, and (2, N) how far intervals reach below and above them, as matplotlib wants."""
    means, low, high = np.reshape(list(map(astuple, intervals)), (-1, 3)).T
    return means, np.maximum([means - low, high - means], 0.0)  # rounding may leave -1e-15


def plot_intervals(
    axes: Any, x: list[float], intervals: list[Interval], index: int, name: str, **style: Any
) -> None:
    """Means with their intervals, in the colour and with the marker of a series."""
    means, errors = bar_data(intervals)
    style |= {"color": mark(index).colour, "marker": mark(index).marker, "elinewidth": 0.9}
    axes.errorbar(x, means, yerr=errors, label=name, **style)


def trials_of(sweeps: Sequence[LoggedSweep]) -> dict[str, TrialRun]:
    """The complete trials by their signatures."""
    trials = chain.from_iterable(map(attrgetter("trials"), sweeps))
    return {trial.signature: trial for trial in trials if trial.is_complete}


def cells_of(table: Table, trials: dict[str, TrialRun]) -> list[Cell]:
    """The cells behind a table's own rows, by the rows' names; rows without runs have none."""
    cells = []
    for row in table.ours:
        if row.runs:
            cells.append(Cell(row.name, table.key, tuple(map(trials.__getitem__, row.runs))))
    return cells


def runs_of(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The trials behind cells, each once."""
    return tuple(dict.fromkeys(chain.from_iterable(map(attrgetter("signatures"), cells))))


def seeds_of(cells: Sequence[Cell]) -> str:
    """How many seeds are behind cells: ``1 to 3 seeds``."""
    return seed_range(map(attrgetter("seeds"), cells))
