"""What a sweep's trials found, read back from their bridge checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffgap.ledger import RANKS, Ledger, SweepRecord
from diffgap.spec import Trial


@dataclass(frozen=True)
class QueryRanks:
    """Ranks of the queries of one direction, for every seed of a cell."""

    ranks: np.ndarray
    """(S, Q) int64, counted from 1."""
    clips: np.ndarray
    """(Q,) int64: queries of one clip belong together."""


@dataclass(frozen=True)
class Cell:
    """All trials of a sweep that differ in nothing but the seed."""

    name: str
    trial: Trial
    """The cell's first trial."""
    planned: int
    """How many seeds were asked for."""
    runs: tuple[str | None, ...]
    """MLflow runs of the finished ones."""
    directions: dict[str, QueryRanks]
    """Empty where no trial is finished yet."""
    metrics: tuple[dict[str, float], ...]

    @property
    def seeds(self) -> int:
        """How many seeds are finished."""
        return len(self.metrics)


def read_cells(ledger: Ledger, sweep: SweepRecord) -> list[Cell]:
    """The cells of a sweep, in the order of its axes."""
    groups: dict[str, list[dict]] = {}
    for entry in sweep.trials:
        groups.setdefault(entry["label"].rpartition("seed ")[0].rstrip(", "), []).append(entry)
    return [_cell(ledger, sweep.name, name, entries) for name, entries in groups.items()]


def _cell(ledger: Ledger, sweep: str, name: str, entries: list[dict]) -> Cell:
    records = [ledger.trial(entry["signature"]) for entry in entries]
    finished = [record for record in records if record.finished]
    return Cell(
        name=name,
        trial=Trial.model_validate(entries[0]["trial"]),
        planned=len(entries),
        runs=tuple(record.run_id(sweep) for record in finished),
        directions=_directions([pq.read_table(record.bridge / RANKS) for record in finished]),
        metrics=tuple(record.metrics() for record in finished),
    )


def _directions(tables: list) -> dict[str, QueryRanks]:
    if not tables:
        return {}
    found = {}
    for direction in tables[0]["direction"].unique().to_pylist():
        parts = [table.filter(pc.equal(table["direction"], direction)) for table in tables]
        clips = parts[0]["clip"].combine_chunks().dictionary_encode().indices
        ranks = np.stack([part["rank"].to_numpy() for part in parts])
        found[direction] = QueryRanks(ranks, clips.to_numpy().astype(np.int64))
    return found
