"""Scores of a bridge on pairs, by either way through them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.bridge.scores import Scorer
from diffgap.evaluation import evaluate as evaluation
from diffgap.store.store import Pairs

DIMENSION = 24


def bridge_of(kind):
    torch.manual_seed(0)
    on = kind != "cosine"
    method = "diffgap" if on else "none"
    score = ScoreConfig(kind, top_k=4, levels=(0.4, 0.9))
    config = BridgeConfig(("text", "audio"), DIMENSION, 32, 1, on, on, method, score=score)
    bridge = make_bridge(config).eval()
    for parameter in bridge.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return bridge


def repeated(count, seed):
    """Unit vectors, of which a third are one: their scores are equal."""
    generator = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(count, DIMENSION, generator=generator), dim=-1)
    vectors[::3] = vectors[1].clone()
    return vectors.numpy()


def slow_ranks(scores, right):
    """Of each row's right columns the best rank, ties counting half."""
    ranks = []
    for row, own in zip(scores.tolist(), right, strict=True):
        ranks.append(
            min(
                1
                + sum(value > row[i] for value in row)
                + sum(value == row[i] for j, value in enumerate(row) if j != i) / 2
                for i in own
            )
        )
    return [int(rank + 0.5) for rank in ranks]


@pytest.mark.parametrize("kind", ["cosine", "bridge", "rerank"])
@pytest.mark.parametrize("layout", ["one each", "shuffled", "several"])
def test_ranks_are_those_of_the_whole_matrix(monkeypatch, kind, layout):
    monkeypatch.setattr(evaluation, "TILE", 16)
    clips = 41
    owner = np.arange(clips)
    if layout == "shuffled":
        owner = np.random.default_rng(0).permutation(clips)
    if layout == "several":
        owner = np.concatenate([owner, owner[: clips // 2]])
    ids = tuple(f"clip {i}" for i in range(clips))
    pairs = Pairs(ids, repeated(len(owner), 1), repeated(clips, 2), owner)
    bridge = bridge_of(kind)

    found = evaluation.evaluate(bridge, pairs).ranks
    whole = Scorer(bridge, torch.from_numpy(pairs.x), torch.from_numpy(pairs.a))
    to_a, to_x = whole.scores(0, len(owner), from_x=True), whole.scores(0, clips, from_x=False)
    assert found["text_to_audio"].rank.tolist() == slow_ranks(to_a, owner[:, None])
    own = [np.flatnonzero(owner == clip) for clip in range(clips)]
    assert found["audio_to_text"].rank.tolist() == slow_ranks(to_x, own)


@pytest.mark.parametrize("kind", ["bridge", "rerank", "sample", "cosine"])
def test_clouds_take_over_what_scores_have_carried(kind):
    owner = np.arange(20).repeat(2)
    pairs = Pairs(tuple(map(str, range(20))), repeated(40, 1), repeated(20, 2), owner)
    bridge = bridge_of(kind)
    means = evaluation.evaluate(bridge, pairs).posterior_means
    assert set(means) == ({0, 1} if kind in ("bridge", "rerank") else set())
    found, expected = (
        evaluation.bridged_clouds(bridge, pairs, means),
        evaluation.bridged_clouds(bridge, pairs),
    )
    if kind == "cosine":
        assert found is expected is None
        return
    x = bridge.bridge(torch.from_numpy(pairs.x), "text")
    for cloud, again, right in zip(found, expected, (x, pairs.a[owner]), strict=True):
        torch.testing.assert_close(cloud, again)
        np.testing.assert_allclose(cloud, right, atol=1e-6)
