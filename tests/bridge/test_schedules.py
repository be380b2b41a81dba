"""Noise schedules against their closed forms, and what all of them promise."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from diffgap.bridge.schedules import LOG_SNR_MAX, SCHEDULES, NoiseLevel, noise_level

NAMES = sorted(SCHEDULES)
T = torch.linspace(0, 1, 101, dtype=torch.float64)
TIMES = st.lists(st.floats(0, 1), min_size=1, max_size=20)
LOG_SNRS = st.lists(st.floats(-LOG_SNR_MAX, LOG_SNR_MAX), min_size=1, max_size=20)


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def squeezed(name):
    """The times on the schedule's own curve that T stands for."""
    first, last, _ = SCHEDULES[name].ends
    return first + (last - first) * T


@settings(deadline=None)
@given(st.sampled_from(NAMES), LOG_SNRS)
def test_levels_keep_their_invariant_and_their_log_snr(name, log_snrs):
    log_snr = doubles(log_snrs)
    level = SCHEDULES[name].level(log_snr)
    power = 2 if SCHEDULES[name].variance_preserving else 1
    assert torch.allclose(level.alpha**power + level.sigma**power, torch.ones_like(log_snr))
    assert torch.allclose(2 * torch.log(level.alpha / level.sigma), log_snr, atol=1e-9)


@settings(deadline=None)
@given(st.sampled_from(NAMES), LOG_SNRS)
def test_the_derivatives_are_those_of_alpha_and_sigma_by_position(name, log_snrs):
    log_snr = doubles(log_snrs).requires_grad_()
    schedule = SCHEDULES[name]

    def slope(value):
        return torch.autograd.grad(value.sum(), log_snr, retain_graph=True)[0]

    level, by = schedule.level(log_snr), slope(schedule.position(log_snr))
    assert torch.allclose(slope(level.alpha) / by, level.d_alpha)
    assert torch.allclose(slope(level.sigma) / by, level.d_sigma)


def test_only_flow_is_straight():
    straight = [name for name in NAMES if not SCHEDULES[name].variance_preserving]
    assert straight == ["flow"]
    for ours, theirs in zip(SCHEDULES["edm"].level(T), noise_level(T), strict=True):
        assert ours.equal(theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_every_schedule_falls_from_10_to_minus_10(name, dtype):
    log_snr = SCHEDULES[name](T.to(dtype))
    assert log_snr.dtype == dtype
    assert log_snr[0].item() == pytest.approx(LOG_SNR_MAX, abs=1e-5)
    assert log_snr[-1].item() == pytest.approx(-LOG_SNR_MAX, abs=1e-5)
    assert (log_snr.diff() < 0).all()


@settings(deadline=None)
@given(st.sampled_from(NAMES), TIMES)
def test_log_snr_falls_strictly(name, times):
    t = doubles(sorted({round(time, 9) for time in times}))
    assert (SCHEDULES[name](t).diff() < 0).all()


@settings(deadline=None)
@given(st.sampled_from(NAMES), TIMES)
def test_float32_is_as_good_as_its_times(name, times):
    t = torch.tensor(times)
    exact = SCHEDULES[name](t.double())
    assert torch.allclose(SCHEDULES[name](t).double(), exact, atol=2e-5)


@settings(deadline=None)
@given(st.sampled_from(NAMES), TIMES)
def test_time_inverts(name, times):
    t = doubles(times)
    assert torch.allclose(SCHEDULES[name].time(SCHEDULES[name](t)), t, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_time_keeps_shape_and_type_and_ends_at_the_ends(name):
    log_snr = torch.tensor([[50.0, 10.1], [-10.1, -50.0]])
    t = SCHEDULES[name].time(log_snr)
    assert t.dtype == torch.float32
    assert torch.allclose(t, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))


def test_cosine_is_the_cosine_of_t():
    level = noise_level(SCHEDULES["cosine"](T))
    assert torch.allclose(level.alpha, torch.cos(squeezed("cosine") * math.pi / 2))
    assert torch.allclose(level.sigma, torch.sin(squeezed("cosine") * math.pi / 2))


def test_sigmoid_is_the_sigmoid_of_t():
    def s(x):
        return torch.sigmoid(torch.as_tensor(x, dtype=torch.float64))

    expected = (s(3) - s(6 * squeezed("sigmoid") - 3)) / (s(3) - s(-3))
    assert torch.allclose(noise_level(SCHEDULES["sigmoid"](T)).alpha.square(), expected)


def test_edm_is_normal_in_log_sigma():
    normal = norm(loc=-1.2 + math.log(2), scale=1.2)  # of sigma over the data's 0.5
    level = noise_level(SCHEDULES["edm"](T))
    sigma = torch.as_tensor(normal.ppf(squeezed("edm").numpy())).exp()
    assert torch.allclose(level.sigma / level.alpha, sigma)
    assert torch.allclose(level.alpha, (1 + sigma.square()).rsqrt())


def test_flow_is_the_straight_line():
    schedule = SCHEDULES["flow"]
    level = schedule.level(schedule(T))
    assert torch.allclose(level.alpha, 1 - squeezed("flow"))
    assert torch.allclose(level.sigma, squeezed("flow"))


BETAS = {
    "linear": torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64),
    "scaled_linear": torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square(),
}


@pytest.mark.parametrize("name", BETAS)
def test_beta_schedules_follow_their_discrete_betas_at_zero_terminal_snr(name):
    root = torch.cumprod(1 - BETAS[name], 0).sqrt()
    rescaled = (root - root[-1]) * root[0] / (root[0] - root[-1])
    steps = torch.tensor([9, 99, 299, 499, 699, 899, 979])
    first, last, _ = SCHEDULES[name].ends
    t = ((steps + 1).double() / 1000 - first) / (last - first)
    inside = t <= 1
    level = noise_level(SCHEDULES[name](t[inside]))
    # The discrete product and the integral differ by the sum of beta^2 / 2, 0.07 at the most.
    assert inside.sum() >= 6
    assert torch.allclose(level.alpha, rescaled[steps[inside]], atol=0.005)
    assert not torch.allclose(level.alpha, root[steps[inside]], atol=0.005)


@pytest.mark.parametrize("name", NAMES)
def test_levels_broadcast_and_schedules_pickle(name):
    schedule = pickle.loads(pickle.dumps(SCHEDULES[name]))
    level = NoiseLevel(*(part[:, None] for part in schedule.level(schedule(T))))
    assert all(part.shape == (101, 1) for part in level)
    assert schedule(T).equal(SCHEDULES[name](T))
