"""What generators by latent diffusion share: noise by seed, and guided sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffgap.generation.base import Sampling

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(B, ...) latents, a time and (B, ...) conditions to the (B, ...) noise in the latents."""


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One source of noise a clip; on the CPU, so that a seed is the same clip on any device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """(B, *shape) standard normal noise on the CPU, each clip's from its own seed."""
    return torch.stack([torch.randn(shape, generator=source) for source in generators(seeds)])


def sample(
    denoiser: Denoiser,
    scheduler: Any,
    latents: Tensor,
    conditions: tuple[Tensor, Tensor],
    sampling: Sampling,
) -> Tensor:
    """Latents from noise, with classifier-free guidance (Ho and Salimans, 2022).

    Args:
        denoiser: predicts the noise.
        scheduler: of diffusers; takes the steps.
        latents: (B, ...) standard normal noise.
        conditions: the clips' own, and the one that stands for none; both (B, ...).
        sampling: how many steps, how much guidance.
    """
    scheduler.set_timesteps(sampling.steps, device=latents.device)
    latents = latents * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        seen = scheduler.scale_model_input(latents, time)
        predicted = _guided(denoiser, seen, time, conditions, sampling.guidance)
        latents = scheduler.step(predicted, time, latents).prev_sample
    return latents


def _guided(
    denoiser: Denoiser,
    latents: Tensor,
    time: Tensor,
    conditions: tuple[Tensor, Tensor],
    guidance: float,
) -> Tensor:
    if guidance == 1:
        return denoiser(latents, time, conditions[0])
    given, without = denoiser(torch.cat([latents] * 2), time, torch.cat(conditions)).chunk(2)
    return without + guidance * (given - without)
