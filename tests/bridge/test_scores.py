"""Scores against the slow, obvious formulas of the method."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from diffgap.bridge.base import shared_noise
from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.model import DiffGAP
from diffgap.bridge.samplers import SAMPLERS
from diffgap.bridge.schedules import noise_level
from diffgap.bridge.scores import Reranker, pair_features, rerank

D, M, N = 16, 9, 6


@pytest.fixture
def setting():
    torch.manual_seed(0)
    bridge = DiffGAP(BridgeConfig(("text", "audio"), D, width=32, blocks=2, cdm=True, bst=True))
    for parameter in bridge.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, a = F.normalize(torch.randn(M, D), dim=-1), F.normalize(torch.randn(N, D), dim=-1)
    return bridge, x, a


def matrix(features):
    return features.x @ features.a.T


def test_cosine_ignores_the_bridge(setting):
    bridge, x, a = setting
    assert matrix(pair_features(bridge, x, a, ScoreConfig("cosine"))).equal(x @ a.T)


def test_bridge_score_is_both_agreements_plus_cosine(setting):
    bridge, x, a = setting
    b_x, b_a = bridge.bridge(x, source="text"), bridge.bridge(a, source="audio")
    expected = b_x @ a.T + x @ b_a.T + 0.7 * x @ a.T
    got = matrix(pair_features(bridge, x, a, ScoreConfig("bridge", fusion=0.7)))
    assert torch.allclose(got, expected, atol=1e-5)


def test_one_direction_scores_with_that_direction_alone(setting):
    _, x, a = setting
    config = BridgeConfig(("text", "audio"), D, width=32, blocks=2, cdm=True, bst=False)
    bridge = DiffGAP(config)
    expected = bridge.bridge(x, source="text") @ a.T + x @ a.T
    assert torch.allclose(
        matrix(pair_features(bridge, x, a, ScoreConfig("bridge"))), expected, atol=1e-5
    )


def test_sample_averages_full_paths(setting):
    bridge, x, a = setting
    config = ScoreConfig("sample", samples=3, sample_steps=4, guidance=2.0)
    noise = shared_noise(3, D, 0, x.device)
    with torch.no_grad():
        b_x = F.normalize(bridge.sample(x * D**0.5, 0, noise, config), dim=-1)
        b_a = F.normalize(bridge.sample(a * D**0.5, 1, noise, config), dim=-1)
    expected = b_x @ a.T + x @ b_a.T + x @ a.T
    assert torch.allclose(matrix(pair_features(bridge, x, a, config)), expected, atol=1e-5)


def slow_bonus(bridge, x, a, config):
    """``w * (err(g | null) - err(g | q))`` of every pair, one at a time."""
    noise = shared_noise(len(config.levels), D, config.seed, x.device)
    bonus = torch.zeros(M, N)
    scaled = (x * D**0.5, a * D**0.5)
    for i in range(M):
        for j in range(N):
            gains = []
            for direction, (q, g) in enumerate(
                [(scaled[0][i], scaled[1][j]), (scaled[1][j], scaled[0][i])]
            ):
                for level_noise, t in zip(noise, config.levels, strict=True):
                    log_snr = bridge.schedule(torch.tensor(t))
                    level = noise_level(log_snr)
                    z = (level.alpha * g + level.sigma * level_noise)[None]
                    which = torch.tensor([direction])
                    errors = [
                        (bridge.denoiser(z, log_snr[None], which, c[None]) - g).square().mean()
                        for c in (bridge.denoiser.null_condition, q)
                    ]
                    gains.append(errors[0] - errors[1])
            bonus[i, j] = config.rerank_weight * torch.stack(gains).mean()
    return bonus


def test_rerank_adds_the_denoising_gain_to_the_best_candidates_only(setting):
    bridge, x, a = setting
    config = ScoreConfig("rerank", top_k=3, levels=(0.3, 0.9))
    scores = matrix(pair_features(bridge, x, a, config))
    with torch.no_grad():
        bonus = slow_bonus(bridge, x, a, config)
    reranker = Reranker(bridge, x, a, config)

    for table, gains, queries_are_x in [(scores, bonus, True), (scores.T, bonus.T, False)]:
        best = table.topk(3, dim=1).indices
        mask = torch.zeros_like(table).scatter(1, best, 1.0)
        got = torch.cat(
            [
                rerank(table[i : i + 2], i, reranker, 3, queries_are_x)
                for i in range(0, len(table), 2)
            ]
        )
        assert torch.allclose(got, table + mask * gains, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_repeat_and_may_start_from_the_query(setting, sampler):
    bridge, x, a = setting
    config = ScoreConfig("sample", samples=2, sample_steps=3, sampler=sampler)
    first, second = (pair_features(bridge, x, a, config) for _ in range(2))
    assert first.x.equal(second.x)
    near = pair_features(bridge, x, a, replace(config, start="query", start_t=0.05))
    assert not torch.allclose(near.x, first.x, atol=1e-3)


def test_a_path_from_the_query_begins_with_the_query_and_its_noise(setting):
    bridge, x, _ = setting
    noise = shared_noise(1, D, 0, x.device)
    score = ScoreConfig("sample", sample_steps=1, start="query", start_t=0.3)
    with torch.no_grad():
        got = bridge.sample(x, 0, noise, score)
        log_snr = bridge.schedule(torch.tensor(0.3))
        level = noise_level(log_snr)
        begin = level.alpha * x + level.sigma * noise
        expected = bridge.clean(begin, log_snr, bridge.modulation(x, 0, log_snr))
    assert torch.allclose(got, expected, atol=1e-6)


def test_scores_repeat_exactly(setting):
    bridge, x, a = setting
    config = ScoreConfig("rerank")
    first, second = (pair_features(bridge, x, a, config) for _ in range(2))
    assert first.x.equal(second.x)
    assert first.a.equal(second.a)
