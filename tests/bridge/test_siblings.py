"""Sibling methods: their spaces, what they learn, and that a saved one comes back the same."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffgap.bridge.base import Bridge
from diffgap.bridge.config import BridgeConfig, Objective, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.bridge.model import DiffGAP
from diffgap.bridge.registry import METHODS
from diffgap.bridge.scores import pair_features

D, N = 16, 64
OPTIONS = {
    "mean_shift": {"scale": 1.0},
    "ridge": {"penalty": 0.1},
    "cca": {"shrinkage": 0.1},
    "close": {"noise": 0.08},
    "diffusion_bridge": {"radius": 5.0, "start_t": 0.6, "steps": 5, "timesteps": 1000},
    "diffusion_ret": {"negatives": 15, "timesteps": 10, "temperature": 0.01},
    "diffusion_link": {"topology_weight": 1.0, "start_t": 0.6, "steps": 5},
}
TRAINED = ["close", "deterministic", "diffusion_bridge", "diffusion_link", "diffgap"]


def embeddings(seed=0):
    """Two modalities that share their content and differ by an offset: a gap."""
    generator = torch.Generator().manual_seed(seed)
    content = torch.randn(N, D, generator=generator)
    noise = 0.3 * torch.randn(N, D, generator=generator)
    offset = 3 * F.normalize(torch.ones(D), dim=0)
    return F.normalize(content + offset, dim=-1), F.normalize(content + noise - offset, dim=-1)


def bridge_of(method, **changes):
    torch.manual_seed(0)
    cdm, bst = method == "diffgap", method in ("diffgap", "deterministic")
    fields = {"width": 32, "blocks": 2, "cdm": cdm, "bst": bst, "method": method}
    config = BridgeConfig(
        ("text", "audio"), D, **{**fields, "options": OPTIONS.get(method, {}), **changes}
    )
    bridge = make_bridge(config)
    bridge.fit(*embeddings(), torch.arange(N))
    return bridge


def trained(method, steps=150):
    bridge = bridge_of(method)
    optimizer = torch.optim.Adam(bridge.parameters(), lr=3e-3)
    x, a = embeddings()
    losses = []
    for step in range(steps):
        batch = bridge.batch(x, a, torch.arange(N), step, torch.Generator().manual_seed(step))
        found = bridge(batch)
        optimizer.zero_grad()
        found.total.backward()
        optimizer.step()
        losses.append(found.mse.item())
    return bridge.eval(), losses


def test_centring_closes_the_gap_of_the_means():
    x, a = embeddings()
    bridge = bridge_of("center")
    assert (x.mean(0) - a.mean(0)).norm() > 1
    centred = bridge.space(x, 0), bridge.space(a, 1)
    assert (centred[0].mean(0) - centred[1].mean(0)).norm() < 0.1
    assert torch.allclose(centred[0].norm(dim=-1), torch.ones(N), atol=1e-5)


def test_mean_shift_moves_x_alone_and_as_far_as_asked():
    x, a = embeddings()
    difference = a.mean(0) - x.mean(0)
    assert bridge_of("mean_shift").space(a, 1).equal(a)
    moved = bridge_of("mean_shift", options={"scale": 0.5}).space(x, 0)
    assert torch.allclose(moved, F.normalize(x + 0.5 * difference, dim=-1), atol=1e-6)


@pytest.mark.parametrize("method", ["center", "mean_shift"])
def test_methods_without_a_network_score_by_cosine_in_their_space(method):
    x, a = embeddings()
    bridge = bridge_of(method)
    features = pair_features(bridge, x, a, ScoreConfig("cosine"))
    expected = bridge.space(x, 0) @ bridge.space(a, 1).T
    assert torch.allclose(features.x @ features.a.T, expected)
    assert bridge.directions == ()


@pytest.mark.parametrize("method", TRAINED)
def test_every_trained_method_learns_and_carries_x_or_a_nearer(method):
    bridge, losses = trained(method)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    x, a = embeddings()
    sides = bridge.space(x, 0), bridge.space(a, 1)
    (direction, *_) = bridge.directions
    with torch.no_grad():
        carried = bridge.carry(sides[direction], direction, ScoreConfig("bridge"))
    assert torch.allclose(carried.norm(dim=-1), torch.ones(N), atol=1e-5)
    if method != "diffusion_bridge":  # knows no pairs; its task is the distribution
        before = (x * a).sum(-1).mean()
        assert (carried * sides[1 - direction]).sum(-1).mean() > before


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_method_comes_back_the_same(tmp_path, method):
    bridge = bridge_of(method)
    bridge.save_pretrained(tmp_path)
    again = Bridge.from_pretrained(tmp_path)
    assert type(again) is type(bridge)
    x, a = embeddings()
    score = ScoreConfig("bridge")
    before, after = (pair_features(b, x, a, score) for b in (bridge.eval(), again))
    assert after.x.equal(before.x)
    assert after.a.equal(before.a)


def test_another_method_is_not_loaded_as_diffgap(tmp_path):
    bridge_of("close").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds the method close, not DiffGAP"):
        DiffGAP.from_pretrained(tmp_path)


def test_diffusion_bridge_sees_no_pairs():
    """Its loss does not depend on which x goes with which a."""
    bridge = bridge_of("diffusion_bridge")
    x, a = embeddings()
    half = N // 2
    shuffled = torch.cat([x[:half][torch.randperm(half)], x[half:]])
    losses = [
        bridge(bridge.batch(some, a, torch.arange(N), 0, torch.Generator().manual_seed(1)))
        for some in (x, shuffled)
    ]
    assert losses[0].total.equal(losses[1].total)


@pytest.fixture
def alpha_bar():
    """DDPM's cosine schedule, as published code makes it: by betas that are cut off at 0.999."""
    signal = np.cos((np.linspace(0, 1, 1001) + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.clip(1 - signal[1:] / signal[:-1], 0, 0.999)
    return torch.from_numpy(np.cumprod(1 - betas)).float()


def at_radius(state):
    return 5 * F.normalize(state, dim=-1)


@pytest.mark.parametrize("direction", [0, 1])
def test_diffusion_bridge_samples_as_its_published_code_does(alpha_bar, direction):
    bridge, _ = trained("diffusion_bridge", steps=20)
    source = bridge.space(embeddings()[direction], direction)
    null, directions = bridge.denoiser.null(N), torch.full((N,), direction)
    state, steps = source, [599, 479, 359, 239, 119, -1]
    with torch.no_grad():
        for step, after in pairwise(steps):
            state, a = at_radius(state), alpha_bar[step]
            clean = bridge.denoiser(state, (a / (1 - a)).log().expand(N), directions, null)
            if after < 0:
                break
            noise = (state / a.sqrt() - clean) / (1 / a - 1).sqrt()
            state = alpha_bar[after].sqrt() * clean + (1 - alpha_bar[after]).sqrt() * noise
        carried = bridge.carry(source, direction, ScoreConfig("bridge"))
    torch.testing.assert_close(carried, F.normalize(clean, dim=-1), rtol=0, atol=1e-5)


def test_diffusion_bridge_is_trained_on_states_of_its_radius_by_unclamped_snr(alpha_bar):
    bridge = bridge_of("diffusion_bridge")
    batch = bridge.batch(*embeddings(), torch.arange(N), 0, torch.Generator().manual_seed(1))
    a = alpha_bar[(1000 * batch.t).long()][:, None]
    state = at_radius(a.sqrt() * batch.target + (1 - a).sqrt() * batch.noise)
    snr = a / (1 - a)
    null = torch.zeros(N, D)
    output = bridge.denoiser(state, snr[:, 0].log(), batch.direction, null)
    expected = (snr * (output - batch.target) ** 2).mean()
    torch.testing.assert_close(bridge(batch).total, expected, rtol=1e-5, atol=0)
    assert bridge.log_snr[0].exp() > 20_000
    assert batch.target.norm(dim=-1).allclose(torch.tensor(5.0))


def test_diffusion_link_starts_paths_from_audio_and_from_text():
    bridge = bridge_of("diffusion_link")
    x, a = embeddings()
    batch = bridge.batch(x, a, torch.arange(N), 0, torch.Generator().manual_seed(1))
    scaled = x * math.sqrt(D), a * math.sqrt(D)
    from_text = (batch.source == scaled[0]).all(1)
    from_audio = (batch.source == scaled[1]).all(1)
    assert (from_text ^ from_audio).all()
    assert 0.25 * N < from_audio.sum() < 0.75 * N
    assert batch.target.equal(scaled[0])


@pytest.mark.parametrize("method", ["close", "diffusion_bridge", "diffusion_link"])
def test_shards_average_to_the_whole_batch(method):
    bridge = bridge_of(method)
    batch = bridge.batch(*embeddings(), torch.arange(N), 0, torch.Generator().manual_seed(0))
    whole, parts = bridge(batch), [bridge(batch.shard(rank, 4)) for rank in range(4)]
    for name in whole._fields:
        mean = torch.stack([getattr(part, name) for part in parts]).mean()
        assert torch.allclose(mean, getattr(whole, name), atol=1e-5)


def test_infonce_alone_can_train():
    objective = Objective(denoising_weight=0.0, infonce_weight=1.0)
    bridge = bridge_of("diffgap", objective=objective)
    batch = bridge.batch(*embeddings(), torch.arange(N), 0, torch.Generator().manual_seed(0))
    found = bridge(batch)
    assert found.total.equal(found.auxiliary)


def test_one_direction_from_audio_scores_with_that_direction_alone():
    x, a = embeddings()
    bridge = bridge_of("diffusion_link")
    score = ScoreConfig("sample", fusion=0.5)
    with torch.no_grad():
        carried = bridge.carry(a, 1, score)
    features = pair_features(bridge, x, a, score)
    expected = x @ carried.T + 0.5 * x @ a.T
    assert torch.allclose(features.x @ features.a.T, expected, atol=1e-5)
