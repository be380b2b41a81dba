"""DiffusionRet: its network is the published one, it learns to rank, and it comes back the same."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffgap.bridge import diffusion_ret
from diffgap.bridge.base import Bridge
from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.bridge.scores import Scorer

D, PAIRS, STEPS = 16, 96, 10
SCORE = ScoreConfig("rerank", top_k=12, rerank_weight=8.0)


def embeddings(seed):
    """Two modalities with one content, one of them rotated in part: a cosine is a poor guide."""
    generator = torch.Generator().manual_seed(seed)
    content = torch.randn(PAIRS, D, generator=generator)
    swap = torch.eye(D)[[1, 0, 3, 2, 5, 4, *range(6, D)]]
    noise = 0.2 * torch.randn(PAIRS, D, generator=generator)
    return F.normalize(content, dim=-1), F.normalize((content + noise) @ swap, dim=-1)


def make(negatives=31):
    torch.manual_seed(0)
    options = {"negatives": negatives, "timesteps": STEPS, "temperature": 0.01}
    config = BridgeConfig(
        ("text", "audio"), D, 0, 0, False, False, "diffusion_ret", options=options, score=SCORE
    )
    return make_bridge(config)


def batch_of(bridge, seed=0, clip=None):
    clip = torch.arange(PAIRS) if clip is None else clip
    return bridge.batch(*embeddings(0), clip, 0, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def trained():
    bridge = make()
    optimizer = torch.optim.Adam(bridge.parameters(), lr=3e-3)
    for step in range(120):
        pair = embeddings(100 + step)
        losses = bridge(
            bridge.batch(*pair, torch.arange(PAIRS), step, torch.Generator().manual_seed(step))
        )
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    return bridge.eval()


def published(part, noisy, step, query, items):
    """The network for one query, as the published code has it."""
    e = part.embed(part.waves[step])
    q, k, v = part.q(query + e), part.k(items + e), part.v(items + e)
    weight = (k @ q + noisy).softmax(-1)
    context = part.project(weight @ v)
    first = torch.cat([part.context_hidden.weight, part.item_hidden.weight], 1)
    both = torch.cat([context.expand(len(items), -1), items], -1)
    return part.output((both @ first.T + part.context_hidden.bias).relu())[:, 0] + weight


def alpha_bar():
    signal = np.cos((np.linspace(0, 1, STEPS + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.clip(1 - signal[1:] / signal[:-1], 0, 0.999)
    return torch.from_numpy(np.cumprod(1 - betas)).float()


@pytest.mark.parametrize("from_x", [True, False])
def test_scores_are_those_of_the_published_sampler(trained, from_x):
    x, a = embeddings(1)
    queries, items = (x, a) if from_x else (a, x)
    part, a_bar = trained.x_to_a if from_x else trained.a_to_x, alpha_bar()
    expected = queries @ items.T
    noise = torch.randn(SCORE.top_k, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for row in range(5):
            best = expected[row].topk(SCORE.top_k).indices
            state = noise
            for t in reversed(range(STEPS)):
                args = queries[row] * D**0.5, items[best] * D**0.5
                clean = published(part, state, t, *args).clamp(-1, 1)
                rest = (state / a_bar[t].sqrt() - clean) / (1 / a_bar[t] - 1).sqrt()
                before = a_bar[t - 1] if t else torch.tensor(1.0)
                state = before.sqrt() * clean + (1 - before).sqrt() * rest
            expected[row, best] += SCORE.rerank_weight * state.softmax(-1)
    scores = Scorer(trained, x, a, SCORE).scores(0, 5, from_x=from_x)
    torch.testing.assert_close(scores, expected[:5], rtol=0, atol=1e-5)


def test_it_ranks_better_than_the_cosine_and_no_pair_alone(trained):
    x, a = embeddings(1)
    for from_x in (True, False):
        right = {}
        for score in (ScoreConfig("cosine"), SCORE):
            scores = Scorer(trained, x, a, score).scores(0, PAIRS, from_x=from_x)
            right[score.kind] = scores.argmax(1).eq(torch.arange(PAIRS)).float().mean()
        assert right["rerank"] > right["cosine"] + 0.1
    assert not Scorer(trained, x, a, SCORE).is_pairwise
    assert Scorer(trained, x, a, ScoreConfig("cosine")).is_pairwise


def test_a_ranking_does_not_depend_on_how_it_is_cut(trained, monkeypatch):
    x, a = embeddings(1)
    whole = Scorer(trained, x, a, SCORE).scores(0, PAIRS, from_x=True)
    monkeypatch.setattr(diffusion_ret, "SAMPLING_BYTES", 1)
    part = Scorer(trained, x, a, SCORE).scores(10, 14, from_x=True)
    torch.testing.assert_close(part, whole[10:14], rtol=0, atol=1e-5)


def test_candidates_are_the_right_one_and_the_hardest_of_other_clips():
    bridge, clip = make(negatives=5), torch.arange(PAIRS) // 3
    batch = batch_of(bridge, clip=clip).part(slice(0, PAIRS))
    rows, absent = bridge._hardest(batch)
    assert rows.shape == (PAIRS, 6)
    assert rows[:, 0].equal(batch.row)
    assert not absent.any()
    x, a = embeddings(0)
    expected = (x @ a.T).masked_fill(clip[:, None] == clip, -9).topk(5).indices
    assert rows[:, 1:].equal(expected)


def test_places_without_a_negative_have_no_part_in_the_loss():
    bridge = make(negatives=PAIRS)
    lone = bridge(batch_of(bridge, clip=torch.zeros(PAIRS, dtype=torch.long)))
    assert lone.total.item() == 0
    lone.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in bridge.parameters())


def test_shards_average_to_the_whole_batch():
    bridge = make()
    batch = batch_of(bridge)
    whole, parts = bridge(batch), [bridge(batch.shard(rank, 4)) for rank in range(4)]
    for name in whole._fields:
        mean = torch.stack([getattr(part, name) for part in parts]).mean()
        assert torch.allclose(mean, getattr(whole, name), rtol=1e-4), name


def test_a_saved_bridge_ranks_the_same(tmp_path, trained):
    x, a = embeddings(1)
    trained.save_pretrained(tmp_path)
    again = Bridge.from_pretrained(tmp_path)
    assert again.config == trained.config
    before, after = (Scorer(b, x, a).scores(0, 9, from_x=True) for b in (trained, again))
    assert after.equal(before)


def test_its_card_says_that_it_ranks_and_shows_nothing_that_it_cannot(tmp_path):
    make().push(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "it has learnt to rank, and carries nothing over" in card
    assert "bridge.bridge(" not in card
