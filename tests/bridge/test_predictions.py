"""A perfect network of any prediction type tells target and noise; each type tells the others."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgap.bridge.predictions import (
    PREDICTIONS,
    clean_estimate,
    convert,
    prediction_target,
)
from diffgap.bridge.schedules import SCHEDULES, NoiseLevel


@st.composite
def examples(draw):
    """Targets, noise, z and level at random times of a random schedule, in random shapes."""
    schedule = SCHEDULES[draw(st.sampled_from(sorted(SCHEDULES)))]
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    t = draw(st.lists(st.floats(0, 1), min_size=rows, max_size=rows))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    clean, noise = torch.randn(2, rows, columns, generator=generator, dtype=torch.float64)
    log_snr = schedule(torch.tensor(t, dtype=torch.float64))
    level = NoiseLevel(*(part[:, None] for part in schedule.level(log_snr)))
    return clean, noise, level.alpha * clean + level.sigma * noise, level


@settings(deadline=None)
@given(examples(), st.sampled_from(PREDICTIONS))
def test_a_perfect_network_tells_the_target_and_the_noise(example, prediction):
    clean, noise, z, level = example
    output = prediction_target(prediction, clean, noise, level)
    estimate = clean_estimate(prediction, output, z, level)
    assert torch.allclose(estimate, clean)
    assert torch.allclose(convert(estimate, z, level, "x0", "eps"), noise, atol=1e-8)


@settings(deadline=None)
@given(examples(), st.sampled_from(PREDICTIONS), st.sampled_from(PREDICTIONS))
def test_any_prediction_becomes_any_other(example, source, target):
    clean, noise, z, level = example
    output = prediction_target(source, clean, noise, level)
    converted = convert(output, z, level, source, target)
    assert torch.allclose(converted, prediction_target(target, clean, noise, level), atol=1e-8)


@settings(deadline=None)
@given(examples(), st.sampled_from(PREDICTIONS), st.sampled_from(PREDICTIONS))
def test_conversions_of_any_output_round_trip(example, source, target):
    output, _, z, level = example
    z = z + 1  # an output that has nothing to do with z, as an untrained network's
    there = convert(output, z, level, source, target)
    assert torch.allclose(convert(there, z, level, target, source), output, atol=1e-8)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_velocity_in_float32_loses_nothing_at_the_noisy_end(name):
    """By way of the target, eps -> v would divide by alpha = 0.7 % and multiply again."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1000, 8, generator=generator)
    level = SCHEDULES[name].level(SCHEDULES[name](torch.tensor(1.0)))
    z = level.alpha * clean + level.sigma * noise
    velocity = convert(clean, z, level, "x0", "v")
    assert torch.allclose(velocity, prediction_target("v", clean, noise, level), atol=2e-6)


def test_velocity_is_the_papers():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    log_snr = torch.tensor(0.7, dtype=torch.float64)
    angled = SCHEDULES["cosine"].level(log_snr)
    expected = angled.alpha * noise - angled.sigma * clean
    assert torch.allclose(prediction_target("v", clean, noise, angled), expected)
    straight = SCHEDULES["flow"].level(log_snr)
    assert torch.allclose(prediction_target("v", clean, noise, straight), noise - clean)


def test_an_unknown_prediction_is_refused():
    level = SCHEDULES["flow"].level(torch.tensor(0.0))
    with pytest.raises(AssertionError, match="score"):
        convert(torch.ones(1, 1), torch.ones(1, 1), level, "score", "x0")
