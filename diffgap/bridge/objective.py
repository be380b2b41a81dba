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

from diffgap.bridge.config import Objective
from diffgap.bridge.denoiser import Denoiser, DenoiserInput
from diffgap.bridge.predictions import clean_estimate, prediction_target
from diffgap.bridge.schedules import LOG_SNR_MAX, NoiseLevel, Schedule
from diffgap.bridge.times import draw_times
from diffgap.bridge.weights import loss_weight


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
    source: Tensor
    """(B, D) what noise is added to: the target, but for Diffusion-Link."""
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
        names = ("target", "source", "noise", "condition", "dropped", "direction", "t", "row")
        return replace(self, **{name: getattr(self, name)[mine] for name in names})


class Losses(NamedTuple):
    """Scalars of one step: what is minimised, and its two parts."""

    total: Tensor
    mse: Tensor
    auxiliary: Tensor
    """What `Bridge.auxiliary` names: InfoNCE, but for siblings."""

    @classmethod
    def without_auxiliary(cls, mse: Tensor) -> Losses:
        return cls(mse, mse, torch.zeros_like(mse))


def make_batch(
    x: Tensor,
    a: Tensor,
    clip: Tensor,
    pairs: Tensor,
    direction: Tensor,
    objective: Objective,
    generator: torch.Generator,
) -> Batch:
    """Turns pairs into denoising examples, drawing times, noise and dropped conditions.

    Args:
        x: (P, D) text or video embeddings of the batch's pairs, in unit-variance scaling.
        a: (P, D) their audio embeddings.
        clip: (P,) int64, which clip a pair shows; captions of one clip are no negatives.
        pairs: (B,) the pair of each example, and
        direction: (B,) its direction; both from `bst.assign`.
        objective: how noise times are drawn, and what is done to conditions.
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
        source=target,
        noise=noise,
        condition=condition + objective.condition_noise * jitter,
        dropped=drop < objective.condition_dropout,
        direction=direction,
        t=draw_times(
            u,
            objective.t_sampler,
            power=objective.power,
            mean=objective.t_mean,
            std=objective.t_std,
        ),
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


def diffusion_input(denoiser: Denoiser, batch: Batch, schedule: Schedule) -> DenoiserInput:
    """Adds the batch's noise to its sources, for the network to take away."""
    log_snr = schedule(batch.t)
    level = level_of(schedule, log_snr)
    noisy = level.alpha * batch.source + level.sigma * batch.noise
    condition = torch.where(batch.dropped[:, None], denoiser.null_condition, batch.condition)
    return DenoiserInput(noisy, log_snr, batch.direction, condition)


def level_of(schedule: Schedule, log_snr: Tensor) -> NoiseLevel:
    """The noise level of (B,) log-SNRs, each part of (B, 1)."""
    return NoiseLevel(*(part[:, None] for part in schedule.level(log_snr)))


def diffusion_losses(
    batch: Batch, given: DenoiserInput, output: Tensor, schedule: Schedule, objective: Objective
) -> Losses:
    """The loss of the Contrastive Diffusion Module on one batch.

    Weighted squared error of the predicted eps (the paper), x0 or v, plus InfoNCE between the
    denoised predictions and the clean targets (ours).

    Args:
        batch: what was to be predicted.
        given: what the network was given, from `diffusion_input`.
        output: (B, D) what it made of it.
        schedule: that noise was added by.
        objective: what is minimised.
    """
    level = level_of(schedule, given.log_snr)
    wanted = prediction_target(objective.prediction, batch.target, batch.noise, level)
    errors = (output - wanted).square().mean(-1)
    weight = loss_weight(
        objective.weight,
        objective.prediction,
        given.log_snr,
        schedule.level(given.log_snr),
        gamma=objective.gamma,
        bias=objective.bias,
    )
    clean = clean_estimate(objective.prediction, output, given.noisy, level)
    return denoising_losses((weight * errors).mean(), clean, batch, objective)


def deterministic_input(direction: Tensor, condition: Tensor) -> DenoiserInput:
    """What a network without diffusion gets: no noisy input, no noise level; (B, D) conditions."""
    no_level = condition.new_full((len(condition),), -LOG_SNR_MAX)
    return DenoiserInput(torch.zeros_like(condition), no_level, direction, condition)


def deterministic_bridge(denoiser: Denoiser, direction: Tensor, condition: Tensor) -> Tensor:
    """The (B, D) targets that a network without diffusion predicts from (B, D) conditions."""
    output: Tensor = denoiser(*deterministic_input(direction, condition))
    return output


def denoising_losses(mse: Tensor, clean: Tensor, batch: Batch, objective: Objective) -> Losses:
    """The squared error and InfoNCE of (B, D) clean estimates, weighed by the objective."""
    denoising = objective.denoising_weight * mse
    if objective.infonce_weight == 0:
        return Losses(denoising, mse, torch.zeros_like(mse))
    contrastive = infonce(clean, batch, objective.temperature)
    return Losses(denoising + objective.infonce_weight * contrastive, mse, contrastive)
