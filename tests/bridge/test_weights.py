"""A weight means the same loss whatever the network predicts: compared with the errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgap.bridge.predictions import PREDICTIONS, convert
from diffgap.bridge.schedules import SCHEDULES, NoiseLevel
from diffgap.bridge.weights import WEIGHTS, loss_weight

TIMES = st.lists(st.floats(0, 1), min_size=1, max_size=8)
SCHEDULE_NAMES = st.sampled_from(sorted(SCHEDULES))


def setting(name, times):
    schedule = SCHEDULES[name]
    log_snr = schedule(torch.tensor(times, dtype=torch.float64))
    return log_snr, schedule.level(log_snr)


def weight(kind, prediction, log_snr, level, gamma=5.0, bias=1.0):
    return loss_weight(kind, prediction, log_snr, level, gamma=gamma, bias=bias)


@settings(deadline=None)
@given(SCHEDULE_NAMES, TIMES, st.sampled_from(PREDICTIONS), st.sampled_from(WEIGHTS[1:]))
def test_the_weighted_error_is_the_same_in_every_prediction(name, times, prediction, kind):
    log_snr, level = setting(name, times)
    column = NoiseLevel(*(part[:, None] for part in level))
    generator = torch.Generator().manual_seed(0)
    z, right, wrong = torch.randn(3, len(times), 6, generator=generator, dtype=torch.float64)

    def error(space):
        there = [convert(x, z, column, "x0", space) for x in (right, wrong)]
        return (there[0] - there[1]).square().sum(1)

    expected = weight(kind, "x0", log_snr, level) * error("x0")
    got = weight(kind, prediction, log_snr, level) * error(prediction)
    assert torch.allclose(got, expected, rtol=1e-6)


@settings(deadline=None)
@given(SCHEDULE_NAMES, TIMES, st.floats(0.5, 20), st.floats(-4, 4))
def test_weights_are_the_papers(name, times, gamma, bias):
    log_snr, level = setting(name, times)
    snr = (level.alpha / level.sigma).square()
    one = torch.ones_like(snr)

    def is_(kind, prediction, expected):
        return torch.allclose(weight(kind, prediction, log_snr, level, gamma, bias), expected)

    assert all(is_("uniform", prediction, one) for prediction in PREDICTIONS)
    assert is_("snr", "x0", snr)
    assert is_("snr", "eps", one)
    assert is_("min_snr", "x0", snr.minimum(gamma * one))
    assert is_("min_snr", "eps", (gamma / snr).minimum(one))
    assert is_("sigmoid", "eps", 1 / (1 + torch.exp(log_snr - bias)))


@settings(deadline=None)
@given(TIMES, st.floats(0.5, 20))
def test_min_snr_on_a_variance_preserving_velocity_is_the_papers(times, gamma):
    log_snr, level = setting("cosine", times)
    snr = log_snr.exp()
    expected = snr.minimum(torch.full_like(snr, gamma)) / (snr + 1)
    assert torch.allclose(weight("min_snr", "v", log_snr, level, gamma), expected)


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_weights_are_finite_and_positive_up_to_the_ends(name, prediction, kind):
    log_snr = SCHEDULES[name](torch.linspace(0, 1, 33))
    got = weight(kind, prediction, log_snr, SCHEDULES[name].level(log_snr))
    assert got.shape == log_snr.shape
    assert got.isfinite().all()
    assert (got > 0).all()


def test_a_level_of_another_shape_is_refused():
    log_snr, level = setting("flow", [0.2, 0.4])
    with pytest.raises(AssertionError, match="2, 1"):
        weight("snr", "x0", log_snr, NoiseLevel(*(part[:, None] for part in level)))
