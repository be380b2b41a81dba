"""Ranking and carrying over with a trained bridge, and the page that shows how."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffgap.apply import Gallery, carry_over, clip_queries, rank, text_queries
from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.bridge.scores import CHUNK, Scorer
from diffgap.errors import UserError
from diffgap.evaluation.evaluate import evaluate
from diffgap.store.embedding_files import unit_rows
from diffgap.store.store import EmbeddingStore

RERANK = ScoreConfig("rerank", top_k=5, levels=(0.5, 0.9), rerank_weight=3.0)
PAGE = Path(__file__).parents[1] / "docs" / "use.md"


def make(dimension=16, method="diffgap", cdm=True, bst=True, score=RERANK, **options):
    torch.manual_seed(0)
    config = BridgeConfig(
        ("text", "audio"), dimension, 32, 2, cdm, bst, method, options=options, score=score
    )
    bridge = make_bridge(config).eval()
    with torch.no_grad():
        for parameter in bridge.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return bridge


def unit(count, dimension=16, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dimension, generator=generator), dim=-1)


@pytest.mark.parametrize("kind", ["cosine", "bridge", "sample", "rerank"])
@pytest.mark.parametrize("source", ["text", "audio"])
def test_ranking_is_the_top_of_the_evaluations_matrix(kind, source):
    bridge, x, a = make(), unit(7), unit(40, seed=2)
    score = ScoreConfig(kind, top_k=5, levels=(0.5, 0.9), samples=2, sample_steps=2)
    from_x = source == "text"
    full = Scorer(bridge, x, a, score).scores(0, 7 if from_x else 40, from_x)
    queries, gallery = (x, a) if from_x else (a, x)
    scores, found = rank(bridge, queries, gallery, source, score, top=6)
    assert scores.equal(full.sort(dim=1, descending=True).values[:, :6])
    assert full.gather(1, found).equal(scores)


def test_ranking_by_default_is_the_score_of_the_bridge():
    bridge, x, a = make(), unit(4), unit(20, seed=2)
    own, plain = rank(bridge, x, a), rank(bridge, x, a, score=ScoreConfig("bridge"))
    assert own[0].equal(rank(bridge, x, a, score=RERANK)[0])
    assert not own[0].equal(plain[0])


def test_ranks_are_those_of_evaluation_on_a_store(small_store):
    bridge = make(128)
    pairs = EmbeddingStore.open(small_store).pairs("text-audio", "test")
    measured = evaluate(bridge, pairs).ranks["text_to_audio"].rank
    _, found = rank(bridge, torch.from_numpy(pairs.x), torch.from_numpy(pairs.a), top=999)
    places = (found == torch.from_numpy(pairs.owner)[:, None]).int().argmax(1) + 1
    assert found.shape == (len(pairs.x), len(pairs.a))
    assert places.equal(measured)


def test_many_queries_are_ranked_in_chunks_and_alike(monkeypatch):
    bridge, x, a = make(), unit(9), unit(20, seed=2)
    whole = rank(bridge, x, a, top=3)
    monkeypatch.setattr("diffgap.bridge.scores.CHUNK", 2)
    parts = rank(bridge, x, a, top=3)
    assert parts[1].equal(whole[1])
    assert torch.allclose(parts[0], whole[0], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "video"}, "'video' is not a modality of this bridge; use text or audio"),
        ({"top": 0}, "top: 0"),
        ({"queries": unit(3, 8)}, r"queries: shape \(3, 8\); give \(rows, 16\)"),
        ({"gallery": 2 * unit(3)}, "gallery: rows are not unit vectors"),
        ({"gallery": unit(3) * torch.nan}, "gallery: rows are not unit vectors"),
        ({"queries": unit(3)[:0]}, r"queries: shape \(0, 16\)"),
    ],
)
def test_what_cannot_be_ranked_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rank(make(), **{"queries": unit(3), "gallery": unit(3), **arguments})


def test_a_bridge_without_cdm_does_not_rerank():
    with pytest.raises(ValueError, match="deterministic cannot re-rank"):
        rank(make(method="deterministic", cdm=False), unit(3), unit(3), score=RERANK)


def test_carrying_over_in_chunks_equals_the_bridge_row_by_row():
    bridge, x = make(), unit(CHUNK + 3)
    told = []
    moved = carry_over(bridge, x.numpy(), "text", lambda *done: told.append(done))
    assert told == [(CHUNK, CHUNK + 3), (CHUNK + 3, CHUNK + 3)]
    for row in (0, CHUNK - 1, CHUNK, CHUNK + 2):
        one = bridge.bridge(x[row : row + 1], "text").numpy()
        np.testing.assert_allclose(moved[row : row + 1], one, atol=1e-5)


def test_a_method_without_a_network_takes_vectors_to_its_space():
    bridge, x, a = make(method="center", cdm=False, bst=False), unit(9), unit(9, seed=2)
    bridge.fit(x, a, torch.arange(9))
    np.testing.assert_array_equal(carry_over(bridge, a.numpy(), "audio"), bridge.space(a, 1))


def test_unit_vectors_stay_as_they_are_and_others_are_normalised():
    x = unit(5).numpy()
    same, changed = unit_rows(x, 16)
    assert not changed
    np.testing.assert_array_equal(same, x)
    scaled, changed = unit_rows(np.float64(7) * x, 16)
    assert changed
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, x, atol=1e-6)


def test_all_bad_rows_are_named_at_once():
    x = unit(20).numpy()
    x[[2, 4]] = np.nan
    x[5:15] = 0
    with pytest.raises(UserError) as raised:
        unit_rows(x, 16)
    assert raised.value.problems == [
        "IN: rows 2, 4 are not finite; leave them out",
        "IN: rows 5, 6, 7, 8, 9 and 5 more are zero; leave them out",
    ]


def test_a_stores_own_caption_finds_what_the_stores_text_finds(small_store):
    store, bridge = EmbeddingStore.open(small_store), make(128)
    gallery = Gallery(store, bridge, "test")
    clip = gallery.pairs.ids[3]
    typed = text_queries(store, bridge, [gallery.first_captions[clip]], None)
    stored = clip_queries(store, bridge, clip, "text")[:1]
    (_, by_text), (_, by_clip) = gallery.search(typed + stored, 5)
    assert [hit.clip for hit in by_text] == [hit.clip for hit in by_clip]
    assert by_text[0].caption == gallery.first_captions[by_text[0].clip]
    assert [hit.own for hit in by_text] == [None] * 5
    assert [hit.own for hit in by_clip] == [hit.clip == clip for hit in by_clip]


def test_a_clip_looks_for_texts_and_each_hit_is_the_text_that_was_found(small_store):
    store, bridge = EmbeddingStore.open(small_store), make(128)
    gallery = Gallery(store, bridge, "test")
    clip = gallery.pairs.ids[0]
    (query,) = clip_queries(store, bridge, clip, None)
    ((_, hits),) = gallery.search([query], len(gallery.pairs.x))
    assert query.source == "audio"
    assert sorted(hit.caption for hit in hits) == sorted(gallery.texts)
    assert sum(hit.own for hit in hits) == int((gallery.pairs.owner == 0).sum())
    vectors = dict(zip(gallery.texts, gallery.pairs.x, strict=True))
    first = text_queries(store, bridge, [hits[0].caption], None)[0].vector
    np.testing.assert_allclose(vectors[hits[0].caption], first, atol=1e-5)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page's blocks, run one after the other where a bridge and embeddings lie."""
    monkeypatch.chdir(tmp_path)
    make().save_pretrained(tmp_path / "my_bridge")
    np.save("texts.npy", 3 * unit(6).numpy())
    np.save("audios.npy", unit(150, seed=2).numpy())
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    return names


def test_the_page_runs_and_its_shortlists_end_as_the_whole_gallery_does(page):
    bridge, texts, audios = page["bridge"], page["texts"], page["audios"]
    scores, rows = rank(bridge, texts[:1], audios, top=10)
    assert page["rows"].equal(rows[0])
    assert torch.allclose(page["scores"], scores, atol=1e-5)
    assert Path("shared_bridge/README.md").read_text().count("# my text-audio bridge") == 1


def test_the_pages_features_are_the_fast_score(page):
    bridge, score = page["bridge"], page["score"]
    full = Scorer(bridge, page["texts"], page["audios"], score).scores(0, 6, from_x=True)
    assert torch.allclose(page["queries"] @ page["gallery"].T, full, atol=1e-5)


CORRECTED = ScoreConfig("bridge", normalise="nnn", normalise_neighbours=4)


@pytest.mark.parametrize("source", ["text", "audio"])
def test_a_corrected_ranking_is_that_of_evaluation(small_store, source):
    bridge, store = make(128, score=CORRECTED), EmbeddingStore.open(small_store)
    pairs, train = store.pairs("text-audio", "test"), store.pairs("text-audio", "train")
    ranks = evaluate(bridge, pairs, bank=train).ranks["text_to_audio"].rank
    x, a, bank = (torch.from_numpy(side) for side in (pairs.x, pairs.a, train.x))
    _, rows = rank(bridge, x, a, top=999, bank=bank)
    assert ((rows == torch.from_numpy(pairs.owner)[:, None]).int().argmax(1) + 1).equal(ranks)
    _, plain = rank(bridge, x, a, top=999, score=ScoreConfig("bridge"))
    assert not rows.equal(plain)


CONVOLVED = ScoreConfig("bridge", normalise="invgc", normalise_strength=0.7)


@pytest.mark.parametrize("source", ["text", "audio"])
def test_a_convolved_ranking_is_that_of_evaluation_and_of_a_store(small_store, source):
    bridge, store = make(128, score=CONVOLVED), EmbeddingStore.open(small_store)
    pairs, train = store.pairs("text-audio", "test"), store.pairs("text-audio", "train")
    evaluation = evaluate(bridge, pairs, bank=train)
    sides = [torch.from_numpy(side) for side in (pairs.x, pairs.a)]
    banks = tuple(torch.from_numpy(side) for side in (train.x, train.a))
    at = ("text", "audio").index(source)
    if at:
        banks = banks[::-1]
    scores, rows = rank(bridge, sides[at], sides[1 - at], source, top=999, bank=banks)
    expected = evaluation.scorer.scores(0, len(sides[at]), from_x=not at)
    assert torch.allclose(scores, expected.gather(1, rows), atol=1e-6)
    gallery = Gallery(store, bridge, "test")
    query = clip_queries(store, bridge, gallery.pairs.ids[0], source)[0]
    ((_, hits),) = gallery.search([query], top=5)
    assert [hit.score for hit in hits] == pytest.approx(scores[0, :5].tolist(), abs=1e-6)


def test_a_bank_of_one_side_does_not_convolve():
    with pytest.raises(ValueError, match=r"bank: of one side, and .* 'invgc' reads both; give a"):
        rank(make(score=CONVOLVED), unit(3), unit(3), bank=unit(4))


def test_the_pages_convolved_gallery_is_what_a_scorer_searches(page):
    score = replace(page["score"], normalise="invgc")
    banks = page["training_texts"], page["training_audios"]
    scorer = Scorer(page["bridge"], page["texts"], page["audios"], score, banks)
    ours = page["queries"] @ page["convolved_gallery"].T
    assert torch.allclose(ours, scorer.scores(0, 6, from_x=True), atol=1e-5)


def test_a_gallery_of_a_store_reads_its_bank_itself(small_store):
    bridge, store = make(128, score=CORRECTED), EmbeddingStore.open(small_store)
    gallery = Gallery(store, bridge, "test")
    (query,) = clip_queries(store, bridge, gallery.pairs.ids[3], "audio")
    ((_, hits),) = gallery.search([query], top=5)
    train = torch.from_numpy(store.pairs("text-audio", "train").a)
    vector, texts = torch.from_numpy(query.vector)[None], torch.from_numpy(gallery.pairs.x)
    scores, _ = rank(bridge, vector, texts, "audio", top=5, bank=train)
    assert [hit.score for hit in hits] == scores[0].tolist()


def test_a_corrected_score_without_a_bank_is_refused():
    with pytest.raises(ValueError, match=r"bank: none, and .* 'nnn' reads one; give "):
        rank(make(score=CORRECTED), unit(3), unit(3))
