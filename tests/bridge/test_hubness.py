"""Hubness corrections rank as their published formulas do, in chunks or not."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from diffgap.bridge import scores as scores_module
from diffgap.bridge.config import CORRECTIONS, BridgeConfig, ScoreConfig
from diffgap.bridge.hubness import offsets
from diffgap.bridge.methods import make_bridge
from diffgap.bridge.scores import Scorer

QUERIES, ITEMS, D = 40, 30, 8
KINDS = [kind for kind in CORRECTIONS if kind != "none"]


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


def test_a_bank_of_one_side_serves_its_queries_alone():
    config = BridgeConfig(
        ("text", "audio"), D, 8, 1, False, False, method="none", score=ScoreConfig("cosine")
    )
    score = ScoreConfig("cosine", normalise="nnn")
    bank = BANK_X.float(), BANK_A.float()[:0]
    scorer = Scorer(make_bridge(config), X.float(), A.float(), score, bank)
    assert set(scorer.offsets) == {True}
