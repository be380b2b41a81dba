"""Noise schedules: how much of the target is left at time t, and how t is drawn in training.

Everything is continuous in t, from clean (0) to pure noise (1), and variance preserving:
``z_t = alpha_t * target + sigma_t * noise`` with ``alpha_t^2 + sigma_t^2 = 1``. A schedule is
one function, ``log_snr(t) = log(alpha_t^2 / sigma_t^2)``; all else follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Schedule = Callable[[Tensor], Tensor]

LOG_SNR_MAX = 10.0
"""Log-SNR is kept within +-10: alpha is 0.7 % at the noisy end, which no network can tell from 0,
and the eps -> x0 conversion, which divides by alpha, stays finite."""


class NoiseLevel(NamedTuple):
    """alpha and sigma of ``z = alpha * target + sigma * noise``, each shaped like its log-SNR."""

    alpha: Tensor
    sigma: Tensor


def noise_level(log_snr: Tensor) -> NoiseLevel:
    """alpha and sigma of a log-SNR (variance preserving; Kingma et al. 2021, eq. 3-4)."""
    return NoiseLevel(torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())


def _clamped(log_snr: Tensor) -> Tensor:
    return log_snr.clamp(-LOG_SNR_MAX, LOG_SNR_MAX)


def cosine(t: Tensor) -> Tensor:
    """Log-SNR of ``alpha = cos(pi t / 2)`` (Nichol & Dhariwal 2021, without their offset)."""
    inside = t.clamp(1e-4, 1 - 1e-4)  # tan has the wrong sign at float32's pi / 2
    return _clamped(-2.0 * torch.log(torch.tan(inside * (math.pi / 2))))


def linear(t: Tensor) -> Tensor:
    """Log-SNR of DDPM's linear betas, 1e-4 to 0.02 over 1,000 steps, in continuous time.

    ``alpha_t^2 = exp(-integral of beta)`` with ``beta(t) = 0.1 + 19.9 t`` (Ho et al. 2020;
    continuous form: Song et al. 2021, eq. 32-33).
    """
    integral = 0.1 * t + 0.5 * 19.9 * t.square()
    return _clamped(-torch.log(torch.expm1(integral)))


SCHEDULES: dict[str, Schedule] = {"cosine": cosine, "linear": linear}


def power_t(u: Tensor, power: float) -> Tensor:
    """Noise times from uniform draws: ``t = 1 - (1 - u)^power``, density skewed to high noise.

    1 is uniform; 3, the default, puts four draws of five above t = 1/2: a bridge learns at the
    noisy end, where the condition is all there is to go by.
    """
    return 1.0 - (1.0 - u).pow(power)
