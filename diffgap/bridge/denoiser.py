"""Denoiser: one residual MLP for both directions, modulated by noise level and condition.

A forward pass has two halves. `modulation` embeds what the denoising is conditioned on (noise
level, direction, condition), and `denoise` applies it to a noisy target. They can be called apart:
scoring one query against fifty candidates needs the query's modulation only once.

All embeddings are in unit-variance scaling, ``sqrt(D) * unit vector``. Everything may have a
leading axis of networks, (K, B, D), where the layers have one: see `stacked`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FOURIER_FEATURES = 32


class DenoiserInput(NamedTuple):
    """Inputs of a denoiser, B rows."""

    noisy: Tensor  # (B, D) noisy targets
    log_snr: Tensor  # (B,) their log signal-to-noise ratio
    direction: Tensor  # (B,) int64, an index of `bst.DIRECTIONS`
    condition: Tensor  # (B, D)


class Modulation(NamedTuple):
    """The conditioning of a denoising, B rows."""

    condition: Tensor  # (B, D) the condition itself, or the null condition
    scale_shift: Tensor  # (B, L, 2, W) scale and shift of every residual block


class Block(nn.Module):
    """``h + W2 silu(W1 (LN(h) * (1 + scale) + shift))``, with adaptive LayerNorm (DiT, 2023)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)  # scale and shift are modulated
        self.w1 = nn.Linear(width, width)
        self.w2 = nn.Linear(width, width)
        nn.init.zeros_(self.w2.weight)  # the block starts as the identity
        nn.init.zeros_(self.w2.bias)

    def forward(self, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return h + self.w2(F.silu(self.w1(torch.addcmul(shift, self.norm(h), 1 + scale))))


class Denoiser(nn.Module):
    """Conditional denoiser of D-dimensional embeddings, for both directions: W wide, L blocks."""

    frequencies: Tensor

    def __init__(self, dimension: int, width: int, blocks: int) -> None:
        super().__init__()
        self.width = width
        # Log-SNR spans 20: the slowest wave turns 1 rad over it, the fastest resolves about 1.
        # On the CPU even where only shapes are asked for: on the meta device torch would import its
        # compiler for this, which takes two seconds.
        logs = torch.linspace(math.log(0.05), math.log(2.0), FOURIER_FEATURES // 2, device="cpu")
        self.register_buffer("frequencies", logs.exp(), persistent=False)
        self.null_condition = nn.Parameter(torch.zeros(dimension))
        self.embed = nn.Sequential(
            nn.Linear(FOURIER_FEATURES + 2 + dimension, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.modulate = nn.Linear(width, blocks * 2 * width)
        self.input = nn.Linear(3 * dimension, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, dimension)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def modulation(self, log_snr: Tensor, direction: Tensor, condition: Tensor) -> Modulation:
        """The modulation of a denoising; see `DenoiserInput` for the arguments."""
        angles = log_snr[..., None] * self.frequencies
        one_hot = F.one_hot(direction, 2).to(condition.dtype)
        features = torch.cat([angles.sin(), angles.cos(), one_hot, condition], dim=-1)
        scale_shift = self.modulate(F.silu(self.embed(features)))
        return Modulation(condition, scale_shift.unflatten(-1, (len(self.blocks), 2, self.width)))

    def denoise(self, noisy: Tensor, modulation: Modulation) -> Tensor:
        """Denoises (B, D) noisy targets under B modulations; returns the raw output (B, D)."""
        condition = modulation.condition
        # The product is what a cosine is the sum of: an MLP multiplies its inputs only poorly.
        h = self.input(torch.cat([noisy, condition, noisy * condition], dim=-1))
        return self.refine(h, modulation.scale_shift)

    def denoise_shared(self, noisy: Tensor, modulation: Modulation) -> Tensor:
        """Denoises one (D,) noisy target under B modulations; returns the raw output (B, D)."""
        # With z fixed, the input layer A z + B c + C (z c) is affine in c: (B + C diag(z)) c + A z,
        # a third of its work.
        noisy_weight, condition_weight, product_weight = self.input.weight.chunk(3, dim=1)
        weight = torch.addcmul(condition_weight, product_weight, noisy)
        bias = torch.addmv(self.input.bias, noisy_weight, noisy)
        return self.refine(F.linear(modulation.condition, weight, bias), modulation.scale_shift)

    def refine(self, h: Tensor, scale_shift: Tensor) -> Tensor:
        """The layers after the input layer: its (B, W) output, modulated by (B, L, 2, W)."""
        # Unbound at once: indexed one by one, each slice would have a gradient of the full size.
        for block, modulation in zip(self.blocks, scale_shift.unbind(-3), strict=True):
            h = block(h, *modulation.unbind(-2))
        output: Tensor = self.output(F.silu(self.norm(h)))
        return output

    def forward(
        self, noisy: Tensor, log_snr: Tensor, direction: Tensor, condition: Tensor
    ) -> Tensor:
        """The network's raw output (B, D), a prediction of the kinds in `predictions`."""
        return self.denoise(noisy, self.modulation(log_snr, direction, condition))

    def null(self, rows: int) -> Tensor:
        """The learned null condition of classifier-free guidance, (rows, D)."""
        return self.null_condition.expand(rows, -1)
