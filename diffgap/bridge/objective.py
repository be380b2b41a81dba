"""The training objective: denoising error plus InfoNCE on the denoised prediction.

A step's randomness is drawn for the whole batch, then a data-parallel worker keeps its share of
the examples. InfoNCE compares each prediction with the clean targets of the *whole* batch, which
every worker holds, so that any number of workers computes the same gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diffgap.bridge.denoiser import Denoiser
from diffgap.bridge.predictions import clean_estimate, prediction_target
from diffgap.bridge.schedules import LOG_SNR_MAX, NoiseLevel, Schedule, noise_level, power_t


@dataclass(frozen=True)
class Bank:
    """The clean targets of the whole batch, (N, D), with their directions and clips, (N,)."""

    target: Tensor
    direction: Tensor
    clip: Tensor


@dataclass(frozen=True)
class Batch:
    """B examples ready to be denoised, in unit-variance scaling; `bank` is never sharded."""

    target: Tensor
    """(B, D) clean targets."""
    noise: Tensor
    """(B, D) standard normal."""
    condition: Tensor
    """(B, D) conditions, condition noise already added."""
    dropped: Tensor
    """(B,) bool: examples that see the null condition instead."""
    direction: Tensor
    """(B,) int64, an index of `bst.DIRECTIONS`."""
    t: Tensor
    """(B,) noise times in (0, 1)."""
    row: Tensor
    """(B,) where each example's own target stands in the bank."""
    bank: Bank

    def shard(self, rank: int, workers: int) -> Batch:
        """The share of one data-parallel worker: every `workers`-th example."""
        if workers == 1:
            return self
        mine = slice(rank, None, workers)
        names = ("target", "noise", "condition", "dropped", "direction", "t", "row")
        return replace(self, **{name: getattr(self, name)[mine] for name in names})


class Losses(NamedTuple):
    """Scalars of one step: what is minimised, and its two parts."""

    total: Tensor
    mse: Tensor
    infonce: Tensor


def make_batch(
    x: Tensor,
    a: Tensor,
    clip: Tensor,
    pairs: Tensor,
    direction: Tensor,
    *,
    power: float,
    condition_noise: float,
    condition_dropout: float,
    generator: torch.Generator,
) -> Batch:
    """Turns pairs into denoising examples, drawing times, noise and dropped conditions.

    Args:
        x: (P, D) text or video embeddings of the batch's pairs, in unit-variance scaling.
        a: (P, D) their audio embeddings.
        clip: (P,) int64, which clip a pair shows; captions of one clip are no negatives.
        pairs: (B,) the pair of each example, and
        direction: (B,) its direction; both from `bst.assign`.
        power: skew of the noise times to high noise.
        condition_noise: standard deviation of the Gaussian noise on conditions.
        condition_dropout: probability of the null condition.
        generator: source of all randomness, on the device of x.
    """
    forward = (direction == 0)[:, None]
    x, a, clip = x[pairs], a[pairs], clip[pairs]
    target, condition = torch.where(forward, a, x), torch.where(forward, x, a)
    noise, jitter = torch.randn(
        (2, *target.shape), generator=generator, device=x.device, dtype=x.dtype
    )
    u, drop = torch.rand((2, len(pairs)), generator=generator, device=x.device, dtype=x.dtype)
    return Batch(
        target=target,
        noise=noise,
        condition=condition + condition_noise * jitter,
        dropped=drop < condition_dropout,
        direction=direction,
        t=power_t(u, power),
        row=torch.arange(len(pairs), device=x.device),
        bank=Bank(target, direction, clip),
    )


def infonce(clean: Tensor, batch: Batch, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al. 2018) of predictions against the batch's clean targets.

    Each prediction must single out its own target among those of its direction; other pairs of
    the same clip are left out, being right answers too. Returns the mean over the (B, D) rows.
    """
    bank = batch.bank
    logits = F.normalize(clean, dim=-1) @ F.normalize(bank.target, dim=-1).T / temperature
    own = batch.row[:, None] == torch.arange(len(bank.clip), device=clean.device)
    same_clip = bank.clip[batch.row][:, None] == bank.clip
    negative = (batch.direction[:, None] == bank.direction) & ~same_clip
    return F.cross_entropy(logits.masked_fill(~(own | negative), -torch.inf), batch.row)


def diffusion_losses(
    denoiser: Denoiser,
    batch: Batch,
    *,
    schedule: Schedule,
    prediction: str,
    infonce_weight: float,
    temperature: float,
) -> Losses:
    """The loss of the Contrastive Diffusion Module on one batch.

    Mean squared error of the predicted eps (the paper), x0 or v, plus `infonce_weight` times
    InfoNCE between the denoised predictions and the clean targets (ours).
    """
    log_snr = schedule(batch.t)
    level = NoiseLevel(*(part[:, None] for part in noise_level(log_snr)))
    z = level.alpha * batch.target + level.sigma * batch.noise
    condition = torch.where(batch.dropped[:, None], denoiser.null_condition, batch.condition)
    output = denoiser(z, log_snr, batch.direction, condition)
    wanted = prediction_target(prediction, batch.target, batch.noise, level)
    return _losses(
        F.mse_loss(output, wanted),
        infonce(clean_estimate(prediction, output, z, level), batch, temperature),
        infonce_weight,
    )


def deterministic_losses(
    denoiser: Denoiser, batch: Batch, *, infonce_weight: float, temperature: float
) -> Losses:
    """The same losses for the network as a deterministic bridge: no noisy input, no noise level."""
    output = deterministic_bridge(denoiser, batch.direction, batch.condition)
    return _losses(
        F.mse_loss(output, batch.target), infonce(output, batch, temperature), infonce_weight
    )


def deterministic_bridge(denoiser: Denoiser, direction: Tensor, condition: Tensor) -> Tensor:
    """The (B, D) targets that a network without diffusion predicts from (B, D) conditions."""
    no_level = condition.new_full((len(condition),), -LOG_SNR_MAX)
    return denoiser(torch.zeros_like(condition), no_level, direction, condition)


def _losses(mse: Tensor, contrastive: Tensor, weight: float) -> Losses:
    return Losses(mse + weight * contrastive, mse, contrastive)
