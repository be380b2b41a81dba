"""Samplers with the exact denoiser of a known Gaussian mixture must give that mixture."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgap.bridge.samplers import SAMPLERS, noise_query, reverse
from diffgap.bridge.schedules import SCHEDULES

D = 8
NAMES = sorted(SCHEDULES)


@dataclass(frozen=True)
class Mixture:
    """K isotropic Gaussians in D dimensions: weights (K,), means (K, D), deviations (K,)."""

    weights: torch.Tensor
    means: torch.Tensor
    stds: torch.Tensor

    def denoiser(self, schedule):
        """The exact posterior mean of a clean point given a noisy one."""

        def estimate(z, log_snr):
            assert log_snr.shape == z.shape[:1]
            level = schedule.level(log_snr[0])
            variance = level.alpha**2 * self.stds**2 + level.sigma**2
            away = z[:, None] - level.alpha * self.means
            log_p = (
                self.weights.log() - D / 2 * variance.log() - away.square().sum(-1) / variance / 2
            )
            posterior = self.means + (level.alpha * self.stds**2 / variance)[:, None] * away
            return torch.einsum("bk,bkd->bd", log_p.softmax(-1), posterior)

        return estimate

    def mean(self):
        return self.weights @ self.means

    def covariance(self):
        away = self.means - self.mean()
        return torch.einsum("k,kd,ke->de", self.weights, away, away) + torch.eye(D) * (
            self.weights @ self.stds**2
        )


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


SHARP = Mixture(doubles(0.5, 0.3, 0.2), normal(3, D, seed=1), doubles(0.3, 0.5, 0.8))
SMOOTH = Mixture(doubles(0.5, 0.3, 0.2), 0.5 * normal(3, D, seed=1), doubles(0.5, 0.7, 0.9))


def drawer(seed=9):  # not the seed of the path's beginning: the draws would repeat it
    generator = torch.Generator().manual_seed(seed)
    return lambda z: torch.randn(z.shape, generator=generator, dtype=z.dtype)


def sample(name, schedule, z, steps, mixture=SMOOTH, **options):
    options.setdefault("draw", drawer())
    return reverse(name, mixture.denoiser(schedule), z, schedule, steps=steps, **options)


def worst_z_score(samples, mixture):
    """The largest error of any mean or covariance, in its own Monte-Carlo standard errors."""
    away = samples - mixture.mean()
    products = (away[:, :, None] * away[:, None]).flatten(1)
    statistics = torch.cat([away, products], dim=1)
    wanted = torch.cat([torch.zeros(D), mixture.covariance().flatten()])
    standard_error = statistics.std(0) / len(samples) ** 0.5
    return ((statistics.mean(0) - wanted) / standard_error).abs().max().item()


@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize(
    ("name", "steps"), [("ddpm", 500), ("ddim", 150), ("heun", 50), ("dpmpp_2m", 100)]
)
def test_a_known_mixture_is_reproduced(name, steps, schedule):
    samples = sample(name, SCHEDULES[schedule], normal(4000, D), steps, SHARP)
    # 44 errors in each of 24 cases: a right sampler would exceed 5 in one run of 1,600.
    assert worst_z_score(samples, SHARP) < 5


@pytest.mark.parametrize("schedule", ["cosine", "flow", "sigmoid"])
def test_second_order_samplers_beat_ddim_at_half_its_steps(schedule):
    """Distance of end points to the same path walked finely, from the same noise."""
    z = normal(500, D)
    fine = sample("heun", SCHEDULES[schedule], z, 1000)

    def error(name, steps):
        return (sample(name, SCHEDULES[schedule], z, steps) - fine).square().mean().sqrt().item()

    for steps in (8, 16, 32):
        ddim = error("ddim", 2 * steps)
        assert error("heun", steps) < ddim
        assert error("dpmpp_2m", steps) < ddim


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp_2m"])
def test_deterministic_samplers_walk_the_same_path(name):
    schedule, z = SCHEDULES["cosine"], normal(100, D)
    fine = sample("heun", schedule, z, 1000)
    coarse, finer = (
        (sample(name, schedule, z, steps) - fine).square().mean().sqrt().item()
        for steps in (50, 200)
    )
    order = 1 if name == "ddim" else 1.5
    assert finer < coarse / 4**order * 1.2
    assert finer < 0.01


@pytest.mark.parametrize("start", [1.0, 0.6])
@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_the_posterior_mean(name, schedule, start):
    z, at = normal(5, D), SCHEDULES[schedule](doubles(start)).expand(5)
    one = sample(name, SCHEDULES[schedule], z, 1, start=start)
    assert torch.allclose(one, SMOOTH.denoiser(SCHEDULES[schedule])(z, at))


@pytest.mark.parametrize(
    ("name", "calls"), [("ddpm", 6), ("ddim", 6), ("heun", 11), ("dpmpp_2m", 6)]
)
def test_calls_and_levels_are_those_of_the_steps(name, calls):
    schedule, seen = SCHEDULES["sigmoid"], []

    def estimate(z, log_snr):
        seen.append(log_snr[0].item())
        return 0.5 * z

    reverse(name, estimate, normal(2, D), schedule, steps=6, start=0.6, draw=drawer())
    wanted = schedule(torch.linspace(0.6, 0.1, 6, dtype=torch.float64))
    assert len(seen) == calls
    assert sorted(set(seen)) == pytest.approx(wanted.tolist())


def one_step(name, schedule, clean, z, t, s, draw=None):
    """z carried from t to s given its clean target: the last clean estimate is z itself."""
    answers = iter([lambda _: clean, lambda z: z])
    times = doubles(t, s, 0.0)
    return SAMPLERS[name](lambda z, _: next(answers)(z), z, schedule, times, draw)


TWO_TIMES = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).filter(
    lambda pair: pair[1] - pair[0] > 1e-3
)  # fmt: skip


@settings(deadline=None)
@given(st.sampled_from(NAMES), TWO_TIMES, st.integers(0, 99))
def test_ddpm_steps_by_bayes_rule(name, times, seed):
    """q(z_s | z_t, x) as the product of q(z_s | x) and q(z_t | z_s), precision by precision."""
    s, t = times
    schedule = SCHEDULES[name]
    clean, z, noise = normal(3, 4, D, seed=seed)
    (a_s, a_t), (s_s, s_t), *_ = schedule.level(schedule(doubles(s, t)))
    ratio = a_t / a_s
    added = s_t**2 - ratio**2 * s_s**2
    precision = 1 / s_s**2 + ratio**2 / added
    mean = (a_s * clean / s_s**2 + ratio * z / added) / precision
    got = one_step("ddpm", schedule, clean, z, t, s, draw=lambda _: noise)
    assert torch.allclose(got, mean + noise / precision.sqrt(), atol=1e-6)


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.sampled_from(["ddim", "dpmpp_2m"]), TWO_TIMES)
def test_ddim_keeps_target_and_noise(name, sampler, times):
    s, t = times
    schedule = SCHEDULES[name]
    clean, noise = normal(2, 4, D)
    (a_s, a_t), (s_s, s_t), *_ = schedule.level(schedule(doubles(s, t)))
    got = one_step(sampler, schedule, clean, a_t * clean + s_t * noise, t, s)
    assert torch.allclose(got, a_s * clean + s_s * noise, atol=1e-8)


def test_only_ddpm_draws_noise():
    def no_draw(z):
        raise AssertionError("drew noise")

    for name in SAMPLERS:
        if name == "ddpm":
            with pytest.raises(AssertionError, match="drew noise"):
                sample(name, SCHEDULES["cosine"], normal(2, D), 3, draw=no_draw)
        else:
            sample(name, SCHEDULES["cosine"], normal(2, D), 3, draw=no_draw)


@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_float32_paths_agree_with_float64(name, schedule):
    z, noise = normal(50, D), normal(50, D, seed=2)
    paths = [
        sample(name, SCHEDULES[schedule], z.to(kind), 20, draw=lambda z: noise.to(z.dtype))
        for kind in (torch.float32, torch.float64)
    ]
    assert torch.allclose(paths[0].double(), paths[1], atol=1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "edm", "flow"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_noised_query_of_the_target_distribution_stays_in_it(name, schedule):
    """Noised to t0 it is distributed as the path at t0, so that the rest of the path is right."""
    which = torch.multinomial(SHARP.weights, 8000, True, generator=torch.Generator().manual_seed(3))
    query = SHARP.means[which] + SHARP.stds[which, None] * normal(8000, D, seed=4)
    z = noise_query(query, normal(8000, D, seed=5), SCHEDULES[schedule], 0.6)
    samples = sample(name, SCHEDULES[schedule], z, 100, SHARP, start=0.6)
    assert worst_z_score(samples, SHARP) < 5


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.floats(0.01, 1))
def test_a_query_enters_noised(name, start):
    schedule = SCHEDULES[name]
    query, noise = normal(2, 3, D)
    level = schedule.level(schedule(doubles(start)))
    noised = noise_query(query, noise, schedule, start)
    assert torch.allclose(noised, level.alpha * query + level.sigma * noise)
