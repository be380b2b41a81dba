"""Scores against the slow, obvious formulas of the method."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from diffgap.bridge import reranking
from diffgap.bridge.base import shared_noise
from diffgap.bridge.config import BridgeConfig, Objective, ScoreConfig
from diffgap.bridge.model import DiffGAP
from diffgap.bridge.predictions import PREDICTIONS, clean_estimate
from diffgap.bridge.reranking import Reranker
from diffgap.bridge.samplers import SAMPLERS
from diffgap.bridge.schedules import noise_level
from diffgap.bridge.scores import Scorer, pair_features

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
    bonus = torch.zeros(len(x), len(a))
    scaled = (x * D**0.5, a * D**0.5)
    for i in range(len(x)):
        for j in range(len(a)):
            sides = [(scaled[0][i], scaled[1][j]), (scaled[1][j], scaled[0][i])]
            gains = []
            for direction in bridge.directions:
                q, g = sides[direction]
                for level_noise, t in zip(noise, config.levels, strict=True):
                    log_snr = bridge.schedule(torch.tensor(t))
                    level = bridge.schedule.level(log_snr)
                    z = (level.alpha * g + level.sigma * level_noise)[None]
                    which = torch.tensor([direction])
                    outputs = [
                        bridge.denoiser(z, log_snr[None], which, c[None])
                        for c in (bridge.denoiser.null_condition, q)
                    ]
                    prediction = bridge.config.objective.prediction
                    errors = [
                        (clean_estimate(prediction, output, z, level) - g).square().mean()
                        for output in outputs
                    ]
                    gains.append(errors[0] - errors[1])
            bonus[i, j] = config.rerank_weight * torch.stack(gains).mean()
    return bonus


def both_sides(scores, chunk):
    """The whole matrix from the queries of either side, in chunks: (M, N) and (N, M)."""
    return [
        torch.cat([scores(i, min(i + chunk, count), from_x=from_x) for i in range(0, count, chunk)])
        for from_x, count in ((True, M), (False, N))
    ]


def test_rerank_adds_the_denoising_gain_to_the_best_candidates_only(setting):
    bridge, x, a = setting
    config = ScoreConfig("rerank", top_k=3, levels=(0.3, 0.9), rerank_weight=3.0)
    scores = matrix(pair_features(bridge, x, a, config))
    with torch.no_grad():
        bonus = slow_bonus(bridge, x, a, config)
    found = both_sides(Scorer(bridge, x, a, config).scores, chunk=2)

    for got, table, gains in zip(found, (scores, scores.T), (bonus, bonus.T), strict=True):
        best = table.topk(3, dim=1).indices
        mask = torch.zeros_like(table).scatter(1, best, 1.0)
        assert torch.allclose(got, table + mask * gains, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bst", [True, False])
@pytest.mark.parametrize("schedule", ["cosine", "flow"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_denoising_gains_are_those_of_whole_forward_passes(
    setting, monkeypatch, prediction, schedule, bst
):
    _, x, a = setting
    objective = Objective(prediction=prediction)
    bridge = DiffGAP(
        BridgeConfig(("text", "audio"), D, 32, 2, True, bst, schedule=schedule, objective=objective)
    )
    for parameter in bridge.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    config = ScoreConfig("rerank", levels=(0.3, 0.6), rerank_weight=1.0)
    monkeypatch.setitem(reranking.PAIRS, "cpu", 4)  # neither divides what it cuts
    monkeypatch.setattr(reranking, "MODULATION_BYTES", 4 * 4 * 2 * 5 * 32)
    x_rows, a_rows = torch.randint(M, (31,)), torch.randint(N, (31,))
    with torch.no_grad():
        expected = slow_bonus(bridge, x, a, config)[x_rows, a_rows]
    got = Reranker(bridge, x, a, config).bonus(x_rows, a_rows)
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prepared", [True, False])
def test_a_candidate_of_both_its_sides_is_denoised_once(setting, prepared):
    bridge, x, a = setting
    config = ScoreConfig("rerank", top_k=3, levels=(0.3, 0.9))
    scorer, plain = Scorer(bridge, x, a, config), Scorer(bridge, x, a, config)
    denoising = scorer.reranker.denoising
    denoised, freed = [], []

    def errors(direction, conditions, targets, run=denoising.errors):
        denoised.extend(
            (direction, *pair) for pair in zip(conditions.tolist(), targets.tolist(), strict=True)
        )
        return run(direction, conditions, targets)

    def null_errors(direction, targets, run=denoising.null_errors):
        freed.extend((direction, target) for target in targets.tolist())
        return run(direction, targets)

    denoising.errors, denoising.null_errors = errors, null_errors
    if prepared:
        scorer.prepare()
    for _ in range(2):
        for got, alone in zip(
            both_sides(scorer.scores, 2), both_sides(plain.scores, 99), strict=True
        ):
            assert torch.allclose(got, alone, atol=1e-5)

    table = matrix(scorer.features)
    pairs = {(i, int(j)) for i, row in enumerate(table.topk(3).indices) for j in row}
    pairs |= {(int(i), j) for j, row in enumerate(table.T.topk(3).indices) for i in row}
    assert sorted(denoised) == sorted([(0, *p) for p in pairs] + [(1, *p[::-1]) for p in pairs])
    assert sorted(freed) == sorted({(0, j) for _, j in pairs} | {(1, i) for i, _ in pairs})


def test_scores_are_of_full_precision_whatever_the_process_allows(setting):
    bridge, x, a = setting
    config = ScoreConfig("rerank", top_k=3, levels=(0.3, 0.9))
    expected = Scorer(bridge, x, a, config).scores(0, M, from_x=True)
    seen = set()
    for layer in (bridge.denoiser.output, bridge.denoiser.modulate):
        layer.register_forward_hook(lambda *_: seen.add(torch.get_float32_matmul_precision()))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = Scorer(bridge, x, a, config).scores(0, M, from_x=True)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == {"highest"}
    assert torch.allclose(got, expected, atol=1e-5)


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
