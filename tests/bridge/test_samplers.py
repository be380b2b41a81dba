"""DDIM with the exact denoiser of a known Gaussian must give that Gaussian."""

import pytest
import torch

from diffgap.bridge.samplers import ddim
from diffgap.bridge.schedules import SCHEDULES, noise_level

MEAN, STD = torch.tensor([1.5, -0.5], dtype=torch.float64), 0.4


def exact(z, log_snr):
    """The posterior mean of N(MEAN, STD^2 I) given z."""
    level = noise_level(log_snr[:, None])
    gain = level.alpha * STD**2 / (level.alpha.square() * STD**2 + level.sigma.square())
    return MEAN + gain * (z - level.alpha * MEAN)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_recovers_a_known_gaussian(name):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    samples = ddim(exact, noise, SCHEDULES[name], steps=200)
    assert torch.allclose(samples.mean(0), MEAN, atol=0.02)
    assert torch.allclose(samples.std(0), torch.full((2,), STD, dtype=torch.float64), atol=0.02)


def test_one_step_is_the_posterior_mean():
    noise = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = ddim(exact, noise, SCHEDULES["cosine"], steps=1)
    assert torch.allclose(one, MEAN.expand(5, 2), atol=0.01)
