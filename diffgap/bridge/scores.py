"""Retrieval scores of METHOD's kinds: cosine, bridge, sample, rerank.

All of them score *pairs* (x, a), so that one score serves queries of both modalities. The first
three are an inner product of pair features, hence one matrix product; `rerank` refines the best
candidates of each query by what knowing the query does for denoising the candidate.

    scorer = Scorer(bridge, x, a)                   # the embeddings of a gallery's both sides
    scores = scorer.scores(0, len(x), from_x=True)  # (M, N)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffgap.bridge import bst
from diffgap.bridge.base import Bridge, shared_noise
from diffgap.bridge.config import ScoreConfig
from diffgap.bridge.denoiser import Modulation
from diffgap.bridge.model import DiffGAP

CHUNK = 2048
"""Rows that go through the network at once."""

MODULATION_BYTES = 256 * 2**20
"""Memory for modulations while re-ranking."""


@dataclass(frozen=True)
class PairFeatures:
    """Features whose inner product is the score: ``score = x @ a.T``, (M, F) and (N, F)."""

    x: Tensor
    a: Tensor


class Scorer:
    """Scores of queries of either side against the whole other side.

    Args:
        bridge: the bridge.
        x: (M, D) unit vectors, as the frozen encoder gives them.
        a: (N, D) unit vectors.
        config: how to score; default as the bridge was evaluated.
    """

    @torch.inference_mode()
    def __init__(
        self, bridge: Bridge, x: Tensor, a: Tensor, config: ScoreConfig | None = None
    ) -> None:
        self.config = config or bridge.config.score
        self.features = pair_features(bridge, x, a, self.config)
        self.reranker: Reranker | None = None
        if self.config.kind == "rerank" and bridge.directions:
            assert isinstance(bridge, DiffGAP), "only a conditional diffusion model re-ranks"
            self.reranker = Reranker(bridge, x, a, self.config)

    @property
    def queries_at_once(self) -> int:
        """Queries that are scored at once within bounded memory."""
        if self.reranker is None:
            return CHUNK
        return max(1, min(CHUNK, self.reranker.pairs_at_once // self.config.top_k))

    @torch.inference_mode()
    def scores(self, start: int, stop: int, from_x: bool) -> Tensor:
        """(stop - start, N) scores of rows of x against a; without `from_x`, (.., M) of a's."""
        queries, gallery = self.features.x, self.features.a
        if not from_x:
            queries, gallery = gallery, queries
        scores = queries[start:stop] @ gallery.T
        if self.reranker is None:
            return scores
        return rerank(scores, start, self.reranker, self.config.top_k, queries_are_x=from_x)


@torch.inference_mode()
def pair_features(bridge: Bridge, x: Tensor, a: Tensor, config: ScoreConfig) -> PairFeatures:
    """Features of ``b(x) . a + x . b(a) + fusion * x . a`` over the trained directions.

    Args:
        bridge: the bridge; x and a are compared in its space.
        x: (M, D) unit vectors.
        a: (N, D) unit vectors.
        config: ``sample`` takes b from full samples, ``bridge`` and ``rerank`` from the
            posterior mean, ``cosine`` goes without.
    """
    x, a = bridge.space(x, 0), bridge.space(a, 1)
    if config.kind == "cosine" or not bridge.directions:
        return PairFeatures(x, a)
    bridged = {
        direction: torch.cat(
            [bridge.carry(rows, direction, config) for rows in (x, a)[direction].split(CHUNK)]
        )
        for direction in bridge.directions
    }
    if bst.X_TO_A not in bridged:
        return PairFeatures(x, config.fusion * a + bridged[bst.A_TO_X])
    on_x = config.fusion * x + bridged[bst.X_TO_A]
    if bst.A_TO_X not in bridged:
        return PairFeatures(on_x, a)
    return PairFeatures(torch.cat([on_x, x], -1), torch.cat([a, bridged[bst.A_TO_X]], -1))


class Reranker:
    """Pointwise mutual information of pairs, by denoising: ``w * (err(g | null) - err(g | q))``.

    err is the mean squared x0 error of denoising g, averaged over noise levels and the trained
    directions; noise is seeded and shared by all pairs.
    """

    @torch.inference_mode()
    def __init__(self, bridge: DiffGAP, x: Tensor, a: Tensor, config: ScoreConfig) -> None:
        self.bridge, self.weight = bridge, config.rerank_weight
        self.sides = (x * bridge.scale, a * bridge.scale)
        noise = shared_noise(len(config.levels), x.shape[1], config.seed, x.device)
        self.terms = [
            _Term(direction, bridge.schedule(x.new_tensor(t)), noise[i])
            for direction in bridge.directions
            for i, t in enumerate(config.levels)
        ]
        self.null_errors = [self._null_error(term) for term in self.terms]

    @property
    def pairs_at_once(self) -> int:
        """Pairs whose modulations fit MODULATION_BYTES."""
        network = self.bridge.config
        return max(1, MODULATION_BYTES // (4 * 2 * network.blocks * network.width))

    @torch.inference_mode()
    def bonus(self, x_rows: Tensor, a_rows: Tensor) -> Tensor:
        """What to add to the scores of P pairs, given as (P,) row numbers of x and of a."""
        gains = []
        for term, null_error in zip(self.terms, self.null_errors, strict=True):
            forward = term.direction == bst.X_TO_A
            conditions, targets = (x_rows, a_rows) if forward else (a_rows, x_rows)
            gains.append(null_error[targets] - self._error_given(term, conditions, targets))
        return self.weight * torch.stack(gains).mean(0)

    def _null_error(self, term: _Term) -> Tensor:
        """Error of every target under the null condition."""
        null = self.bridge.denoiser.null(1)
        modulation = self.bridge.modulation(null, term.direction, term.log_snr)
        rows = torch.arange(len(self.sides[1 - term.direction]), device=null.device)
        return self._error(term, rows, modulation, torch.zeros_like(rows))

    def _error_given(self, term: _Term, conditions: Tensor, targets: Tensor) -> Tensor:
        # A query has many candidates and a candidate many queries: modulate each row once.
        needed, place = conditions.unique(return_inverse=True)
        rows = self.sides[term.direction][needed]
        modulation = self.bridge.modulation(rows, term.direction, term.log_snr)
        return self._error(term, targets, modulation, place)

    def _error(self, term: _Term, targets: Tensor, modulation: Modulation, place: Tensor) -> Tensor:
        """Mean squared x0 error of (P,) target rows, each under modulation row `place`."""
        level = self.bridge.schedule.level(term.log_snr)
        errors = []
        for rows, under in zip(targets.split(CHUNK), place.split(CHUNK), strict=True):
            target = self.sides[1 - term.direction][rows]
            noisy = level.alpha * target + level.sigma * term.noise
            clean = self.bridge.clean(noisy, term.log_snr, modulation.take(under))
            errors.append((clean - target).square().mean(-1))
        return torch.cat(errors)


class _Term(NamedTuple):
    """One direction at one noise level."""

    direction: int
    log_snr: Tensor
    noise: Tensor
    """(D,) shared by all targets."""


def rerank(
    scores: Tensor, first: int, reranker: Reranker, top_k: int, queries_are_x: bool
) -> Tensor:
    """Adds the denoising bonus to each query's best candidates.

    Args:
        scores: (C, G) scores of a chunk of queries against the gallery; not changed.
        first: row number of the chunk's first query.
        reranker: made from the same x and a.
        top_k: candidates a query.
        queries_are_x: whether the queries are rows of x (the gallery of a) or the other way.
    """
    best = scores.topk(min(top_k, scores.shape[1]), dim=1).indices
    rows = torch.arange(first, first + len(scores), device=scores.device)
    queries, candidates = rows[:, None].expand_as(best).reshape(-1), best.reshape(-1)
    pairs = (queries, candidates) if queries_are_x else (candidates, queries)
    return scores.scatter_add(1, best, reranker.bonus(*pairs).view_as(best))
