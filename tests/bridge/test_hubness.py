"""Hubness corrections rank as their published formulas do, in chunks or not."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from diffgap.bridge import hubness
from diffgap.bridge import scores as scores_module
from diffgap.bridge.config import CORRECTIONS, BridgeConfig, ScoreConfig
from diffgap.bridge.hubness import convolved, offsets
from diffgap.bridge.methods import make_bridge
from diffgap.bridge.scores import Scorer

QUERIES, ITEMS, D = 40, 30, 8
KINDS = [kind for kind in CORRECTIONS if kind not in ("none", "invgc")]  # offsets of items


def unit(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, D, generator=generator, dtype=torch.float64), dim=-1)


X, A, BANK_X, BANK_A = unit(QUERIES, 1), unit(ITEMS, 2), unit(90, 3), unit(70, 4)


def topk_mean(values, k, dim):
    return values.sort(dim, descending=True).values.narrow(dim, 0, k).mean(dim)


def published(kind, q, g, bank_q, bank_g):
    """The (Q, N) scores as the sources write them."""
    s, bank, reverse = q @ g.T, bank_q @ g.T, q @ bank_g.T
    softmax = (20 * s).exp() / (20 * bank).exp().sum(0)
    if kind == "inverted_softmax":
        return softmax
    if kind == "dis":
        hubs = set(bank.argmax(1).tolist())
        rows = [softmax[i] if int(s[i].argmax()) in hubs else s[i] for i in range(len(s))]
        return torch.stack(rows)
    if kind == "dual_is":
        return softmax * (20 * s).exp() / (20 * reverse).exp().sum(1, keepdim=True)
    if kind == "csls":
        of_queries, of_items = topk_mean(reverse, 10, 1), topk_mean(bank, 10, 0)
        return 2 * s - of_queries[:, None] - of_items
    if kind == "nnn":
        return s - 0.5 * topk_mean(bank, 20, 0)
    return (q - 0.5 * bank_q.mean(0)) @ (g - 0.5 * bank_g.mean(0)).T


def corrected(kind, q, g, bank_q, chunk):
    score = ScoreConfig("cosine", normalise=kind)
    if kind == "nnn":
        score = ScoreConfig(
            "cosine", normalise=kind, normalise_strength=0.5, normalise_neighbours=20
        )

    def bank_scores():
        return (part @ g.T for part in bank_q.split(chunk))

    return offsets(bank_scores, score).corrected(q @ g.T)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1000, 7, 1])
def test_a_correction_ranks_as_its_source_writes_it(kind, chunk):
    ours = corrected(kind, X, A, BANK_X, chunk)
    theirs = published(kind, X, A, BANK_X, BANK_A)
    assert ours.argsort(1).equal(theirs.argsort(1))
    assert not ours.argsort(1).equal((X @ A.T).argsort(1)), "it should change something"


@pytest.mark.parametrize("kind", ["csls", "nnn", "inverted_softmax", "dual_is"])
def test_differences_between_the_items_of_a_query_are_the_formula_s(kind):
    theirs = published(kind, X, A, BANK_X, BANK_A)
    if kind in ("inverted_softmax", "dual_is"):
        theirs = theirs.log() / (20 if kind == "inverted_softmax" else 40)
    if kind == "csls":
        theirs = theirs / 2
    ours = corrected(kind, X, A, BANK_X, 7)
    torch.testing.assert_close(ours - ours[:, :1], theirs - theirs[:, :1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scorer_corrects_both_directions_each_by_its_own_bank(kind, monkeypatch):
    config = BridgeConfig(
        ("text", "audio"), D, 8, 1, False, False, method="none", score=ScoreConfig("cosine")
    )
    score = ScoreConfig("cosine", normalise=kind)
    make = partial(Scorer, make_bridge(config), X.float(), A.float(), score)
    whole = make((BANK_X.float(), BANK_A.float()))
    monkeypatch.setattr(scores_module, "SCORE_BYTES", 4 * ITEMS * 3)  # three queries at once
    chunked = make((BANK_X.float(), BANK_A.float()))
    for from_x, (q, g, bank) in {True: (X, A, BANK_X), False: (A, X, BANK_A)}.items():
        expected = offsets(lambda q=bank, g=g: iter([q @ g.T]), score).corrected(q @ g.T)
        for scorer in (whole, chunked):
            values = scorer.scores(0, len(q), from_x=from_x).double()
            torch.testing.assert_close(values, expected, rtol=0, atol=1e-6)


def away(items, bank, strength, pool):
    """InvGC with LocalADJ, an item after the other."""
    moved = []
    for item in items:
        near = sorted(bank, key=lambda row, item=item: -float(item @ row))[: int(pool * len(bank))]
        message = sum(float(item @ row) * row for row in near) / len(near)
        moved.append(F.normalize(item - strength * message, dim=0))
    return torch.stack(moved)


@pytest.mark.parametrize("at_once", [10**9, 3, 1])
def test_invgc_moves_a_gallery_as_its_source_writes_it(at_once, monkeypatch):
    monkeypatch.setattr(hubness, "BANK_BYTES", 8 * len(BANK_X) * at_once)
    score = ScoreConfig(
        "cosine", normalise="invgc", normalise_strength=0.7, normalise_pool=0.1
    )  # fmt: skip
    banks = [away(A, bank, 0.7, 0.1) for bank in (BANK_X, BANK_A)]
    expected = F.normalize((banks[0] + banks[1]) / 2, dim=-1)
    torch.testing.assert_close(convolved(A, (BANK_X, BANK_A), score), expected, rtol=0, atol=1e-6)
    # What is no cosine has features of other lengths: they turn as unit vectors do.
    lengths = torch.linspace(0.5, 2, ITEMS, dtype=torch.float64)[:, None]
    longer = convolved(lengths * A, (3 * BANK_X, BANK_A), score)
    torch.testing.assert_close(longer, lengths * expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("from_x", [True, False])
def test_a_scorer_convolves_what_is_searched_and_by_both_banks(from_x):
    score = ScoreConfig("cosine", normalise="invgc", normalise_strength=0.7)
    config = BridgeConfig(
        ("text", "audio"), D, 8, 1, False, False, method="none", score=ScoreConfig("cosine")
    )
    banks = BANK_X.float(), BANK_A.float()
    scorer = Scorer(make_bridge(config), X.float(), A.float(), score, banks)
    q, g = (X, A) if from_x else (A, X)
    expected = q @ convolved(g, (BANK_X, BANK_A), score).T
    scores = scorer.scores(0, len(q), from_x=from_x).double()
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
    assert not scorer.is_pairwise
    assert (scores - q @ g.T).abs().max() > 0.01


def test_nnn_is_that_of_its_published_package():
    nnn = pytest.importorskip("nnn", reason="nnn-retrieval, of the dev extra, is not installed")
    queries, items, bank = X.float().numpy(), A.float().numpy(), BANK_X.float().numpy()
    ranker = nnn.NNNRanker(
        nnn.NNNRetriever(D), items, bank, alternate_ks=20, batch_size=7, alternate_weight=0.5
    )
    values, rows = ranker.search(queries, top_k=ITEMS)
    ours = corrected("nnn", X.float(), A.float(), BANK_X.float(), 7).sort(1, descending=True)
    torch.testing.assert_close(ours.values, torch.from_numpy(values), rtol=0, atol=1e-6)
    assert ours.indices.equal(torch.from_numpy(rows))


def test_dn_ranks_as_in_the_package_of_nnn():
    nnn = pytest.importorskip("nnn", reason="nnn-retrieval, of the dev extra, is not installed")
    queries, items, bank = (side.float().numpy() for side in (X, A, BANK_X))
    ranker = nnn.DNRanker(
        nnn.NNNRetriever(D), items, bank, alternate_ks=1, alternate_weight=0.0,
        retrieval_dev_embeds=BANK_A.float().numpy(), query_dev_embeds=bank,
    )  # fmt: skip
    _, rows = ranker.search(queries, top_k=ITEMS)
    ours = corrected("dn", X.float(), A.float(), BANK_X.float(), 7).argsort(1, descending=True)
    assert ours.equal(torch.from_numpy(rows))


def test_a_bank_of_one_side_serves_its_queries_alone():
    config = BridgeConfig(
        ("text", "audio"), D, 8, 1, False, False, method="none", score=ScoreConfig("cosine")
    )
    score = ScoreConfig("cosine", normalise="nnn")
    bank = BANK_X.float(), BANK_A.float()[:0]
    scorer = Scorer(make_bridge(config), X.float(), A.float(), score, bank)
    assert set(scorer.offsets) == {True}
