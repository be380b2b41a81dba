"""DiffGAP itself, and the cells of its ablation.

    bridge = DiffGAP.from_pretrained("runs/trials/0123456789ab/bridge")
    audio_like = bridge.bridge(text_embeddings, source="text")

Callers hold unit vectors; inside, embeddings are scaled by sqrt(D) to unit variance.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffgap.bridge import bst
from diffgap.bridge.base import Bridge, shared_noise, unit
from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.denoiser import Denoiser, DenoiserInput, Modulation
from diffgap.bridge.objective import (
    Batch,
    Losses,
    denoising_losses,
    deterministic_bridge,
    deterministic_input,
    diffusion_input,
    diffusion_losses,
    make_batch,
)
from diffgap.bridge.predictions import clean_estimate
from diffgap.bridge.samplers import CleanEstimator, noise_query, reverse
from diffgap.bridge.schedules import LOG_SNR_MAX, SCHEDULES

STEP_NOISE = 1 << 32  # added to a score's seed for sampler steps: no start's noise comes again


class DiffGAP(Bridge):
    """Contrastive Diffusion Module and Bidirectional Split Training (arXiv 2503.12131).

    With CDM it is a conditional diffusion model; with BST alone, the same network as a
    deterministic bridge; with neither, the frozen baseline without weights.
    """

    auxiliary = "infonce"

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.schedule = SCHEDULES[config.schedule]
        self.scale = config.dimension**0.5
        if config.cdm or config.bst:
            self.denoiser = Denoiser(config.dimension, config.width, config.blocks)

    @property
    def directions(self) -> tuple[int, ...]:
        config = self.config
        return bst.directions_trained(config.bst) if config.cdm or config.bst else ()

    # Training ---------------------------------------------------------------------------------

    def batch(
        self,
        x: Tensor,
        a: Tensor,
        clip: Tensor,
        step: int,
        generator: Generator,
        average: Bridge | None = None,
    ) -> Batch:
        config, x, a = self.config, x * self.scale, a * self.scale
        assigned = bst.assign(len(x), step, config.bst, config.bst_mode, config.bst_fraction)
        return make_batch(x, a, clip, *assigned, config.objective, generator)

    def denoiser_input(self, batch: Batch) -> DenoiserInput:
        if not self.config.cdm:
            return deterministic_input(batch.direction, batch.condition)
        return diffusion_input(self.denoiser, batch, self.schedule)

    def losses(self, batch: Batch, inputs: DenoiserInput, output: Tensor) -> Losses:
        objective = self.config.objective
        if not self.config.cdm:
            return denoising_losses(F.mse_loss(output, batch.target), output, batch, objective)
        return diffusion_losses(batch, inputs, output, self.schedule, objective)

    # Inference: all of it in unit-variance scaling, except `carry` -------------------------------

    def carry(self, source: Tensor, direction: int, score: ScoreConfig) -> Tensor:
        """Carries by the posterior mean, or by full samples if the score's kind is ``sample``."""
        condition = source * self.scale
        draws = score.samples if score.kind == "sample" else score.draws
        noise = shared_noise(draws, source.shape[1], score.seed, source.device)
        if score.kind == "sample":
            return unit(self.sample(condition, direction, noise, score))
        return unit(self.posterior_mean(condition, direction, noise))

    def modulation(self, condition: Tensor, direction: int, log_snr: Tensor) -> Modulation:
        """The modulation of (B, D) conditions in one direction at one noise level."""
        directions = bst.one_way(condition, direction)
        return self.denoiser.modulation(log_snr.expand(len(condition)), directions, condition)

    def clean(self, z: Tensor, log_snr: Tensor, modulation: Modulation) -> Tensor:
        """The (B, D) clean targets estimated from noisy ones at one noise level."""
        level = self.schedule.level(log_snr)
        output = self.denoiser.denoise(z, modulation)
        return clean_estimate(self.config.objective.prediction, output, z, level)

    def posterior_mean(self, condition: Tensor, direction: int, noise: Tensor) -> Tensor:
        """The expected targets of (B, D) conditions, averaged over (K, D) shared draws."""
        if not self.config.cdm:  # nothing is drawn, and nothing to average
            directions = bst.one_way(condition, direction)
            return deterministic_bridge(self.denoiser, directions, condition)
        # At the highest noise level z is noise alone, so that one denoising is E[x | condition].
        log_snr = condition.new_tensor(-LOG_SNR_MAX)
        modulation = self.modulation(condition, direction, log_snr)
        level, prediction = self.schedule.level(log_snr), self.config.objective.prediction
        means = []
        for z in noise:
            output = self.denoiser.denoise_shared(z, modulation)
            means.append(clean_estimate(prediction, output, z, level))
        return torch.stack(means).mean(0)

    def sample(
        self, condition: Tensor, direction: int, noise: Tensor, score: ScoreConfig
    ) -> Tensor:
        """Mean of K full reverse-diffusion samples per condition, from (K, D) shared draws.

        Args:
            condition: (B, D).
            direction: index of `bst.DIRECTIONS`.
            noise: (K, D) standard normal, shared by all conditions, where their K paths start,
                or what is added to the query where paths start from it; (K, B, D) gives every
                condition its own.
            score: sampler, steps, start and classifier-free guidance.
        """
        null = self.denoiser.null(len(condition))

        def estimate(z: Tensor, log_snr: Tensor) -> Tensor:
            shared = log_snr[0]  # samplers take all rows through the same levels
            conditional = self.clean(z, shared, self.modulation(condition, direction, shared))
            if score.guidance == 1.0:  # half the work
                return conditional
            free = self.clean(z, shared, self.modulation(null, direction, shared))
            # Ho & Salimans 2022, eq. 6, guidance being 1 + w; x0 is affine in their eps.
            return free + score.guidance * (conditional - free)

        samples = []
        for number, start in enumerate(noise):
            seed = score.seed + STEP_NOISE + number
            z = start.expand_as(condition)
            samples.append(self._sample_path(estimate, condition, z, score, seed))
        return torch.stack(samples).mean(0)

    def _sample_path(
        self, estimate: CleanEstimator, query: Tensor, z: Tensor, score: ScoreConfig, seed: int
    ) -> Tensor:
        """One sample per query from noise z; a stochastic sampler's steps share their noise too."""
        generator, start = Generator().manual_seed(seed), 1.0

        def draw(like: Tensor) -> Tensor:
            return torch.randn(like.shape[1], generator=generator).to(like).expand_as(like)

        if score.start == "query":
            start = score.start_t
            z = noise_query(query, z, self.schedule, start)
        steps, sampler = score.sample_steps, score.sampler
        return reverse(sampler, estimate, z, self.schedule, steps=steps, start=start, draw=draw)
