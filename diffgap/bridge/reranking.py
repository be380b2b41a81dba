"""Re-ranking by how much one side of a pair helps to denoise the other.

`Reranker` scores pairs and remembers their scores, since a pair may be a candidate of both its
sides. `PairDenoising` computes the errors, and once only what pairs have in common.
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

MODULATION_BYTES = 64 * 2**20  # for the modulations of conditions that are denoised at once
PAIRS = {"cpu": 512, "cuda": 32768}  # denoised at once: few enough to stay within a CPU's caches


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Matrix products in full float32: TF32 keeps three digits, which would change ranks."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


class Reranker:
    """Pointwise mutual information of pairs, by denoising: ``w * (err(g | null) - err(g | q))``.

    err is the mean squared x0 error of denoising g, averaged over noise levels and the trained
    directions. By the I-MMSE relation the gap of the errors, integrated over the levels, is the
    mutual information (Guo et al. 2005; pointwise, Kong et al. 2023). Noise is seeded and shared
    by all pairs, so that scores are comparable and repeatable.
    """

    @torch.inference_mode()
    def __init__(self, bridge: DiffGAP, x: Tensor, a: Tensor, config: ScoreConfig) -> None:
        self.denoising = PairDenoising(bridge, x, a, config)
        self.directions, self.weight, self.gallery = bridge.directions, config.rerank_weight, len(a)
        # By direction, of its target rows; NaN where not computed yet.
        self.null_errors = [x.new_full((len(side),), torch.nan) for side in (a, x)]
        # Scored pairs as sorted keys, and their bonuses. -1 is no pair's key: never empty, so that
        # a search always has a neighbour to compare with.
        self.keys = torch.full((1,), -1, device=x.device)
        self.bonuses = x.new_zeros(1)

    @torch.inference_mode()
    def bonus(self, x_rows: Tensor, a_rows: Tensor) -> Tensor:
        """(P,) bonuses for the scores of pairs, given as (P,) row numbers of x and of a."""
        self.prepare(x_rows, a_rows)
        return self.bonuses[torch.searchsorted(self.keys, self._key(x_rows, a_rows))]

    @torch.inference_mode()
    def prepare(self, x_rows: Tensor, a_rows: Tensor) -> None:
        """Computes the bonuses of those of P pairs that have none yet."""
        keys = self._key(x_rows, a_rows)
        nearest = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        new = keys[self.keys[nearest] != keys].unique()
        if not len(new):
            return
        x_rows, a_rows = new // self.gallery, new % self.gallery
        with full_precision(new.device):
            gains = [self._gain(direction, x_rows, a_rows) for direction in self.directions]
        self.keys, order = torch.cat([self.keys, new]).sort()
        bonuses = self.weight * torch.stack(gains).mean(0)
        self.bonuses = torch.cat([self.bonuses, bonuses])[order]

    def _key(self, x_rows: Tensor, a_rows: Tensor) -> Tensor:
        """One int64 a pair, so that pairs can be sorted and searched on the device."""
        return x_rows * self.gallery + a_rows

    def _gain(self, direction: int, x_rows: Tensor, a_rows: Tensor) -> Tensor:
        """(P,) ``err(g | null) - err(g | q)`` in one direction."""
        forward = direction == bst.X_TO_A
        conditions, targets = (x_rows, a_rows) if forward else (a_rows, x_rows)
        null_errors, rows = self.null_errors[direction], targets.unique()
        new = rows[null_errors[rows].isnan()]
        null_errors[new] = self.denoising.null_errors(direction, new)
        return null_errors[targets] - self.denoising.errors(direction, conditions, targets)


class _Level(NamedTuple):
    """A noise level at which pairs are denoised."""

    log_snr: Tensor
    level: NoiseLevel
    noise: Tensor  # (D,) shared by all targets
    error_ratio: Tensor  # squared x0 error over that of the network's own prediction


class _ConditionTerms(NamedTuple):
    """The parts of a denoising at one level that depend on the condition alone, of U conditions."""

    hidden: Tensor  # (U, W): the input layer's output without the target's terms
    scale_shift: Tensor  # (U, L, 2, W) of the blocks


def _make_level(bridge: DiffGAP, t: Tensor, noise: Tensor) -> _Level:
    log_snr = bridge.schedule(t)
    level = bridge.schedule.level(log_snr)
    # Given z, x0 is affine in the prediction: its slope is the clean estimate of 1 at z = 0.
    prediction = bridge.config.objective.prediction
    slope = clean_estimate(prediction, torch.ones_like(t), torch.zeros_like(t), level)
    return _Level(log_snr, level, noise, slope.square())


class PairDenoising:
    """x0 errors of pairs, averaged over a score's noise levels.

    The input layer is affine in the noisy target ``z = alpha t + sigma e``. With its weight (A, C,
    P) for z, the condition c and their product, and with e shared by all pairs, its output is

        alpha (A t + P (t c))  +  sigma (A e + P (e c)) + C c + bias

    The bracket on the left is the same for all levels, and the rest the same for all targets of a
    condition, so that a pair costs little more than the residual blocks.
    """

    def __init__(self, bridge: DiffGAP, x: Tensor, a: Tensor, config: ScoreConfig) -> None:
        self.bridge = bridge
        self.sides = (x * bridge.scale, a * bridge.scale)
        noise = shared_noise(len(config.levels), x.shape[1], config.seed, x.device)
        self.levels = []
        for t, level_noise in zip(config.levels, noise, strict=True):
            self.levels.append(_make_level(bridge, x.new_tensor(t), level_noise))
        self.target_weight, _, self.product_weight = bridge.denoiser.input.weight.chunk(3, dim=1)

    def errors(self, direction: int, conditions: Tensor, targets: Tensor) -> Tensor:
        """(P,) errors of target rows given condition rows of the direction's sides."""
        # Sorted by condition, so that each one's terms are computed once, a chunk at a time.
        order = conditions.argsort(stable=True)
        rows, condition_of = conditions[order].unique_consecutive(return_inverse=True)
        targets, chunks = targets[order], []
        for first in range(0, len(rows), self._conditions_at_once):
            chunk = rows[first : first + self._conditions_at_once]
            in_chunk = (condition_of >= first) & (condition_of < first + len(chunk))
            vectors, places = self.sides[direction][chunk], condition_of[in_chunk] - first
            chunks.append(self._errors(direction, vectors, places, targets[in_chunk]))
        errors = torch.cat(chunks)
        return torch.empty_like(errors).scatter_(0, order, errors)  # back in the pairs' order

    def null_errors(self, direction: int, targets: Tensor) -> Tensor:
        """(T,) errors of target rows under the null condition."""
        null = self.bridge.denoiser.null(1)
        return self._errors(direction, null, torch.zeros_like(targets), targets)

    @property
    def _conditions_at_once(self) -> int:
        network = self.bridge.config
        values = (2 * network.blocks + 1) * network.width  # of _ConditionTerms, 4 bytes each
        return max(1, MODULATION_BYTES // (4 * len(self.levels) * values))

    def _errors(self, direction: int, vectors: Tensor, places: Tensor, targets: Tensor) -> Tensor:
        """(P,) errors of target rows, each given the (U, D) vector at its place."""
        terms = [self._condition_terms(vectors, direction, level) for level in self.levels]
        side, at_once = self.sides[1 - direction], PAIRS[vectors.device.type]
        chunks = []
        for rows, chosen in zip(targets.split(at_once), places.split(at_once), strict=True):
            target = side.index_select(0, rows)
            signal = F.linear(target, self.target_weight)
            signal.addmm_(target * vectors.index_select(0, chosen), self.product_weight.T)
            errors = []
            for level, (hidden, scale_shift) in zip(self.levels, terms, strict=True):
                # index_select copies, so that _error may overwrite its rows of the hidden layer.
                hidden = hidden.index_select(0, chosen)
                scale_shift = scale_shift.index_select(0, chosen)
                errors.append(self._error(target, signal, level, hidden, scale_shift))
            chunks.append(torch.stack(errors).mean(0))
        return torch.cat(chunks) if chunks else targets.new_empty(0, dtype=vectors.dtype)

    def _condition_terms(self, vectors: Tensor, direction: int, level: _Level) -> _ConditionTerms:
        noise = (level.level.sigma * level.noise).expand_as(vectors)
        hidden = self.bridge.denoiser.input(torch.cat([noise, vectors, noise * vectors], dim=-1))
        modulation = self.bridge.modulation(vectors, direction, level.log_snr)
        return _ConditionTerms(hidden, modulation.scale_shift)

    def _error(
        self, target: Tensor, signal: Tensor, level: _Level, hidden: Tensor, scale_shift: Tensor
    ) -> Tensor:
        """(P,) mean squared x0 errors at one level, of P rows; overwrites `hidden`."""
        hidden = hidden.addcmul_(signal, level.level.alpha)
        output = self.bridge.denoiser.refine(hidden, scale_shift)
        prediction = self.bridge.config.objective.prediction
        error = output - prediction_target(prediction, target, level.noise, level.level)
        return level.error_ratio * (error * error).mean(-1)
