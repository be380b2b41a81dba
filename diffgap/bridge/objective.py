"""Training objective: denoising error plus InfoNCE on the denoised prediction.

A step's randomness is drawn for the whole batch, of which a data-parallel worker then takes its
share. InfoNCE compares each prediction with the clean targets of the *whole* batch, which every
worker holds, so that any number of workers computes the same gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from diffgap.bridge import bst
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

    target: Tensor  # (B, D) clean targets
    source: Tensor  # (B, D) what noise is added to: the target, except in Diffusion-Link
    noise: Tensor  # (B, D) standard normal
    condition: Tensor  # (B, D) conditions, condition noise already added
    dropped: Tensor  # (B,) bool: examples that get the null condition instead
    direction: Tensor  # (B,) int64, an index of `bst.DIRECTIONS`
    t: Tensor  # (B,) noise times in (0, 1)
    row: Tensor  # (B,) the row of each example's target in the bank
    bank: Bank

    def shard(self, rank: int, workers: int) -> Batch:
        """The share of one data-parallel worker: every `workers`-th example."""
        if workers == 1:
            return self
        # Strided: in blocks, `split` BST would give some workers only one direction.
        return self.part(slice(rank, None, workers))

    def part(self, rows: slice) -> Batch:
        """Some of the examples, with the whole bank."""
        names = ("target", "source", "noise", "condition", "dropped", "direction", "t", "row")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


class Losses(NamedTuple):
    """Losses of one step, scalars: the minimised total, and its two parts."""

    total: Tensor
    mse: Tensor
    auxiliary: Tensor  # the part that `Bridge.auxiliary` names: InfoNCE in DiffGAP

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
    generator: Generator,
) -> Batch:
    """Turns pairs into denoising examples, drawing times, noise and dropped conditions.

    Args:
        x: (P, D) text or video embeddings of the batch's pairs, in unit-variance scaling.
        a: (P, D) their audio embeddings.
        clip: (P,) int64, the clip of each pair; captions of one clip are no negatives.
        pairs: (B,) the pair of each example, from `bst.assign`.
        direction: (B,) its direction, from the same.
        objective: how noise times are drawn, and what is done to conditions.
        generator: source of all randomness, on the device of x.
    """
    pairs, direction = pairs.to(x.device), direction.to(x.device)
    forward = (direction == bst.X_TO_A)[:, None]
    x, a, clip = x[pairs], a[pairs], clip[pairs]
    target, condition = torch.where(forward, a, x), torch.where(forward, x, a)
    # Two calls draw all randomness; another number or order of draws would change every result.
    noise, condition_noise = torch.randn(
        (2, *target.shape), generator=generator, device=x.device, dtype=x.dtype
    )
    u, drop = torch.rand((2, len(pairs)), generator=generator, device=x.device, dtype=x.dtype)
    kind, mean, std = objective.t_sampler, objective.t_mean, objective.t_std
    return Batch(
        target=target,
        source=target,
        noise=noise,
        condition=condition + objective.condition_noise * condition_noise,
        dropped=drop < objective.condition_dropout,
        direction=direction,
        t=draw_times(u, kind, power=objective.power, mean=mean, std=std),
        row=torch.arange(len(pairs), device=x.device),
        bank=Bank(target, direction, clip),
    )


def infonce(clean: Tensor, batch: Batch, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, eq. 4) of predictions against the batch's clean targets.

    Each prediction must single out its target among those of its direction. Returns the mean over
    the (B, D) rows.
    """
    bank = batch.bank
    logits = F.normalize(clean, dim=-1) @ F.normalize(bank.target, dim=-1).T / temperature
    is_target = batch.row[:, None] == torch.arange(len(bank.clip), device=clean.device)
    # Other captions of the same clip are right answers too: neither targets nor negatives.
    same_clip = bank.clip[batch.row][:, None] == bank.clip
    # Targets of the other direction are of the other modality, and told apart by the gap alone.
    is_negative = (batch.direction[:, None] == bank.direction) & ~same_clip
    return F.cross_entropy(logits.masked_fill(~(is_target | is_negative), -torch.inf), batch.row)


def diffusion_input(denoiser: Denoiser, batch: Batch, schedule: Schedule) -> DenoiserInput:
    """The network's inputs: sources with the batch's noise, and conditions or the null one."""
    log_snr = schedule(batch.t)
    level = level_of(schedule, log_snr)
    noisy = level.alpha * batch.source + level.sigma * batch.noise
    condition = torch.where(batch.dropped[:, None], denoiser.null_condition, batch.condition)
    return DenoiserInput(noisy, log_snr, batch.direction, condition)


def level_of(schedule: Schedule, log_snr: Tensor) -> NoiseLevel:
    """The noise level of (B,) log-SNRs, each part of (B, 1)."""
    return NoiseLevel(*(part[:, None] for part in schedule.level(log_snr)))


def diffusion_losses(
    batch: Batch, inputs: DenoiserInput, output: Tensor, schedule: Schedule, objective: Objective
) -> Losses:
    """The loss of the Contrastive Diffusion Module on one batch.

    Weighted squared error of the predicted eps (the paper), x0 or v, plus InfoNCE between the
    denoised predictions and the clean targets (ours). The network's inputs are those of
    `diffusion_input`, its output (B, D).
    """
    level = level_of(schedule, inputs.log_snr)
    target = prediction_target(objective.prediction, batch.target, batch.noise, level)
    errors = (output - target).square().mean(-1)
    weight = loss_weight(
        objective.weight,
        objective.prediction,
        inputs.log_snr,
        schedule.level(inputs.log_snr),
        gamma=objective.gamma,
        bias=objective.bias,
    )
    # InfoNCE compares embeddings, so whatever is predicted is first converted to x0.
    clean = clean_estimate(objective.prediction, output, inputs.noisy, level)
    return denoising_losses((weight * errors).mean(), clean, batch, objective)


def deterministic_input(direction: Tensor, condition: Tensor) -> DenoiserInput:
    """The inputs of a network without diffusion: (B, D) conditions alone, at one noise level."""
    # The same network as with diffusion, at the pure-noise end with a noisy target of 0: the
    # ablation compares objectives, not architectures.
    log_snr = condition.new_full((len(condition),), -LOG_SNR_MAX)
    return DenoiserInput(torch.zeros_like(condition), log_snr, direction, condition)


def deterministic_bridge(denoiser: Denoiser, direction: Tensor, condition: Tensor) -> Tensor:
    """The (B, D) targets that a network without diffusion predicts from (B, D) conditions."""
    output: Tensor = denoiser(*deterministic_input(direction, condition))
    return output


def denoising_losses(mse: Tensor, clean: Tensor, batch: Batch, objective: Objective) -> Losses:
    """The squared error plus InfoNCE of (B, D) clean estimates, weighted by the objective."""
    denoising = objective.denoising_weight * mse
    if objective.infonce_weight == 0:  # (B, B) logits that nothing would come of
        return Losses(denoising, mse, torch.zeros_like(mse))
    contrastive = infonce(clean, batch, objective.temperature)
    return Losses(denoising + objective.infonce_weight * contrastive, mse, contrastive)
