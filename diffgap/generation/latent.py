"""Latent diffusion: noise by seed, and sampling with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffgap.generation.base import Sampling

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(B, ...) latents, a time and (B, ...) conditions to the (B, ...) noise in the latents."""


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One source of noise for each clip."""
    # On the CPU: CUDA draws other numbers from the same seed.
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
    """Latents from (B, ...) standard normal noise, by a scheduler of diffusers.

    `conditions` are the clips' and the one that stands for none, both (B, ...): classifier-free
    guidance (Ho and Salimans, 2022).
    """
    scheduler.set_timesteps(sampling.steps, device=latents.device)
    latents = latents * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        inputs = scheduler.scale_model_input(latents, time)
        predicted = _guided(denoiser, inputs, time, conditions, sampling.guidance)
        latents = scheduler.step(predicted, time, latents).prev_sample
    return latents


def _guided(
    denoiser: Denoiser,
    latents: Tensor,
    time: Tensor,
    conditions: tuple[Tensor, Tensor],
    guidance: float,
) -> Tensor:
    if guidance == 1:  # off: half the work
        return denoiser(latents, time, conditions[0])
    both = denoiser(torch.cat([latents, latents]), time, torch.cat(conditions))
    conditional, unconditional = both.chunk(2)
    return unconditional + guidance * (conditional - unconditional)
