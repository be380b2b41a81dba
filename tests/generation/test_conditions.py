"""Which clips are asked for, and what a generator is given of each."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.bridge.scores import Scorer
from diffgap.generation.conditions import bridged_queries, noise_seeds, store_request
from diffgap.store.store import EmbeddingStore


@pytest.fixture(scope="module")
def store(small_store):
    return EmbeddingStore.open(small_store)


@pytest.mark.parametrize("task", ["text-audio", "video-audio"])
def test_fewer_clips_are_the_first_of_more(store, task):
    few, many = store_request(store, task, "test", 5), store_request(store, task, "test", 1000)
    assert few.ids == many.ids[:5]
    assert len(many.ids) == 32
    np.testing.assert_array_equal(few.queries, many.queries[:5])
    np.testing.assert_array_equal(few.targets, many.targets[:5])


def test_a_clip_is_asked_for_by_its_first_caption(store):
    asked = store_request(store, "text-audio", "test", 8)
    pairs = store.pairs("text-audio", "test")
    told = dict(reversed(store.caption_texts(pairs.ids)))
    assert list(asked.captions) == [told[name] for name in asked.ids]
    for name, query, target in zip(asked.ids, asked.queries, asked.targets, strict=True):
        row = pairs.ids.index(name)
        np.testing.assert_array_equal(target, pairs.a[row])
        np.testing.assert_array_equal(query, pairs.x[np.flatnonzero(pairs.owner == row)[0]])


def test_noise_follows_from_clip_and_seed_alone():
    assert noise_seeds(("a", "b"), 0)[1] == noise_seeds(("b",), 0)[0]
    assert len({*noise_seeds(("a", "b"), 0), *noise_seeds(("a", "b"), 1)}) == 4


@pytest.fixture(scope="module")
def bridge():
    torch.manual_seed(0)
    made = make_bridge(BridgeConfig(("text", "audio"), 128, 32, 2, True, True)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return made


@pytest.mark.parametrize("kind", ["bridge", "sample"])
def test_tokens_are_carried_over_each_by_itself(bridge, kind):
    rows = torch.nn.functional.normalize(torch.randn(3, 4, 128), dim=-1).numpy()
    score = ScoreConfig(kind, samples=2)
    found = bridged_queries(bridge, rows, score, [7, 8, 9])
    assert found.shape == rows.shape
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(
        found[1], bridged_queries(bridge, rows[1:2], score, [8])[0], atol=1e-5
    )


def test_samples_of_a_clip_follow_from_its_seed(bridge):
    row = torch.nn.functional.normalize(torch.randn(1, 128), dim=-1).numpy()
    rows, score = np.repeat(row, 3, axis=0), ScoreConfig("sample", samples=1)
    one, same, other = bridged_queries(bridge, rows, score, [7, 7, 8])
    # Not to the bit: some processors round the rows of one product by their place in it.
    np.testing.assert_allclose(one, same, atol=1e-6)
    assert one @ other < 0.99


def test_it_is_what_the_score_compares(bridge):
    """Which adds the query's own cosine."""
    queries, gallery = torch.nn.functional.normalize(torch.randn(2, 5, 128), dim=-1)
    one_way = replace(bridge.config, bst=False, score=ScoreConfig("bridge", fusion=0.7))
    single = make_bridge(one_way).eval()
    single.load_state_dict(bridge.state_dict())
    scorer = Scorer(single, queries, gallery, None)
    wanted = scorer.scores(0, 5, True)
    found = (
        torch.from_numpy(bridged_queries(single, queries.numpy(), one_way.score, range(5)))
        @ gallery.T
    )
    for mine, its in zip(found, wanted, strict=True):
        assert mine.argsort().tolist() == its.argsort().tolist()


def test_without_fusion_it_is_what_the_bridge_itself_gives(bridge):
    rows = torch.nn.functional.normalize(torch.randn(5, 128), dim=-1)
    score = ScoreConfig("bridge", draws=4, fusion=0)
    np.testing.assert_allclose(
        bridged_queries(bridge, rows.numpy(), score, range(5)),
        bridge.bridge(rows, "text").numpy(),
        atol=1e-6,
    )
