"""Reverse diffusion: from noise to an embedding. Pure functions of a clean-target estimator."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from diffgap.bridge.schedules import Schedule, noise_level

CleanEstimator = Callable[[Tensor, Tensor], Tensor]
"""(z (B, D), log-SNR (B,)) -> the estimate of the clean target, (B, D)."""


def ddim(estimate: CleanEstimator, noise: Tensor, schedule: Schedule, steps: int) -> Tensor:
    """Deterministic DDIM (Song et al. 2020, eq. 12 with sigma = 0), uniform in t from 1 to 0.

    Args:
        estimate: the model's clean target for a noisy one.
        noise: (B, D) standard normal; where the path starts.
        schedule: log-SNR of t.
        steps: number of evaluations of `estimate`.

    Returns:
        (B, D) samples.
    """
    times = torch.linspace(1.0, 0.0, steps + 1, device=noise.device, dtype=noise.dtype)
    log_snrs = schedule(times)
    z = noise
    for now, after in pairwise(log_snrs):
        clean = estimate(z, now.expand(len(z)))
        level, following = noise_level(now), noise_level(after)
        z = following.alpha * clean + following.sigma * (z - level.alpha * clean) / level.sigma
    return clean
