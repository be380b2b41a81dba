"""Retrieval scores of METHOD's kinds: cosine, bridge, sample, rerank.

All of them score *pairs* (x, a), so that one score serves queries of both modalities. The first
three are an inner product of pair features, hence one matrix product; `rerank` refines the best
candidates of each query by what knowing the query does for denoising the candidate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from diffgap.bridge import bst
from diffgap.bridge.denoiser import Modulation
from diffgap.bridge.model import DiffGAP, shared_noise
from diffgap.bridge.schedules import noise_level

CHUNK = 2048
"""Rows that go through the network at once."""


@dataclass(frozen=True)
class ScoreConfig:
    """How pairs are scored; the fields mean what they mean in a trial's `score` block."""

    kind: str
    fusion: float = 1.0
    draws: int = 4
    top_k: int = 50
    rerank_weight: float = 3.0
    levels: tuple[float, ...] = (0.3, 0.5, 0.7, 0.85, 0.95)
    sample_steps: int = 6
    samples: int = 8
    guidance: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class PairFeatures:
    """Features whose inner product is the score: ``score = x @ a.T``, (M, F) and (N, F)."""

    x: Tensor
    a: Tensor


@torch.inference_mode()
def pair_features(bridge: DiffGAP, x: Tensor, a: Tensor, config: ScoreConfig) -> PairFeatures:
    """Features of ``b(x) . a + x . b(a) + fusion * x . a`` over the trained directions.

    Args:
        bridge: the bridge; for ``cosine`` it is not used.
        x: (M, D) unit vectors.
        a: (N, D) unit vectors.
        config: ``sample`` takes b from full samples, ``bridge`` and ``rerank`` from the
            posterior mean.
    """
    if config.kind == "cosine" or not bridge.directions:
        return PairFeatures(x, a)
    bridged = {d: _bridged(bridge, (x, a)[d], d, config) for d in bridge.directions}
    on_x = config.fusion * x + bridged[bst.X_TO_A]
    if bst.A_TO_X not in bridged:
        return PairFeatures(on_x, a)
    return PairFeatures(torch.cat([on_x, x], -1), torch.cat([a, bridged[bst.A_TO_X]], -1))


def _bridged(bridge: DiffGAP, source: Tensor, direction: int, config: ScoreConfig) -> Tensor:
    sampled = config.kind == "sample"
    draws = config.samples if sampled else config.draws
    noise = shared_noise(draws, source.shape[1], config.seed, source.device)
    parts = []
    for rows in (source * bridge.scale).split(CHUNK):
        if sampled:
            steps, guidance = config.sample_steps, config.guidance
            parts.append(bridge.sample(rows, direction, noise, steps, guidance))
        else:
            parts.append(bridge.posterior_mean(rows, direction, noise))
    return F.normalize(torch.cat(parts), dim=-1)


class Reranker:
    """Pointwise mutual information of pairs, by denoising: ``w * (err(g | null) - err(g | q))``.

    err is the mean squared x0 error of denoising g, averaged over noise levels and the trained
    directions; noise is seeded and shared by all pairs. What depends on one side of a pair only
    - noisy targets, modulations, errors under the null condition - is computed once.
    """

    @torch.inference_mode()
    def __init__(self, bridge: DiffGAP, x: Tensor, a: Tensor, config: ScoreConfig) -> None:
        self.bridge = bridge
        self.config = config
        sides = (x * bridge.scale, a * bridge.scale)
        noise = shared_noise(len(config.levels), x.shape[1], config.seed, x.device)
        self.terms = [
            _LevelTerm(bridge, direction, sides, t, noise[i])
            for direction in bridge.directions
            for i, t in enumerate(config.levels)
        ]

    @torch.inference_mode()
    def bonus(self, x_rows: Tensor, a_rows: Tensor) -> Tensor:
        """What to add to the scores of P pairs, given as (P,) row numbers of x and of a."""
        parts = []
        for pairs in zip(x_rows.split(CHUNK), a_rows.split(CHUNK), strict=True):
            gains = [term.gain(*pairs) for term in self.terms]
            parts.append(torch.stack(gains).mean(0))
        return self.config.rerank_weight * torch.cat(parts)


class _LevelTerm:
    """One direction at one noise level: how much each condition helps to denoise each target."""

    def __init__(
        self,
        bridge: DiffGAP,
        direction: int,
        sides: tuple[Tensor, Tensor],
        t: float,
        noise: Tensor,
    ) -> None:
        self.bridge, self.direction = bridge, direction
        condition, self.target = sides[direction], sides[1 - direction]
        self.log_snr = bridge.schedule(condition.new_tensor(t))
        level = noise_level(self.log_snr)
        self.noisy = level.alpha * self.target + level.sigma * noise
        parts = [
            bridge.modulation(rows, direction, self.log_snr) for rows in condition.split(CHUNK)
        ]
        self.modulation = Modulation(*(torch.cat(part) for part in zip(*parts, strict=True)))
        null = bridge.modulation(bridge.denoiser.null(1), direction, self.log_snr)
        self.null_error = torch.cat(
            [
                self._error(rows, null.take(rows.new_zeros(len(rows))))
                for rows in torch.arange(len(self.target), device=noise.device).split(CHUNK)
            ]
        )

    def _error(self, targets: Tensor, modulation: Modulation) -> Tensor:
        clean = self.bridge.clean(self.noisy[targets], self.log_snr, modulation)
        return (clean - self.target[targets]).square().mean(-1)

    def gain(self, x_rows: Tensor, a_rows: Tensor) -> Tensor:
        conditions, targets = (x_rows, a_rows) if self.direction == bst.X_TO_A else (a_rows, x_rows)
        return self.null_error[targets] - self._error(targets, self.modulation.take(conditions))


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
