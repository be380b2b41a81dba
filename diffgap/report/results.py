"""The cells of sweeps: trials that differ in nothing but the seed, with what they found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffgap.ledger.artifacts import RANKS
from diffgap.report.references import DATASETS
from diffgap.spec import Trial
from diffgap.tracking.reader import LoggedSweep, TrialRun


@dataclass(frozen=True)
class RankedQueries:
    """Ranks of the queries of one direction, for every seed of a cell."""

    ranks: np.ndarray
    """(S, Q) int64, counted from 1."""
    clips: np.ndarray
    """(Q,) int64: queries of one clip belong together."""


@dataclass(frozen=True)
class Cell:
    """All trials of a sweep that differ in nothing but the seed."""

    name: str
    sweep: str
    trials: tuple[TrialRun, ...]

    @cached_property
    def trial(self) -> Trial:
        """Of the first seed."""
        return Trial.model_validate(self.trials[0].trial)

    @cached_property
    def finished(self) -> tuple[TrialRun, ...]:
        """The trials that count."""
        return tuple(trial for trial in self.trials if trial.is_complete)

    @property
    def signatures(self) -> tuple[str, ...]:
        """Of the trials that count."""
        return tuple(trial.signature for trial in self.finished)

    @property
    def seeds(self) -> int:
        """How many trials count."""
        return len(self.finished)

    @property
    def planned(self) -> int:
        """How many were asked for."""
        return len(self.trials)

    @property
    def counted(self) -> str:
        """How many trials count, for people."""
        return str(self.seeds) if self.seeds == self.planned else f"{self.seeds} of {self.planned}"

    @cached_property
    def missing_reason(self) -> str | None:
        """What became of the trials that do not count; None where all do."""
        states = Counter(
            trial.problem or trial.state for trial in self.trials if not trial.is_complete
        )
        return ", ".join(f"{count} {state}" for state, count in states.items()) or None

    @cached_property
    def directions(self) -> dict[str, RankedQueries]:
        """The ranks by direction; empty where no trial counts."""
        return _directions([pq.read_table(t.files / RANKS) for t in self.finished if t.files])

    def with_trials_of(self, other: Cell) -> Cell:
        """The same cell, with what another sweep knows of it."""
        known = {trial.signature: trial for trial in self.trials}
        for trial in other.trials:
            if trial.is_complete or trial.signature not in known:
                known[trial.signature] = trial
        return replace(self, name=other.name, trials=tuple(known.values()))

    def metric(self, name: str) -> list[float]:
        """One metric of every trial that counts and has it."""
        return [t.metrics[name] for t in self.finished if name in t.metrics]


@dataclass(frozen=True)
class Setting:
    """On what cells were compared."""

    task: str
    corpus: str
    split: str

    @property
    def dataset(self) -> str:
        """The corpus as papers write it."""
        return DATASETS.get(self.corpus, self.corpus)

    @property
    def retrieval(self) -> str:
        """The task as the references call it."""
        return f"{self.task}-retrieval"

    @property
    def slug(self) -> str:
        return f"{self.task}-{self.corpus}-{self.split}".replace("/", "-")

    def __str__(self) -> str:
        return f"{self.dataset}, {self.split}"


def setting_of(sweep: LoggedSweep) -> Setting:
    """Of a sweep; the corpus is named by its store where no trial says what it is."""
    said = [trial.config["store"]["name"] for trial in sweep.trials if trial.config]
    corpus = said[0] if said else sweep.store.rstrip("/").rpartition("/")[2]
    return Setting(sweep.spec["task"], corpus, sweep.spec["split"])


def read_cells(sweep: LoggedSweep, trials: Iterable[TrialRun] | None = None) -> list[Cell]:
    """The cells of a sweep, or of some of its trials, in the order of its axes."""
    groups: dict[str, list[TrialRun]] = {}
    for trial in sweep.trials if trials is None else trials:
        groups.setdefault(trial.label.rpartition("seed ")[0].rstrip(", "), []).append(trial)
    return [Cell(name, sweep.name, tuple(found)) for name, found in groups.items()]


def merged(sweeps: Iterable[LoggedSweep]) -> list[Cell]:
    """The cells of several sweeps on the same pairs; one that stands in two counts once."""
    by_identity: dict[str, Cell] = {}
    for sweep in sweeps:
        for cell in read_cells(sweep):
            trial = {**cell.trials[0].trial, "seed": None}
            identity = json.dumps([sweep.store, trial], sort_keys=True)
            earlier = by_identity.get(identity)
            by_identity[identity] = cell.with_trials_of(earlier) if earlier else cell
    return list(by_identity.values())


def _directions(tables: list) -> dict[str, RankedQueries]:
    if not tables:
        return {}
    found = {}
    for direction in tables[0]["direction"].unique().to_pylist():
        parts = [table.filter(pc.equal(table["direction"], direction)) for table in tables]
        clips = parts[0]["clip"].combine_chunks().dictionary_encode().indices
        ranks = np.stack([part["rank"].to_numpy() for part in parts])
        found[direction] = RankedQueries(ranks, clips.to_numpy().astype(np.int64))
    return found
