"""A bridge's scores on one split of a store: retrieval in both directions, and the gap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from diffgap.bridge import bst
from diffgap.bridge.model import DiffGAP
from diffgap.bridge.scores import Reranker, ScoreConfig, pair_features, rerank
from diffgap.evaluation.gap import gap_metrics
from diffgap.evaluation.retrieval import (
    QueryRanks,
    ScoreChunk,
    ranks_of_captions,
    ranks_of_owner,
    summary,
)
from diffgap.store import Pairs

CHUNK = 2048
"""Most queries scored at once: bounds memory to CHUNK x gallery scores."""


@dataclass(frozen=True)
class Evaluation:
    """Ranks of every query, by direction such as ``text_to_audio``."""

    ranks: dict[str, QueryRanks]

    @property
    def metrics(self) -> dict[str, float]:
        """``text_to_audio/R1`` and so on: percent, and ranks counted from 1."""
        return {
            f"{direction}/{name}": value
            for direction, ranks in self.ranks.items()
            for name, value in summary(ranks).items()
        }

    def rank_table(self, pairs: Pairs) -> pa.Table:
        """One row a query: direction, its clip's id, rank and AP@10; in the store's order."""
        tables = []
        for direction, ranks in self.ranks.items():
            from_audio = direction.startswith("audio_to_")
            clips = np.arange(len(pairs.ids)) if from_audio else pairs.owner
            tables.append(
                pa.table(
                    {
                        "direction": pa.array([direction] * len(clips)),
                        "clip": pa.array(pairs.ids).take(pa.array(clips)),
                        "rank": ranks.best.numpy(),
                        "ap10": ranks.ap10.numpy(),
                    }
                )
            )
        return pa.concat_tables(tables)


def evaluate(bridge: DiffGAP, pairs: Pairs, score: ScoreConfig) -> Evaluation:
    """Ranks every query of both modalities against the other's whole gallery.

    x->a: every text or video is a query over the N clips' audio. a->x: every clip's audio is a
    query over the M texts or videos, its rank the best among its own (ENCODERS' conventions).
    """
    x_name, a_name = bridge.config.modalities
    device = next((p.device for p in bridge.parameters()), torch.device("cpu"))
    x, a = torch.from_numpy(pairs.x).to(device), torch.from_numpy(pairs.a).to(device)
    owner = torch.from_numpy(pairs.owner).to(device)
    features = pair_features(bridge, x, a, score)
    chunk, reranker = CHUNK, None
    if score.kind == "rerank" and bridge.directions:
        reranker = Reranker(bridge, x, a, score)
        chunk = max(1, min(CHUNK, reranker.pairs_at_once // score.top_k))

    def scorer(queries: Tensor, gallery: Tensor, from_x: bool) -> ScoreChunk:
        def scores_of(start: int, stop: int) -> Tensor:
            scores = queries[start:stop] @ gallery.T
            if reranker is None:
                return scores
            return rerank(scores, start, reranker, score.top_k, queries_are_x=from_x)

        return scores_of

    to_a = scorer(features.x, features.a, from_x=True)
    to_x = scorer(features.a, features.x, from_x=False)
    return Evaluation(
        {
            f"{x_name}_to_{a_name}": ranks_of_owner(to_a, owner, chunk),
            f"{a_name}_to_{x_name}": ranks_of_captions(to_x, owner, len(a), chunk),
        }
    )


def gap(bridge: DiffGAP, pairs: Pairs) -> dict[str, float]:
    """Gap metrics between the paired embeddings, before and, where x->a is learnt, after.

    After: x carried over to audio by the bridge, against the real audio.
    """
    x, a = torch.from_numpy(pairs.x), torch.from_numpy(pairs.a[pairs.owner])
    found = {f"before/{name}": value for name, value in gap_metrics(x, a).items()}
    if bst.X_TO_A in bridge.directions:
        device = next(bridge.parameters()).device
        bridged = bridge.bridge(x.to(device), source=bridge.config.modalities[0]).cpu()
        found |= {f"after/{name}": value for name, value in gap_metrics(bridged, a).items()}
    return found
