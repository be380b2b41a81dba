"""Cells of sweeps: trials that differ in nothing but the seed, with their results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffgap.bridge.registry import METHODS
from diffgap.evaluation.metrics import MetricInfo
from diffgap.io.printable import one_line
from diffgap.ledger.artifacts import RANKS
from diffgap.report.references import DATASETS
from diffgap.spec import Trial
from diffgap.spec.label import cell_label
from diffgap.tracking.reader import LoggedSweep, TrialRun


@dataclass(frozen=True)
class RankedQueries:
    """Ranks of the queries of one direction, for every seed of a cell."""

    ranks: np.ndarray
    """(S, Q) int64, counted from 1."""
    ap10: np.ndarray
    """(S, Q) average precision within the first ten, from 0 to 1."""
    clips: np.ndarray
    """(Q,) int64: queries of one clip belong together."""

    def values(self, metric: MetricInfo) -> np.ndarray:
        """(S, Q) values of a metric in %, one a query."""
        columns = {"rank": self.ranks, "ap10": self.ap10}
        return 100.0 * metric.of_ranks(columns[metric.column])


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
        """The complete trials, which alone count."""
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
    def counted(self) -> str:
        """How many trials count, for people."""
        planned = len(self.trials)
        return str(self.seeds) if self.seeds == planned else f"{self.seeds} of {planned}"

    @cached_property
    def missing_reason(self) -> str | None:
        """What became of the trials that do not count; None where all do."""
        reasons: Counter[str] = Counter()
        for trial in self.trials:
            if not trial.is_complete:
                reasons[trial.problem or trial.state] += 1
        return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or None

    @cached_property
    def directions(self) -> dict[str, RankedQueries]:
        """The ranks by direction; empty where no trial counts."""
        return _directions([pq.read_table(t.files / RANKS) for t in self.finished if t.files])

    def with_trials_of(self, other: Cell) -> Cell:
        """The same cell of two sweeps: the other's name, and of each trial the complete run."""
        trials: dict[str, TrialRun] = {}
        for trial in (*self.trials, *other.trials):
            if trial.is_complete or trial.signature not in trials:
                trials[trial.signature] = trial
        return replace(self, name=other.name, trials=tuple(trials.values()))

    def metric(self, name: str) -> list[float]:
        """One metric of every trial that counts and has it."""
        return [t.metrics[name] for t in self.finished if name in t.metrics]


@dataclass(frozen=True)
class Setting:
    """What cells were compared on."""

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
    corpus = sweep.store.rstrip("/").rpartition("/")[2]
    for trial in sweep.trials:
        if trial.config:  # only complete trials have one
            corpus = trial.config["store"]["name"]
            break
    return Setting(sweep.spec["task"], one_line(corpus), sweep.spec["split"])


ABLATION_TITLES = {
    "frozen": "frozen embeddings",
    "bst": "BST only",
    "cdm": "CDM only",
    "cdm+bst": "CDM + BST",
}
"""Rows of an ablation, by `Trial.ablation_cell`."""


def read_cells(sweep: LoggedSweep, trials: Iterable[TrialRun] | None = None) -> list[Cell]:
    """The cells of a sweep, or of some of its trials, in the order of its axes."""
    groups: dict[str, list[TrialRun]] = {}
    for run in sweep.trials if trials is None else trials:
        groups.setdefault(_without_seed(run), []).append(run)
    cells = []
    for runs in groups.values():
        name = one_line(cell_label(runs[0].point, Trial.model_validate(runs[0].trial)))
        cells.append(Cell(name, sweep.name, tuple(runs)))
    return cells


def merged(sweeps: Iterable[LoggedSweep]) -> list[Cell]:
    """The cells of several sweeps on the same pairs; one that stands in two counts once."""
    by_identity: dict[tuple[str, str], Cell] = {}
    for sweep in sweeps:
        for cell in read_cells(sweep):
            # With the store, for two sweeps of one trial may have embedded different corpora.
            identity = sweep.store, _without_seed(cell.trials[0])
            earlier = by_identity.get(identity)
            by_identity[identity] = cell.with_trials_of(earlier) if earlier else cell
    return list(by_identity.values())


def _without_seed(run: TrialRun) -> str:
    return json.dumps({**run.trial, "seed": None}, sort_keys=True)


def cell_names(cells: Sequence[Cell], kind: str) -> list[str]:
    """What a table of a kind calls its cells: by their axes, by their methods, or for an ablation
    by the parts of DiffGAP that are on."""
    names = []
    for cell in cells:
        name = METHODS[cell.trial.method].title
        if kind == "axes":
            name = cell.name or name
        elif kind == "ablation" and cell.trial.ablation_cell:
            name = ABLATION_TITLES[cell.trial.ablation_cell]
        names.append(name)
    return names if kind == "axes" else unique_names(names, cells)


def unique_names(names: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    """Names of cells; with their axes in brackets where a name alone does not tell them apart."""
    counts = Counter(names)
    unique = []
    for name, cell in zip(names, cells, strict=True):
        unique.append(name if counts[name] == 1 else f"{name} ({cell.name})")
    return unique


def _directions(tables: Sequence[pa.Table]) -> dict[str, RankedQueries]:
    """The ranks of a cell's seeds, each of them a table with a row a query, by direction."""
    if not tables:
        return {}
    directions = {}
    for direction in tables[0]["direction"].unique().to_pylist():
        seeds = [table.filter(pc.equal(table["direction"], direction)) for table in tables]
        # Every seed asks the same queries in the same order, so the first one's clips are all's.
        clips = seeds[0]["clip"].combine_chunks().dictionary_encode().indices.to_numpy()
        ranks, ap10 = _stacked(seeds, "rank"), _stacked(seeds, "ap10")
        directions[direction] = RankedQueries(ranks, ap10, clips.astype(np.int64))
    return directions


def _stacked(tables: Sequence[pa.Table], column: str) -> np.ndarray:
    return np.stack([table[column].to_numpy() for table in tables])
