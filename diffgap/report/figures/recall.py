"""Recall of cells as figures show it: one number for both directions, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffgap.evaluation.statistics import Interval, mean_intervals
from diffgap.ledger.artifacts import RANKS
from diffgap.report.results import Cell
from diffgap.report.tables.table import Table
from diffgap.tracking.reader import LoggedSweep, TrialRun

CUTOFFS = (1, 5, 10)

BAND = "bars: 95 % intervals over queries and seeds"
"""How a caption tells of intervals."""


def mean_recalls(cells: Sequence[Cell], cutoff: int) -> list[Interval]:
    """R@K in percent, mean of both directions, of cells on one split; all have trials that count.

    For the interval, a clip's own query stands beside each of its captions, and clips are what
    varies (see `mean_intervals`). Where clips differ in their number of captions, it is moved to
    the exact mean.
    """
    if not cells:
        return []
    x_clips, own = _clips(cells[0])
    exact, values = [], []
    for cell in cells:
        from_x, from_a = (
            np.where(found.ranks <= cutoff, 100.0, 0.0) for found in cell.directions.values()
        )
        exact.append(float(from_x.mean() + from_a.mean()) / 2)
        values.append((from_x + from_a[:, own]) / 2)
    found = mean_intervals(values, x_clips)
    return [_moved(interval, mean) for interval, mean in zip(found, exact, strict=True)]


def _moved(interval: Interval, mean: float) -> Interval:
    by = mean - interval.mean
    return Interval(mean, max(interval.low + by, 0.0), min(interval.high + by, 100.0))


def errors(found: Sequence[Interval]) -> np.ndarray:
    """(2, N): how far intervals reach below and above their means, but for rounding."""
    reach = np.array([[i.mean - i.low for i in found], [i.high - i.mean for i in found]])
    return np.maximum(reach, 0.0)


def _clips(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """(M,) the clip of every query of the first direction, as a number, and that clip's place
    among the queries of the other direction, where each clip asks once."""
    files = cell.finished[0].files
    assert files is not None  # it counts
    table = pq.read_table(files / RANKS, columns=["direction", "clip"])
    numbers = table["clip"].combine_chunks().dictionary_encode().indices.to_numpy()
    of_x, of_a = (
        numbers[pc.equal(table["direction"], direction).to_numpy()] for direction in cell.directions
    )
    places = np.empty(numbers.max() + 1, np.int64)
    places[of_a] = np.arange(len(of_a))
    return of_x, places[of_x]


def trials_of(sweeps: Sequence[LoggedSweep]) -> dict[str, TrialRun]:
    """The trials that count, by signature."""
    return {
        trial.signature: trial for sweep in sweeps for trial in sweep.trials if trial.is_complete
    }


def cells_of(table: Table, trials: dict[str, TrialRun]) -> list[Cell]:
    """The cells behind a table's own rows, by the rows' names; rows without runs have none."""
    return [
        Cell(row.name, table.key, tuple(trials[signature] for signature in row.runs))
        for row in table.ours
        if row.runs
    ]


def runs_of(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The trials behind cells, each once."""
    return tuple(dict.fromkeys(s for cell in cells for s in cell.signatures))
