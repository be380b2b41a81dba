"""Noise schedules: how much of the target is left at time t.

Everything is continuous in t, from clean (0) to pure noise (1): ``z_t = alpha_t * target +
sigma_t * noise``. A schedule is one strictly falling function, the log signal-to-noise ratio
``lambda(t) = log(alpha_t^2 / sigma_t^2)``, and the way that a log-SNR is shared out between alpha
and sigma: variance preserving (``alpha^2 + sigma^2 = 1``) or straight (``alpha + sigma = 1``).

Every schedule runs from +10 to -10. Its own curve goes to infinity at both ends, so t is squeezed
affinely into the stretch where the curve is within +-10. Clamping the curve instead would leave
flat ends: times that differ but have the same noise, steps of a sampler that go nowhere, no
inverse. And it cannot be let go: where alpha is 0, the clean target read from a predicted noise is
a division by zero. At -10, alpha is 0.7 %, which no network can tell from 0.

A schedule is a function and an entry of `SCHEDULES`; specs take their choices from there, so that
this module does without torch until a schedule is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

LOG_SNR_MAX = 10.0
"""Every schedule falls from this log-SNR at t = 0 to its negative at t = 1."""

OFFSET, MAX_BETA = 0.008, 0.999  # of the discrete cosine schedule, by Nichol & Dhariwal

BISECTIONS = 60  # halvings of [0, 1]: below the spacing of float64 at 1

Curve: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""Log-SNR of t and ``1 - t``. It gets both because in float32 neither end may be computed from
the other: at t = 1 - 2e-6, where `edm` ends, ``1 - t`` has lost all but one digit."""


class NoiseLevel(NamedTuple):
    """A point of the path ``z = alpha * target + sigma * noise``, and the path's derivative.

    All four are shaped like the log-SNR. The derivative, ``v = d_alpha * target + d_sigma *
    noise``, is what a network with v-prediction learns.
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


def noise_level(log_snr: Tensor) -> NoiseLevel:
    """The variance-preserving level of a log-SNR (Kingma et al. 2021, eq. 3-4).

    The derivative is taken in the angle, ``alpha = cos, sigma = sin`` (Salimans & Ho 2022,
    appendix D).
    """
    alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
    return NoiseLevel(alpha, sigma, -sigma, alpha)


def straight_level(log_snr: Tensor) -> NoiseLevel:
    """The level on the straight line ``alpha = 1 - sigma`` (rectified flow, Liu et al. 2022).

    The derivative is taken in sigma: ``noise - target``, the same all along the line.
    """
    alpha, sigma = (log_snr / 2).sigmoid(), (-log_snr / 2).sigmoid()
    return NoiseLevel(alpha, sigma, -alpha.new_ones(alpha.shape), alpha.new_ones(alpha.shape))


@dataclass(frozen=True)
class Schedule:
    """A noise schedule on t in [0, 1]; call it for the log-SNR of times of any shape."""

    name: str
    curve: Curve
    variance_preserving: bool = True

    @cached_property
    def ends(self) -> tuple[float, float, float]:
        """Where the curve is +10, where it is -10, and one minus the latter."""
        import torch

        limits = torch.tensor([LOG_SNR_MAX, -LOG_SNR_MAX], dtype=torch.float64, device="cpu")
        first, last = _bisect(lambda t: self.curve(t, 1 - t), limits).tolist()
        return first, last, 1 - last

    def __call__(self, t: Tensor) -> Tensor:
        """Log-SNR at times t in [0, 1], falling strictly from `LOG_SNR_MAX` to its negative."""
        first, last, one_minus_t = self.ends
        span = last - first
        return self.curve(first + span * t, one_minus_t + span * (1 - t))

    def level(self, log_snr: Tensor) -> NoiseLevel:
        """Alpha, sigma and their derivatives at log-SNRs of any shape."""
        return noise_level(log_snr) if self.variance_preserving else straight_level(log_snr)

    def position(self, log_snr: Tensor) -> Tensor:
        """How far along its path a level is: the coordinate that the derivatives are taken in.

        The angle from 0 to pi / 2 where variance is preserved, else sigma; falls with log-SNR.
        """
        level = self.level(log_snr)
        return level.sigma.atan2(level.alpha) if self.variance_preserving else level.sigma

    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse: the t in [0, 1] of log-SNRs; those out of range give 0 or 1."""
        return _bisect(self, log_snr.double()).to(log_snr.dtype)


def _bisect(falling: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """Where a falling function on [0, 1] has these float64 values."""
    low, high = value.new_zeros(value.shape), value.new_ones(value.shape)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        too_early = falling(middle) > value
        low, high = middle.where(too_early, low), high.where(too_early, middle)
    return (low + high) / 2


def cosine(t: Tensor, one_minus_t: Tensor) -> Tensor:
    """``alpha = cos(pi t / 2)`` (Nichol & Dhariwal 2021, eq. 17, without their offset)."""
    return 2.0 * ((one_minus_t * (math.pi / 2)).sin().log() - (t * (math.pi / 2)).sin().log())


def diffused(t: Tensor, one_minus_t: Tensor, *, c1: float, c2: float, c3: float) -> Tensor:
    """``alpha = exp(-b(t) / 2)`` with ``b = c1 t + c2 t^2 + c3 t^3``, brought to 0 at t = 1.

    b is the integral of the betas (Song et al. 2021, eq. 32-33). Alpha is rescaled to zero
    terminal SNR, ``(alpha - alpha_1) / (1 - alpha_1)`` (Lin et al. 2024, algorithm 1). Both alpha
    and ``1 - alpha`` are then ratios of expm1, in which nothing cancels.
    """
    elapsed = t * (c1 + t * (c2 + t * c3))
    to_come = one_minus_t * (c1 + c2 * (1 + t) + c3 * (1 + t + t.square()))  # b(1) - b(t)
    total = (c1 + c2 + c3) / 2
    alpha = (to_come / 2).expm1() / math.expm1(total)
    rest = (-elapsed / 2).expm1() / math.expm1(-total)  # 1 - alpha
    return 2.0 * alpha.log() - rest.log() - alpha.log1p()


def linear_betas(first: float, last: float, steps: int) -> Curve:
    """DDPM's betas, linear in the step (Ho et al. 2020, section 4), in continuous time."""
    return partial(diffused, c1=steps * first, c2=steps * (last - first) / 2, c3=0.0)


def sqrt_linear_betas(first: float, last: float, steps: int) -> Curve:
    """Betas whose square root is linear in the step (Rombach et al. 2022), in continuous time."""
    start, rise = math.sqrt(first), math.sqrt(last) - math.sqrt(first)
    return partial(diffused, c1=steps * first, c2=steps * start * rise, c3=steps * rise**2 / 3)


def sigmoid(t: Tensor, one_minus_t: Tensor) -> Tensor:
    """``alpha^2`` falls like a sigmoid from -3 to 3, tau 1 (Jabri et al. 2022; Chen 2023, alg. 1).

    ``alpha^2 = (s(3) - s(6t - 3)) / (s(3) - s(-3))`` with s the logistic function; a difference
    ``s(a) - s(b)`` is ``sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2))``, and the cosh cancel.
    """
    return (3.0 * one_minus_t).sinh().log() - (3.0 * t).sinh().log()


def edm(t: Tensor, one_minus_t: Tensor) -> Tensor:
    """``log(sigma / alpha)`` normal in t (Karras et al. 2022, table 1: P_mean -1.2, P_std 1.2).

    Theirs is for data of standard deviation 0.5, ours has 1: the mean shifts by ``-log 0.5``.
    """
    from torch.special import ndtri

    quantile = ndtri(t).where(t < 0.5, -ndtri(one_minus_t))
    return -2.0 * (-1.2 - math.log(0.5) + 1.2 * quantile)


def flow(t: Tensor, one_minus_t: Tensor) -> Tensor:
    """``alpha = 1 - t, sigma = t`` (rectified flow, Liu et al. 2022)."""
    return 2.0 * (one_minus_t.log() - t.log())


def cosine_steps(timesteps: int) -> Tensor:
    """(T,) log-SNR of the steps of a discrete DDPM (Nichol & Dhariwal 2021, eq. 17).

    For methods that were published with it; it ends beyond `LOG_SNR_MAX`.
    """
    import torch

    # On the CPU even where only shapes are asked for: see Denoiser.
    t = torch.arange(timesteps + 1, dtype=torch.float64, device="cpu") / timesteps
    signal = ((t + OFFSET) / (1 + OFFSET) * math.pi / 2).cos().square()
    return (signal[1:] / signal[:-1]).clamp(min=1 - MAX_BETA).cumprod(0).logit().float()


SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        Schedule("cosine", cosine),
        Schedule("linear", linear_betas(1e-4, 0.02, 1000)),
        Schedule("scaled_linear", sqrt_linear_betas(0.00085, 0.012, 1000)),
        Schedule("sigmoid", sigmoid),
        Schedule("edm", edm),
        Schedule("flow", flow, variance_preserving=False),
    )
}
