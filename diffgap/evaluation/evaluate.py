"""Evaluation of a bridge on one split of a store: retrieval in both directions, and the gap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diffgap.bridge.base import Bridge
from diffgap.bridge.config import ScoreConfig
from diffgap.bridge.scores import Scorer
from diffgap.evaluation.gap import gap_metrics
from diffgap.evaluation.retrieval import (
    QueryRanks,
    ranks_of_captions,
    ranks_of_owner,
    ranks_of_pairs,
    summary,
)
from diffgap.store.store import EmbeddingStore, Pairs

TILE = 2048
"""Rows and columns of scores at once, where both directions share them."""

Clouds = tuple[Tensor, Tensor]
"""(M, D) of x and of a, on the CPU, paired row by row."""


@dataclass(frozen=True)
class Evaluation:
    """Ranks of every query, by direction such as ``text_to_audio``; x->a comes first."""

    ranks: dict[str, QueryRanks]
    scorer: Scorer
    """That ranked them."""

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric of the registry, such as ``text_to_audio/R1``."""
        metrics = {}
        for direction, ranks in self.ranks.items():
            for name, value in summary(ranks).items():
                metrics[f"{direction}/{name}"] = value
        return metrics

    @property
    def posterior_means(self) -> Mapping[int, Tensor]:
        """What the scores carried over by the posterior mean, if they did, by direction."""
        return {} if self.scorer.config.kind == "sample" else self.scorer.features.carried

    def rank_table(self, pairs: Pairs) -> pa.Table:
        """One row a query, in the store's order: direction, its clip's id, rank and AP@10."""
        tables = []
        clips_of = (pairs.owner, np.arange(len(pairs.ids)))  # x->a comes first, then a->x
        for (direction, ranks), clips in zip(self.ranks.items(), clips_of, strict=True):
            columns = {
                "direction": pa.array([direction] * len(clips)),
                "clip": pa.array(pairs.ids).take(pa.array(clips)),
                "rank": ranks.rank.numpy(),
                "ap10": ranks.ap10.numpy(),
            }
            tables.append(pa.table(columns))
        return pa.concat_tables(tables)


def evaluate(
    bridge: Bridge, pairs: Pairs, score: ScoreConfig | None = None, bank: Pairs | None = None
) -> Evaluation:
    """Ranks every query of both modalities against the other's whole gallery.

    x->a: every text or video is a query over the N clips' audio. a->x: every clip's audio is a
    query over the M texts or videos, and its rank that of the best of its own (docs/encoders.md).
    `score` is the bridge's own by default, and `bank` the training split, which a score that
    corrects hubness reads.
    """
    x_name, a_name = bridge.config.modalities
    device = bridge.device
    x, a = _on(device, pairs)
    scorer = Scorer(bridge, x, a, score, _on(device, bank) if bank else None)
    of_x, of_a = _ranks(scorer, torch.from_numpy(pairs.owner).to(device), len(a))
    return Evaluation({f"{x_name}_to_{a_name}": of_x, f"{a_name}_to_{x_name}": of_a}, scorer)


def bank_of(score: ScoreConfig, store: EmbeddingStore, task: str) -> Pairs | None:
    """The training split, if the score corrects hubness by it; UserError where there is none."""
    return None if score.normalise == "none" else store.pairs(task, "train")


def _on(device: torch.device, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """x and a of the pairs, on a device."""
    return torch.from_numpy(pairs.x).to(device), torch.from_numpy(pairs.a).to(device)


def _ranks(scorer: Scorer, owner: Tensor, clips: int) -> tuple[QueryRanks, QueryRanks]:
    """Of x's queries and of a's."""
    # One pass serves both directions where each clip has one of x, in the clips' order.
    in_pairs = len(owner) == clips and owner.equal(torch.arange(clips, device=owner.device))
    if in_pairs and scorer.is_pairwise:
        return ranks_of_pairs(scorer.tile, clips, TILE)
    scorer.prepare()
    chunk = scorer.queries_at_once
    to_a, to_x = partial(scorer.scores, from_x=True), partial(scorer.scores, from_x=False)
    return ranks_of_owner(to_a, owner, chunk), ranks_of_captions(to_x, owner, clips, chunk)


# A pack evaluates many bridges on the same frozen pairs; the entry goes when the pairs go.
_gap_before: WeakKeyDictionary[Pairs, dict[str, float]] = WeakKeyDictionary()


def gap_before_and_after(pairs: Pairs, after: Clouds | None) -> dict[str, float]:
    """Gap metrics between the paired embeddings, such as ``before/mean_distance``; those ``after/``
    are of `bridged_clouds`."""
    if pairs not in _gap_before:
        x, a = torch.from_numpy(pairs.x), torch.from_numpy(pairs.a[pairs.owner])
        _gap_before[pairs] = gap_metrics(x, a)
    metrics = {f"before/{name}": value for name, value in _gap_before[pairs].items()}
    if after is not None:
        metrics |= {f"after/{name}": value for name, value in gap_metrics(*after).items()}
    return metrics


@torch.inference_mode()
def bridged_clouds(
    bridge: Bridge, pairs: Pairs, posterior_means: Mapping[int, Tensor] = MappingProxyType({})
) -> Clouds | None:
    """The paired embeddings as near to each other as the bridge brings them.

    x carried over to a's side by the posterior mean, against the real a, in the bridge's space;
    the other way round where only that direction is learnt. Without a network, both in the
    method's space; None where that is the encoders' own. `posterior_means` are of all rows, by
    direction, where they have been computed.
    """
    if not (bridge.directions or bridge.moves_space):
        return None
    x, a = _on(bridge.device, pairs)
    clouds = [bridge.space(x, 0), bridge.space(a, 1)]
    for direction in bridge.directions[:1]:  # carrying both would show no cloud as it is
        if direction in posterior_means:
            clouds[direction] = posterior_means[direction]
        else:
            score = replace(bridge.config.score, kind="bridge")
            clouds[direction] = bridge.carry(clouds[direction], direction, score)
    x, a = clouds[0].cpu(), clouds[1].cpu()
    return x, a[torch.from_numpy(pairs.owner)]
