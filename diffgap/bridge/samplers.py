"""Reverse diffusion: from noise to an embedding. Pure functions of a clean-target estimator.

Every sampler walks down a decreasing list of times and takes its last step to no noise at all,
which ends in the clean estimate: one step from pure noise is the posterior mean. They work for any
``z = alpha x + sigma e``, variance preserving or not.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from diffgap.bridge.predictions import convert
from diffgap.bridge.schedules import NoiseLevel, Schedule

CleanEstimator = Callable[[Tensor, Tensor], Tensor]
"""(z (B, D), log-SNR (B,)) -> the estimate of the clean target, (B, D)."""

Draw = Callable[[Tensor], Tensor]
"""Standard normal noise shaped like its argument."""

Sampler = Callable[[CleanEstimator, Tensor, Schedule, Tensor, Draw], Tensor]
"""(estimate, z (B, D), schedule, times (S + 1,) decreasing to 0, draw) -> samples (B, D)."""


class SamplerStep(NamedTuple):
    """A noise level on the way down, all scalars."""

    log_snr: Tensor
    position: Tensor
    level: NoiseLevel


def _points(schedule: Schedule, times: Tensor) -> list[SamplerStep]:
    """The S levels at which the estimator is called: all but the last, which has no noise."""
    log_snr = schedule(times[:-1])
    levels = map(NoiseLevel, *schedule.level(log_snr))
    return list(map(SamplerStep, log_snr, schedule.position(log_snr), levels))


def _clean(estimate: CleanEstimator, z: Tensor, at: SamplerStep) -> Tensor:
    return estimate(z, at.log_snr.expand(len(z)))


def _carry(z: Tensor, clean: Tensor, now: NoiseLevel, after: NoiseLevel) -> Tensor:
    """Keeps the noise of z, given its clean target, and scales both to the next level.

    DDIM's step (Song et al. 2020, eq. 12 with their sigma = 0).
    """
    return after.alpha * clean + after.sigma * convert(clean, z, now, "x0", "eps")


def ddpm(
    estimate: CleanEstimator, z: Tensor, schedule: Schedule, times: Tensor, draw: Draw
) -> Tensor:
    """Ancestral sampling from ``q(z_s | z_t, x)``, x the clean estimate; one call a step.

    Ho et al. 2020, eq. 6-7, in log-SNR form (Kingma et al. 2021, appendix A). With ``c = 1 -
    exp(lambda_t - lambda_s) = sigma_{t|s}^2 / sigma_t^2``, the share of z_t's noise that came after
    s, the mean is ``c alpha_s x + (1 - c) alpha_s / alpha_t z_t`` and the variance ``c sigma_s^2``.
    """
    points = _points(schedule, times)
    for now, after in pairwise(points):
        clean = _clean(estimate, z, now)
        fresh = -torch.expm1(now.log_snr - after.log_snr)
        mean = after.level.alpha * (fresh * clean + (1 - fresh) * z / now.level.alpha)
        z = mean + after.level.sigma * fresh.sqrt() * draw(z)
    return _clean(estimate, z, points[-1])


def ddim(
    estimate: CleanEstimator, z: Tensor, schedule: Schedule, times: Tensor, draw: Draw
) -> Tensor:
    """Deterministic DDIM (Song et al. 2020, eq. 12); first order, one call a step."""
    points = _points(schedule, times)
    for now, after in pairwise(points):
        z = _carry(z, _clean(estimate, z, now), now.level, after.level)
    return _clean(estimate, z, points[-1])


def heun(
    estimate: CleanEstimator, z: Tensor, schedule: Schedule, times: Tensor, draw: Draw
) -> Tensor:
    """Heun's second-order steps (Karras et al. 2022, algorithm 1); two calls a step but the last.

    Their algorithm takes any parametrisation of the path. Ours is the one that v is the derivative
    in, the angle or sigma (their s(t) = cos t, sigma(t) = tan t; or 1 - t and t / (1 - t)): there
    the slope stays bounded. Against sigma / alpha, which falls from 148 to 6 in the first of ten
    cosine steps, the mean of the two slopes is far off.
    """
    points = _points(schedule, times)
    for now, after in pairwise(points):
        step = after.position - now.position
        slope = _velocity(estimate, z, now)
        slope_after = _velocity(estimate, z + step * slope, after)
        z = z + step * (slope + slope_after) / 2
    return _clean(estimate, z, points[-1])


def _velocity(estimate: CleanEstimator, z: Tensor, at: SamplerStep) -> Tensor:
    """The derivative of z along the path that keeps its noise, ``d_alpha x + d_sigma e``."""
    return convert(_clean(estimate, z, at), z, at.level, "x0", "v")


def dpmpp_2m(
    estimate: CleanEstimator, z: Tensor, schedule: Schedule, times: Tensor, draw: Draw
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2); second order, one call a step.

    Extrapolates the last two clean estimates linearly in log-SNR, half a step ahead; the first
    step has one estimate only and is DDIM's. The ratio r of two steps is the same in log-SNR as in
    the paper's half log-SNR.
    """
    points = _points(schedule, times)
    before: tuple[Tensor, Tensor] | None = None
    for now, after in pairwise(points):
        clean = ahead = _clean(estimate, z, now)
        step = after.log_snr - now.log_snr
        if before is not None:
            last_clean, last_step = before
            ahead = clean + (clean - last_clean) * step / (2 * last_step)
        z = _carry(z, ahead, now.level, after.level)
        before = clean, step
    return _clean(estimate, z, points[-1])


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "heun": heun, "dpmpp_2m": dpmpp_2m}


def reverse(
    name: str,
    estimate: CleanEstimator,
    z: Tensor,
    schedule: Schedule,
    *,
    steps: int,
    start: float = 1.0,
    draw: Draw,
) -> Tensor:
    """(B, D) samples by a sampler of `SAMPLERS`, in S = `steps` steps uniform in t.

    Args:
        estimate: the model's clean target for a noisy one.
        z: (B, D) where the path begins: standard normal at ``start`` 1, or from `noise_query`.
        start: the t of z, in (0, 1].
        draw: source of noise; only ``ddpm`` uses it.
    """
    assert steps >= 1, steps
    times = torch.linspace(start, 0.0, steps + 1, device=z.device, dtype=z.dtype)
    return SAMPLERS[name](estimate, z, schedule, times, draw)


def noise_query(query: Tensor, noise: Tensor, schedule: Schedule, start: float) -> Tensor:
    """The start of a path from (B, D) queries of the other modality: noised to t = `start`.

    Queries are in unit-variance scaling, the (B, D) noise is standard normal.
    """
    level = schedule.level(schedule(query.new_tensor(start)))
    return level.alpha * query + level.sigma * noise
