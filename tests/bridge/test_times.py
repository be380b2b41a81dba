"""Training times: the distributions that they promise, and finite times from any draw."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from diffgap.bridge.times import T_SAMPLERS, draw_times

DRAWS = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LAST = 1 - 2**-24  # the greatest float32 that torch.rand gives


def times(u, kind, power=3.0, mean=0.0, std=1.0):
    return draw_times(u, kind, power=power, mean=mean, std=std)


def distance_p(kind, cdf, **knobs):
    """The p-value of 20,000 times against the distribution that they should have."""
    return kstest(times(DRAWS, kind, **knobs).numpy(), cdf).pvalue


def test_uniform_times_are_the_draws():
    assert times(DRAWS, "uniform").equal(DRAWS)


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_power_skews_to_high_noise(power):
    assert distance_p("power", lambda t: 1 - (1 - t) ** (1 / power), power=power) > 0.01
    assert distance_p("power", lambda t: 1 - (1 - t) ** (0.9 / power), power=power) < 1e-6


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.5, 0.7)])
def test_the_logit_is_normal(mean, std):
    def cdf(t):
        return norm.cdf(torch.logit(torch.as_tensor(t)).numpy(), mean, std)

    assert distance_p("logit_normal", cdf, mean=mean, std=std) > 0.01
    assert distance_p("logit_normal", cdf, mean=mean + 0.1, std=std) < 1e-6


@settings(deadline=None)
@given(
    st.sampled_from(T_SAMPLERS),
    st.lists(st.floats(0, LAST, width=32), min_size=1, max_size=20),
    st.floats(0.1, 10),
    st.floats(-8, 8),
    st.floats(0, 4),
)
def test_times_are_finite_ordered_and_in_range(kind, draws, power, mean, std):
    u = torch.tensor([0.0, *sorted(draws), LAST])
    t = times(u, kind, power, mean, std)
    assert t.dtype == torch.float32
    assert t.shape == u.shape
    assert t.min() >= 0
    assert t.max() <= 1
    assert (t.diff() >= -1e-6).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(AssertionError, match="cubic"):
        times(DRAWS, "cubic")
