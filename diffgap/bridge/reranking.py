"""Re-ranking: what knowing one side of a pair does for denoising the other.

The same denoisings are shared by both sides' queries, and what they have in common is computed once
only: see `Reranker` and `PairDenoising`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diffgap.bridge import bst
from diffgap.bridge.base import shared_noise
from diffgap.bridge.config import ScoreConfig
from diffgap.bridge.model import DiffGAP
from diffgap.bridge.predictions import clean_estimate, prediction_target
from diffgap.bridge.schedules import NoiseLevel

MODULATION_BYTES = 64 * 2**20
"""Memory for modulations, of as many conditions as fit."""

PAIRS = {"cpu": 512, "cuda": 32768}
"""Pairs that are denoised at once; a CPU then works within its caches."""


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Matrix products in float32 throughout: scores decide ranks, and TF32 keeps three digits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class Reranker:
    """Pointwise mutual information of pairs, by denoising: ``w * (err(g | null) - err(g | q))``.

    err is the mean squared x0 error of denoising g, averaged over noise levels and the trained
    directions; noise is seeded and shared by all pairs. What was found for a pair is kept.
    """

    @torch.inference_mode()
    def __init__(self, bridge: DiffGAP, x: Tensor, a: Tensor, config: ScoreConfig) -> None:
        self.denoising = PairDenoising(bridge, x, a, config)
        self.directions, self.weight, self.gallery = bridge.directions, config.rerank_weight, len(a)
        self.null_errors = [x.new_full((len(side),), torch.nan) for side in (a, x)]
        self.known = torch.full((1,), -1, device=x.device)  # no pair's number; never empty
        self.found = x.new_zeros(1)

    @torch.inference_mode()
    def bonus(self, x_rows: Tensor, a_rows: Tensor) -> Tensor:
        """What to add to the scores of P pairs, given as (P,) row numbers of x and of a."""
        self.learn(x_rows, a_rows)
        return self.found[torch.searchsorted(self.known, self._number(x_rows, a_rows))]

    @torch.inference_mode()
    def learn(self, x_rows: Tensor, a_rows: Tensor) -> None:
        """Denoises those of P pairs that are not known yet."""
        pairs = self._number(x_rows, a_rows)
        nearest = torch.searchsorted(self.known, pairs).clamp(max=len(self.known) - 1)
        new = pairs[self.known[nearest] != pairs].unique()
        if not len(new):
            return
        sides = new // self.gallery, new % self.gallery
        with full_precision(new.device):
            gains = torch.stack([self._gain(direction, *sides) for direction in self.directions])
        self.known, order = torch.cat([self.known, new]).sort()
        self.found = torch.cat([self.found, self.weight * gains.mean(0)])[order]

    def _number(self, x_rows: Tensor, a_rows: Tensor) -> Tensor:
        return x_rows * self.gallery + a_rows

    def _gain(self, direction: int, x_rows: Tensor, a_rows: Tensor) -> Tensor:
        """(P,) ``err(g | null) - err(g | q)`` in one direction."""
        forward = direction == bst.X_TO_A
        conditions, targets = (x_rows, a_rows) if forward else (a_rows, x_rows)
        null_errors, needed = self.null_errors[direction], targets.unique()
        new = needed[null_errors[needed].isnan()]
        null_errors[new] = self.denoising.null_errors(direction, new)
        return null_errors[targets] - self.denoising.errors(direction, conditions, targets)


class _Level(NamedTuple):
    """A noise level."""

    log_snr: Tensor
    at: NoiseLevel
    noise: Tensor
    """(D,) shared by all targets."""
    share: Tensor
    """Squared x0 error over the squared error of what the network predicts."""


class _Given(NamedTuple):
    """What U conditions bring to denoisings at one level."""

    start: Tensor
    """(U, W): the input layer's output without the target."""
    scale_shift: Tensor
    """(U, L, 2, W) of the blocks."""


def _level(bridge: DiffGAP, t: Tensor, noise: Tensor) -> _Level:
    log_snr = bridge.schedule(t)
    at = bridge.schedule.level(log_snr)
    prediction = bridge.config.objective.prediction  # x0 is linear in it, given z
    slope = clean_estimate(prediction, torch.ones_like(t), torch.zeros_like(t), at)
    return _Level(log_snr, at, noise, slope.square())


class PairDenoising:
    """x0 errors of pairs, averaged over a score's noise levels, in little more than the blocks.

    The input layer is affine in the noisy target ``alpha t + sigma e``, and e is shared: its output
    is ``alpha (A t + B (t c))``, the same for all levels, and what the condition c alone decides.
    """

    def __init__(self, bridge: DiffGAP, x: Tensor, a: Tensor, config: ScoreConfig) -> None:
        self.bridge = bridge
        self.sides = (x * bridge.scale, a * bridge.scale)
        noise = shared_noise(len(config.levels), x.shape[1], config.seed, x.device)
        self.levels = [
            _level(bridge, x.new_tensor(t), e) for t, e in zip(config.levels, noise, strict=True)
        ]
        self.of_target, _, self.of_product = bridge.denoiser.input.weight.chunk(3, dim=1)

    def errors(self, direction: int, conditions: Tensor, targets: Tensor) -> Tensor:
        """(P,) errors of target rows given condition rows of the direction's sides."""
        order = conditions.argsort(stable=True)
        needed, place = conditions[order].unique_consecutive(return_inverse=True)
        ordered, parts = targets[order], []
        for first in range(0, len(needed), self._conditions_at_once):
            part = needed[first : first + self._conditions_at_once]
            here = (place >= first) & (place < first + len(part))
            vectors = self.sides[direction][part]
            parts.append(self._errors(direction, vectors, place[here] - first, ordered[here]))
        errors = torch.cat(parts)
        return torch.empty_like(errors).scatter_(0, order, errors)

    def null_errors(self, direction: int, targets: Tensor) -> Tensor:
        """(T,) errors of target rows under the null condition."""
        null = self.bridge.denoiser.null(1)
        return self._errors(direction, null, torch.zeros_like(targets), targets)

    @property
    def _conditions_at_once(self) -> int:
        network = self.bridge.config
        row = 4 * len(self.levels) * (2 * network.blocks + 1) * network.width
        return max(1, MODULATION_BYTES // row)

    def _errors(self, direction: int, vectors: Tensor, place: Tensor, targets: Tensor) -> Tensor:
        """(P,) errors of target rows, each given one of the (U, D) vectors."""
        given = [self._given(vectors, direction, level) for level in self.levels]
        side, at_once = self.sides[1 - direction], PAIRS[vectors.device.type]
        errors = []
        for rows, under in zip(targets.split(at_once), place.split(at_once), strict=True):
            target = side.index_select(0, rows)
            signal = F.linear(target, self.of_target)
            signal.addmm_(target * vectors.index_select(0, under), self.of_product.T)
            of_levels = [
                self._error(target, signal, level, *(part.index_select(0, under) for part in known))
                for level, known in zip(self.levels, given, strict=True)
            ]
            errors.append(torch.stack(of_levels).mean(0))
        return torch.cat(errors) if errors else targets.new_empty(0, dtype=vectors.dtype)

    def _given(self, vectors: Tensor, direction: int, level: _Level) -> _Given:
        noise = (level.at.sigma * level.noise).expand_as(vectors)
        start = self.bridge.denoiser.input(torch.cat([noise, vectors, noise * vectors], dim=-1))
        return _Given(start, self.bridge.modulation(vectors, direction, level.log_snr).scale_shift)

    def _error(
        self, target: Tensor, signal: Tensor, level: _Level, start: Tensor, scale_shift: Tensor
    ) -> Tensor:
        """(P,) mean squared x0 errors at one level; the arguments have P rows."""
        denoiser, objective = self.bridge.denoiser, self.bridge.config.objective
        h = start.addcmul_(signal, level.at.alpha)
        output = denoiser.refine(h, scale_shift)
        wanted = prediction_target(objective.prediction, target, level.noise, level.at)
        missed = output - wanted
        return level.share * (missed * missed).mean(-1)
