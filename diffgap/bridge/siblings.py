"""Sibling methods: other answers to the modality gap, on the same stores, scores and network.

Where a paper leaves something open, the docstring says what is ours. Trained siblings use DiffGAP's
denoiser, so that a difference in a table is the method's and not the network's.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffgap.bridge import bst
from diffgap.bridge.base import Bridge, shared_noise, unit
from diffgap.bridge.config import BridgeConfig, Objective, ScoreConfig
from diffgap.bridge.denoiser import Denoiser, DenoiserInput
from diffgap.bridge.objective import (
    Batch,
    Losses,
    deterministic_bridge,
    deterministic_input,
    diffusion_input,
    level_of,
    make_batch,
)
from diffgap.bridge.predictions import clean_estimate
from diffgap.bridge.samplers import noise_query, reverse
from diffgap.bridge.schedules import SCHEDULES

X, A = 0, 1


class Centred(Bridge):
    """A method that subtracts the mean of each modality over the training split."""

    moves_space = True
    means: Tensor

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.register_buffer("means", torch.zeros(2, config.dimension))

    @property
    def directions(self) -> tuple[int, ...]:
        return ()

    def fit(self, x: Tensor, a: Tensor, owner: Tensor) -> None:
        self.means = torch.stack([x.mean(0), a.mean(0)]).to(self.means)

    def space(self, vectors: Tensor, side: int) -> Tensor:
        """Centred and re-normalised vectors."""
        return unit(vectors - self.means[side])


class Center(Centred):
    """Subtracts each modality's mean; post-hoc standardisation of I0T (An et al. 2025)."""


class MeanShift(Centred):
    """Moves x along the difference of the means (Liang et al. 2022, section 4.2)."""

    def space(self, vectors: Tensor, side: int) -> Tensor:
        if side == A:
            return vectors
        return unit(vectors + self.config.options["scale"] * (self.means[A] - self.means[X]))


class Bidirectional(Centred):
    """A centred method whose network learns both directions."""

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.denoiser = Denoiser(config.dimension, config.width, config.blocks)

    @property
    def directions(self) -> tuple[int, ...]:
        return (bst.X_TO_A, bst.A_TO_X)


class Close(Bidirectional):
    """Collapse and corrupt, of C3 (Zhang et al., ICLR 2024).

    On centred embeddings a network learns to undo Gaussian noise within one modality, without
    pairs, and is then given the other modality's embeddings. Ours: the network, which C3 has as a
    task's decoder, is DiffGAP's as a deterministic bridge; both directions are trained.
    """

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.scale = config.dimension**0.5

    def batch(
        self,
        x: Tensor,
        a: Tensor,
        clip: Tensor,
        step: int,
        generator: Generator,
        average: Bridge | None = None,
    ) -> Batch:
        objective = Objective(condition_noise=0.0, condition_dropout=0.0)
        batch = split_batch(self, x, a, clip, objective, self.scale, generator)
        # C3's noise is on unit vectors (standard deviation 0.04 to 0.13), and the target itself is
        # corrupted: no pair is used.
        noisy = unit(batch.target / self.scale + self.config.options["noise"] * batch.noise)
        return replace(batch, condition=noisy * self.scale)

    def denoiser_input(self, batch: Batch) -> DenoiserInput:
        return deterministic_input(batch.direction, batch.condition)

    def losses(self, batch: Batch, inputs: DenoiserInput, output: Tensor) -> Losses:
        return Losses.without_auxiliary(F.mse_loss(output, batch.target))

    def carry(self, source: Tensor, direction: int, score: ScoreConfig) -> Tensor:
        directions = bst.one_way(source, direction)
        return unit(deterministic_bridge(self.denoiser, directions, source * self.scale))


class DiffusionLink(Bridge):
    """Diffusion-Link (Nam et al., arXiv 2510.11330): audio to text, by three residual blocks.

    The denoiser turns noised audio *or* noised text into the paired text, so that a reverse path
    may start at the query, noised to `start_t`, and continue as text; a second loss keeps the
    batch's similarity structure. Ours: steps, noise times, the share of each source (half), and
    the form of that loss, the squared difference of cosines to the batch's targets.
    """

    auxiliary = "topology"
    blocks = 3
    objective = Objective(
        t_sampler="uniform", infonce_weight=0.0, condition_noise=0.0, condition_dropout=1.0
    )

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.denoiser = Denoiser(config.dimension, config.width, self.blocks)
        self.schedule = SCHEDULES[config.schedule]
        self.scale = config.dimension**0.5

    @property
    def directions(self) -> tuple[int, ...]:
        return (bst.A_TO_X,)

    def batch(
        self,
        x: Tensor,
        a: Tensor,
        clip: Tensor,
        step: int,
        generator: Generator,
        average: Bridge | None = None,
    ) -> Batch:
        pairs, direction = torch.arange(len(x)), bst.one_way(x, bst.A_TO_X)
        x, a = x * self.scale, a * self.scale
        batch = make_batch(x, a, clip, pairs, direction, self.objective, generator)
        from_audio = torch.rand(len(x), generator=generator, device=x.device) < 0.5
        source = torch.where(from_audio[:, None], batch.condition, batch.target)
        return replace(batch, source=source)

    def denoiser_input(self, batch: Batch) -> DenoiserInput:
        return diffusion_input(self.denoiser, batch, self.schedule)

    def losses(self, batch: Batch, inputs: DenoiserInput, output: Tensor) -> Losses:
        level = level_of(self.schedule, inputs.log_snr)
        clean = clean_estimate(self.objective.prediction, output, inputs.noisy, level)
        bank = unit(batch.bank.target).T
        topology = F.mse_loss(unit(clean) @ bank, unit(batch.target) @ bank)
        mse = F.mse_loss(clean, batch.target)
        return Losses(mse + self.config.options["topology_weight"] * topology, mse, topology)

    def carry(self, source: Tensor, direction: int, score: ScoreConfig) -> Tensor:
        directions = bst.one_way(source, direction)
        null = self.denoiser.null(len(source))
        query, options = source * self.scale, self.config.options
        start, steps = options["start_t"], int(options["steps"])

        def estimate(z: Tensor, log_snr: Tensor) -> Tensor:
            return self.denoiser(z, log_snr, directions, null)

        samples = []
        for noise in shared_noise(score.draws, source.shape[1], score.seed, source.device):
            z = noise_query(query, noise.expand_as(query), self.schedule, start)
            draw = torch.zeros_like  # DDIM is deterministic
            path = reverse("ddim", estimate, z, self.schedule, steps=steps, start=start, draw=draw)
            samples.append(path)
        return unit(torch.stack(samples).mean(0))


def split_batch(
    bridge: Bridge,
    x: Tensor,
    a: Tensor,
    clip: Tensor,
    objective: Objective,
    scale: float,
    generator: Generator,
) -> Batch:
    """A batch in the bridge's space, at length `scale`; half of its pairs in each direction."""
    x, a = bridge.space(x, X) * scale, bridge.space(a, A) * scale
    assigned = bst.assign(len(x), 0, True, "split", 0.5)
    return make_batch(x, a, clip, *assigned, objective, generator)
