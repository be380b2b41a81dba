"""Retrieval scores of saved bridges, or of the frozen encoders alone, on any store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import load_bridge, make_bridge
from diffgap.errors import UserError
from diffgap.evaluation.evaluate import Evaluation, bank_of, evaluate
from diffgap.evaluation.metrics import METRICS, MetricInfo
from diffgap.evaluation.retrieval import QueryRanks
from diffgap.evaluation.statistics import Interval, mean_interval
from diffgap.report.references import Reference, retrieval_references
from diffgap.report.tables.compare import half_width
from diffgap.report.tables.table import NOTHING, Row, Table, Value
from diffgap.store.schema import split_task
from diffgap.store.splits import hash_fraction
from diffgap.store.store import EmbeddingStore, Pairs

FROZEN = "frozen embeddings"


@dataclass(frozen=True)
class Retrieval:
    """One method on one split: every metric by direction, with its interval over queries."""

    name: str
    metrics: dict[str, dict[str, Interval]]
    queries: dict[str, int]


def choose_pairs(store: EmbeddingStore, task: str, split: str, per_class: int | None) -> Pairs:
    """The pairs of a split, or of at most so many clips a class: those of least hash.

    Five a class is CAV-MAE's protocol on VGGSound (Gong et al., ICLR 2023), which does not publish
    its choice of clips; the whole split is the other convention.

    Raises:
        UserError: where classes are asked for and the store has no labels.
    """
    pairs = store.pairs(task, split)
    if per_class is None:
        return pairs
    labels = store.labels()
    chosen: set[str] = set()
    clips_of_class: Counter[str] = Counter()
    for name in sorted(pairs.ids, key=hash_fraction):
        label = labels.get(name)
        if label and clips_of_class[label] < per_class:
            clips_of_class[label] += 1
            chosen.add(name)
    if not chosen:
        raise UserError("--per-class: the store's clips have no labels; leave it out")
    return pairs.take(chosen)


def frozen_retrieval(pairs: Pairs, task: str) -> Retrieval:
    """Cosine retrieval of the frozen embeddings."""
    config = BridgeConfig(
        split_task(task), pairs.a.shape[1], width=0, blocks=0, cdm=False, bst=False, method="none",
        score=ScoreConfig("cosine"),
    )  # fmt: skip
    return _retrieval(FROZEN, evaluate(make_bridge(config), pairs), pairs)


def bridge_retrieval(path: Path, store: EmbeddingStore, pairs: Pairs, task: str) -> Retrieval:
    """Retrieval of a saved bridge, by the score of its trial, on pairs of a store.

    Raises:
        UserError: where the bridge does not fit.
    """
    bridge = load_bridge(path)
    bridged = "-".join(bridge.config.modalities)
    if bridged != task:
        raise UserError(f"--task: {path} bridges {bridged}, not {task}; choose that")
    if bridge.config.dimension != pairs.a.shape[1]:
        raise UserError(
            f"BRIDGE: {path} takes embeddings of {bridge.config.dimension} dimensions, the store "
            f"has {pairs.a.shape[1]}; use a store of the same encoder"
        )
    score = bridge.config.score
    name = score.kind if score.normalise == "none" else f"{score.kind}, {score.normalise}"
    evaluation = evaluate(bridge, pairs, bank=bank_of(score, store, task))
    return _retrieval(f"{path} ({name})", evaluation, pairs)


def _retrieval(name: str, evaluation: Evaluation, pairs: Pairs) -> Retrieval:
    """Every metric of an evaluation with its interval."""
    metrics: dict[str, dict[str, Interval]] = {}
    queries = {}
    clips_of = (pairs.owner, np.arange(len(pairs.ids)))  # x->a comes first, then a->x
    for (direction, ranks), clips in zip(evaluation.ranks.items(), clips_of, strict=True):
        title = direction.replace("_to_", "->")
        metrics[title] = {m.title: metric_interval(m, ranks, clips) for m in METRICS.values()}
        queries[title] = len(clips)
    return Retrieval(name, metrics, queries)


def metric_interval(metric: MetricInfo, ranks: QueryRanks, clips: np.ndarray) -> Interval:
    """Over queries, whose clips are (Q,); of no width for what is not a mean in percent."""
    values = 100.0 * ranks.values(metric) if metric.unit == "%" else ranks.values(metric)
    if metric.average == "mean" and metric.unit == "%":
        return mean_interval(values[None], clips)  # one seed
    average = float(np.mean(values) if metric.average == "mean" else np.median(values))
    return Interval(average, average, average)


def scores_table(rows: list[Retrieval], store: EmbeddingStore, task: str, split: str) -> Table:
    """A row a method and direction: ours, then the published ones."""
    corpus, encoder = store.manifest.corpus.name, store.manifest.encoder
    metrics, references = METRICS.values(), retrieval_references(corpus, task)
    lines = []
    for row in rows:
        for direction, intervals in row.metrics.items():
            values = map(_value, metrics, intervals.values())
            lines.append(Row(row.name, (Value(direction), *values)))
    for number, reference in enumerate(references, 1):
        for direction in rows[0].metrics:
            published = [_published(reference, direction, metric) for metric in metrics]
            if set(published) != {NOTHING}:
                lines.append(Row(reference.method, (Value(direction), *published), footnote=number))
    in_ranks = " and ".join(metric.title for metric in metrics if metric.unit == "ranks")
    queries = ", ".join(f"{count} {direction}" for direction, count in rows[0].queries.items())
    return Table(
        f"scores-{corpus}-{split}",
        f"Retrieval on {corpus}, {split}: in %, {in_ranks} in ranks",
        ("direction", *map(attrgetter("title"), metrics)),
        tuple(lines),
        (
            f"Encoder {encoder.name} ({encoder.checkpoint_hash[:12]}). Queries: {queries}; of "
            "several captions of a clip the best ranked counts.",
            "± is half of the 95 % interval over queries.",
        ),
        tuple(reference.footnote for reference in references),
    )


def _value(metric: MetricInfo, interval: Interval) -> Value:
    if metric.unit == "ranks":
        return Value(f"{interval.mean:g}", interval.mean)
    return Value(f"{interval.mean:.1f} ± {half_width(interval):.1f}", interval.mean)


def _published(reference: Reference, direction: str, metric: MetricInfo) -> Value:
    value = reference.metrics.get(f"{direction} {metric.title}")
    return NOTHING if value is None else Value(f"{value:.1f}", value)
