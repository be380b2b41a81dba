"""Noise schedules and predictions against their closed forms."""

import math

import pytest
import torch

from diffgap.bridge.predictions import PREDICTIONS, clean_estimate, prediction_target
from diffgap.bridge.schedules import LOG_SNR_MAX, SCHEDULES, noise_level, power_t

T = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


def test_cosine_is_the_cosine_of_t():
    level = noise_level(SCHEDULES["cosine"](T))
    assert torch.allclose(level.alpha, torch.cos(T * math.pi / 2))
    assert torch.allclose(level.sigma, torch.sin(T * math.pi / 2))


def test_linear_follows_ddpm_discrete_betas():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = torch.exp(-torch.cumsum(betas, 0))  # cumprod(1 - beta), beta small
    steps = torch.tensor([99, 299, 499, 699])
    level = noise_level(SCHEDULES["linear"]((steps + 1).double() / 1000))
    assert torch.allclose(level.alpha.square(), alpha_bar[steps], rtol=0.01)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_preserve_variance_fall_and_stay_finite(name):
    t = torch.linspace(0, 1, 101)
    log_snr = SCHEDULES[name](t)
    level = noise_level(log_snr)
    assert torch.allclose(level.alpha.square() + level.sigma.square(), torch.ones(101))
    assert (log_snr.diff() <= 0).all()
    assert log_snr[0] == LOG_SNR_MAX
    assert log_snr[-1] <= -9.9


def test_power_skews_to_high_noise():
    u = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    assert power_t(u, 1.0).equal(1 - (1 - u))
    above = (power_t(u, 3.0) > 0.5).float().mean().item()
    assert above == pytest.approx(1 - (1 - 0.5 ** (1 / 3)), abs=0.01)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_prediction_gives_the_clean_target_back(prediction):
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 19, 8, generator=generator, dtype=torch.float64)
    level = noise_level(SCHEDULES["cosine"](T)[:, None])
    z = level.alpha * clean + level.sigma * noise
    output = prediction_target(prediction, clean, noise, level)
    assert torch.allclose(clean_estimate(prediction, output, z, level), clean)
