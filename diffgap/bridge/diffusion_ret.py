"""DiffusionRet: retrieval as the denoising of a distribution over candidates.

DiffusionRet (Jin et al., ICCV 2023) for text and video, and DiffATR (arXiv 2409.10025) for text and
audio, generate the distribution over a query's candidates instead of an embedding: 1 for the right
one and 0 for the others, noised, is denoised given the query and the candidates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from diffgap.bridge import bst
from diffgap.bridge.base import Bridge, shared_noise
from diffgap.bridge.config import BridgeConfig, Objective, ScoreConfig
from diffgap.bridge.objective import Batch, Losses, make_batch
from diffgap.bridge.predictions import convert
from diffgap.bridge.schedules import cosine_steps, noise_level

SAMPLING_BYTES = 64 * 2**20  # for the candidates of queries that are ranked at once


class Candidates(NamedTuple):
    """K candidates of each of B queries, and what a denoiser computes of them alone."""

    items: Tensor  # (B, K, D)
    keys: Tensor  # (B, K, D)
    hidden: Tensor  # (B, K, 2D): their part of the decoder's first layer


class DistributionDenoiser(nn.Module):
    """The published network: attention of a query to its candidates, and a decoder of both."""

    waves: Tensor

    def __init__(self, dimension: int, timesteps: int) -> None:
        super().__init__()
        self.q = nn.Linear(dimension, dimension, bias=False)
        self.k = nn.Linear(dimension, dimension, bias=False)
        self.v = nn.Linear(dimension, dimension, bias=False)
        self.project = nn.Linear(dimension, dimension)
        self.context_hidden = nn.Linear(dimension, 2 * dimension)
        self.item_hidden = nn.Linear(dimension, 2 * dimension, bias=False)
        self.output = nn.Linear(2 * dimension, 1)
        self.embed = nn.Sequential(
            nn.Linear(dimension, dimension), nn.SiLU(), nn.Linear(dimension, dimension)
        )
        self.register_buffer("waves", _waves(timesteps, dimension), persistent=False)

    def candidates(self, items: Tensor, rows: Tensor) -> Candidates:
        """Those at (B, K) rows of (N, D) items."""
        return Candidates(items[rows], self.k(items)[rows], self.item_hidden(items)[rows])

    def forward(
        self, noisy: Tensor, step: Tensor, query: Tensor, candidates: Candidates, absent: Tensor
    ) -> Tensor:
        """The (B, K) clean distributions of noisy ones at (B,) steps, given (B, D) queries.

        `absent` (B, K) are places without a candidate.
        """
        # Keys and values of the paper have the step added too. In the keys it is the same for all
        # candidates of a query, and softmax is blind to it.
        step_vector = self.embed(self.waves[step])
        logits = torch.einsum("bd,bkd->bk", self.q(query + step_vector), candidates.keys)
        weights = (logits + noisy).masked_fill(absent, -torch.inf).softmax(-1)
        context = torch.einsum("bk,bkd->bd", weights, candidates.items) + step_vector
        hidden = self.context_hidden(self.project(self.v(context)))[:, None] + candidates.hidden
        output: Tensor = self.output(hidden.relu()).squeeze(-1) + weights
        return output


class DiffusionRet(Bridge):
    """A denoiser of distributions for each direction, which re-ranks the best by cosine.

    Theirs: the network, on embeddings that no longer train; cosine schedule with 50 steps; a
    candidate list of the right item and the hardest negatives of the batch; cross-entropy of the
    denoised distribution with its sharp temperature as the one loss; DDIM over all steps, clipped
    to [-1, 1]; the softmax of the sample added to the similarity of the best candidates. Ours:
    frozen embeddings at unit variance in the place of encoders that were fine-tuned first; the
    number of candidates and the weight of the sample (`score.top_k`, `score.rerank_weight`; theirs
    32 and 1); noise that all queries share; other captions of a clip are no negatives.
    """

    auxiliary = "cross_entropy"
    log_snr: Tensor

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.timesteps, self.scale = int(config.options["timesteps"]), config.dimension**0.5
        self.x_to_a = DistributionDenoiser(config.dimension, self.timesteps)
        self.a_to_x = DistributionDenoiser(config.dimension, self.timesteps)
        self.register_buffer("log_snr", cosine_steps(self.timesteps), persistent=False)

    def _denoisers(self) -> tuple[DistributionDenoiser, DistributionDenoiser]:
        return self.x_to_a, self.a_to_x

    @property
    def directions(self) -> tuple[int, ...]:
        return ()  # it carries nothing over: it ranks

    def batch(
        self,
        x: Tensor,
        a: Tensor,
        clip: Tensor,
        step: int,
        generator: Generator,
        average: Bridge | None = None,
    ) -> Batch:
        objective = Objective(t_sampler="uniform", condition_noise=0.0, condition_dropout=0.0)
        assigned = bst.assign(len(x), step, True, "joint", 0.5)
        x, a = x * self.scale, a * self.scale
        batch = make_batch(x, a, clip, *assigned, objective, generator)
        shape = len(batch.row), min(len(x), 1 + int(self.config.options["negatives"]))
        # Of a distribution, not of an embedding.
        return replace(batch, noise=torch.randn(shape, generator=generator, device=x.device))

    def forward(self, batch: Batch) -> Losses:
        # The halves of a joint batch, and of every worker's share of it, are the directions.
        parts = [
            self._losses(denoiser, batch.part(half))
            for denoiser, half in zip(self._denoisers(), _halves(len(batch.row)), strict=True)
        ]
        mse, cross_entropy = torch.stack(parts).mean(0)
        return Losses(cross_entropy, mse.detach(), cross_entropy)

    def _losses(self, denoiser: DistributionDenoiser, batch: Batch) -> Tensor:
        """(2,) the squared error and the cross-entropy of one direction's examples."""
        rows, absent = self._hardest(batch)
        clean = torch.zeros_like(batch.noise)
        clean[:, 0] = 1.0
        step = (self.timesteps * batch.t).long()
        level = noise_level(self.log_snr[step][:, None])
        noisy = level.alpha * clean + level.sigma * batch.noise
        candidates = denoiser.candidates(batch.bank.target, rows)
        output = denoiser(noisy, step, batch.condition, candidates, absent)
        logits = (output / self.config.options["temperature"]).masked_fill(absent, -torch.inf)
        mse = (output - clean).masked_fill(absent, 0.0).square().mean()
        return torch.stack([mse, F.cross_entropy(logits, torch.zeros_like(step))])

    def _hardest(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, K) rows of the bank, the right one first and then the nearest negatives, and whether
        there is none at a place."""
        bank = batch.bank
        is_negative = batch.direction[:, None] == bank.direction
        is_negative &= bank.clip[batch.row][:, None] != bank.clip
        scores = (batch.condition @ bank.target.T).masked_fill(~is_negative, -torch.inf)
        nearest = scores.topk(batch.noise.shape[1] - 1, dim=1)
        rows = torch.cat([batch.row[:, None], nearest.indices], 1)
        return rows, F.pad(nearest.values.isneginf(), (1, 0), value=False)

    def rerank(
        self, scores: Tensor, queries: Tensor, items: Tensor, direction: int, score: ScoreConfig
    ) -> Tensor:
        """Adds what it generates to the best of (Q, N) scores, in a copy of them.

        The (Q, D) queries and (N, D) items are unit vectors.
        """
        best = scores.topk(min(score.top_k, scores.shape[1]), dim=1).indices
        noise = shared_noise(1, best.shape[1], score.seed, scores.device)
        at_once = max(1, SAMPLING_BYTES // (16 * best.shape[1] * items.shape[1]))
        samples = []
        for vectors, rows in zip(queries.split(at_once), best.split(at_once), strict=True):
            samples.append(self._sample(vectors, items, rows, noise, direction))
        generated = torch.cat(samples).softmax(-1)
        return scores.scatter_add(1, best, score.rerank_weight * generated)

    def _sample(
        self, queries: Tensor, items: Tensor, rows: Tensor, noise: Tensor, direction: int
    ) -> Tensor:
        """(Q, K) samples of the distribution over the items at (Q, K) rows, by DDIM."""
        denoiser, queries = self._denoisers()[direction], queries * self.scale
        unique, places = rows.unique(return_inverse=True)
        candidates = denoiser.candidates(items[unique] * self.scale, places)
        absent = torch.zeros_like(rows, dtype=torch.bool)
        state = noise.expand(len(rows), -1)
        for step in reversed(range(self.timesteps)):
            steps = torch.full((len(rows),), step, device=rows.device)
            clean = denoiser(state, steps, queries, candidates, absent).clamp(-1.0, 1.0)
            if step == 0:
                break
            rest = convert(clean, state, noise_level(self.log_snr[step]), "x0", "eps")
            after = noise_level(self.log_snr[step - 1])
            state = after.alpha * clean + after.sigma * rest
        return clean


def _halves(examples: int) -> tuple[slice, slice]:
    return slice(None, examples // 2), slice(examples // 2, None)


def _waves(timesteps: int, dimension: int) -> Tensor:
    """(T, D) sines and cosines of the steps (Vaswani et al. 2017, section 3.5)."""
    # On the CPU even where only shapes are asked for: see Denoiser.
    step = torch.arange(timesteps, dtype=torch.float32, device="cpu")[:, None]
    pair = torch.arange(dimension, dtype=torch.float32, device="cpu").div(2, rounding_mode="floor")
    angles = step * 10_000.0 ** (-2 * pair / dimension)
    is_sine = torch.arange(dimension, device="cpu") % 2 == 0
    return torch.where(is_sine, angles.sin(), angles.cos())
