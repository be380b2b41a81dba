"""Diffusion-Bridge (Lee et al., CVPR 2025), as its published code has it.

Unlike the rest of the package it keeps to DDPM's discrete steps, numbered from 0: the query enters
at a step of its own, and the weight of the first steps is far beyond the continuous schedules' end.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Generator, Tensor

from diffgap.bridge import bst
from diffgap.bridge.base import Bridge, unit
from diffgap.bridge.config import BridgeConfig, Objective, ScoreConfig
from diffgap.bridge.denoiser import DenoiserInput
from diffgap.bridge.objective import Batch, Losses
from diffgap.bridge.predictions import convert
from diffgap.bridge.schedules import cosine_steps, noise_level
from diffgap.bridge.siblings import Bidirectional, split_batch


class DiffusionBridge(Bidirectional):
    """An unconditional DDPM of the target modality, which a query enters half-way.

    Theirs: centred embeddings of length `radius`; a state is brought back to that length before
    every call of the network, in training too, and its noise is read from what the network saw;
    x0 prediction; squared error times SNR; a query enters at `start_t` of the steps as it is, and
    goes back in deterministic DDIM steps. Ours: both directions from one network, which is
    DiffGAP's, and the trial's training (theirs: 3 million steps of 64, learning rate 8e-5, EMA
    0.995).
    """

    log_snr: Tensor

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.radius = config.options["radius"]
        self.register_buffer(
            "log_snr", cosine_steps(int(config.options["timesteps"])), persistent=False
        )

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
        return split_batch(self, x, a, clip, objective, self.radius, generator)

    def denoiser_input(self, batch: Batch) -> DenoiserInput:
        log_snr = self.log_snr[(len(self.log_snr) * batch.t).long()]
        level = noise_level(log_snr[:, None])
        noisy = level.alpha * batch.source + level.sigma * batch.noise
        null = self.denoiser.null(len(noisy))
        return DenoiserInput(self.radius * unit(noisy), log_snr, batch.direction, null)

    def losses(self, batch: Batch, inputs: DenoiserInput, output: Tensor) -> Losses:
        errors = (output - batch.target).square().mean(-1)
        return Losses.without_auxiliary((inputs.log_snr.exp() * errors).mean())

    def carry(self, source: Tensor, direction: int, score: ScoreConfig) -> Tensor:
        directions, null = bst.one_way(source, direction), self.denoiser.null(len(source))
        start = max(1, round(self.config.options["start_t"] * len(self.log_snr)))
        state = source
        for step, following in pairwise(ddim_steps(start, int(self.config.options["steps"]))):
            state = self.radius * unit(state)
            log_snr = self.log_snr[step]
            clean = self.denoiser(state, log_snr.expand(len(state)), directions, null)
            if following < 0:
                return unit(clean)
            noise = convert(clean, state, noise_level(log_snr), "x0", "eps")
            after = noise_level(self.log_snr[following])
            state = after.alpha * clean + after.sigma * noise
        raise AssertionError("the last step is -1")


def ddim_steps(start: int, count: int) -> list[int]:
    """From step ``start - 1`` down to -1, which is clean: 599, 479, 359, 239, 119, -1."""
    steps: list[int] = torch.linspace(-1, start - 1, count + 1, device="cpu").int().tolist()
    return steps[::-1]
