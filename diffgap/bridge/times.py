"""Samplers of t: how training draws its noise times."""

from __future__ import annotations

import torch
from torch import Tensor

T_SAMPLERS = ("uniform", "power", "logit_normal")


def draw_times(u: Tensor, kind: str, *, power: float, mean: float, std: float) -> Tensor:
    """Noise times in [0, 1] from uniform draws.

    Args:
        u: uniform draws in [0, 1), of any shape; times are shaped like it and increase with it.
        kind: one of `T_SAMPLERS`.
        power: skew of ``power``, above 0; 1 is uniform.
        mean: mean of the logit of t, for ``logit_normal``; above 0 leans to high noise.
        std: its standard deviation.
    """
    if kind == "uniform":
        return u
    if kind == "power":
        # 3, the default, puts four draws of five above t = 1/2: a bridge learns at the noisy end,
        # where the condition is all there is to go by.
        return 1.0 - (1.0 - u).pow(power)
    assert kind == "logit_normal", kind
    # Esser et al. 2024, section 3.1, through the quantile of u.
    half_a_step = torch.finfo(u.dtype).eps / 2  # a draw of exactly 0 has an infinite quantile
    inside = u.clamp(half_a_step, 1 - half_a_step)
    return torch.sigmoid(mean + std * torch.special.ndtri(inside))
