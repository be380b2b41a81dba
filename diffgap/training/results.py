"""Results of a trained bridge: its retrieval, or its generated audio."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

from diffgap.bridge.base import Bridge
from diffgap.evaluation.evaluate import (
    Clouds,
    Evaluation,
    bank_of,
    bridged_clouds,
    evaluate,
    gap_before_and_after,
)
from diffgap.evaluation.examples import examples
from diffgap.evaluation.gap_sample import gap_sample
from diffgap.ledger.artifacts import EXAMPLES, GAP_SAMPLE, RANKS
from diffgap.spec import Trial
from diffgap.store.schema import TEXT, split_task
from diffgap.store.store import EmbeddingStore, Pairs


class TrialResult(Protocol):
    """What a trial's bridge checkpoint holds beside the weights."""

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for config.json: how the metrics were computed."""

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics by their names in MLflow."""

    def write(self, path: Path) -> None:
        """Writes the files that the report's statistics need into the checkpoint's directory."""


def trial_result(trial: Trial, bridge: Bridge, store: EmbeddingStore) -> TrialResult:
    """Evaluates a bridge on its trial's split.

    Raises:
        UserError: where a trial of generation lacks what it needs.
    """
    if trial.generates:
        from diffgap.generation.scoring import generate_and_measure

        return generate_and_measure(trial, bridge, store)
    pairs = store.pairs(trial.task, trial.split)
    texts: tuple[str, ...] = ()
    if split_task(trial.task)[0] == TEXT:
        texts = tuple(text for _, text in store.caption_texts(pairs.ids))
    evaluation = evaluate(bridge, pairs, bank=bank_of(bridge.config.score, store, trial.task))
    return RetrievalResult(trial.split, bridge, pairs, texts, evaluation)


@dataclass(frozen=True)
class RetrievalResult:
    """Retrieval in both directions, and the gap."""

    split: str
    bridge: Bridge
    pairs: Pairs
    texts: tuple[str, ...]
    """The captions of x, where that is text."""
    evaluation: Evaluation

    @property
    def facts(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _bridged(self) -> Clouds | None:
        return bridged_clouds(self.bridge, self.pairs, self.evaluation.posterior_means)

    @property
    def metrics(self) -> dict[str, float]:
        recalls = {f"{self.split}/{name}": value for name, value in self.evaluation.metrics.items()}
        gaps = gap_before_and_after(self.pairs, self._bridged)
        return recalls | {f"gap/{name}": value for name, value in gaps.items()}

    def write(self, path: Path) -> None:
        """Writes the ranks of all queries, a sample of both clouds, and examples to read."""
        pq.write_table(self.evaluation.rank_table(self.pairs), path / RANKS)
        pq.write_table(gap_sample(self.pairs, self._bridged), path / GAP_SAMPLE)
        directions = tuple(self.evaluation.ranks)
        answers = examples(self.evaluation.scorer, self.pairs, self.texts, directions)
        pq.write_table(answers, path / EXAMPLES)
