"""Hubness corrections: scores less what an item of a gallery gets from queries at large.

Some items are near to queries of every kind: hubs, which crowd out right answers (Radovanović et
al. 2010). A *bank* of training queries q' shows which. All corrections but one come to one form:
what is the same for all items of a query's ranking decides nothing, and without it

    inverted softmax   exp(b s) / sum over q' of exp(b s(q', g))    ranks as  s - lse_b(g)
    dual_is            the same, times exp(b s) / sum over g'       ranks as  s - lse_b(g) / 2
    csls               2 s - mean of q's K best - mean of g's       ranks as  s - best_K(g) / 2
    nnn                s - a mean of the K largest s(q', g)         ranks as  s - a best_K(g)
    dn                 (q - l mean_q) . (g - l mean_g)              ranks as  s - l mean(g)

with lse_b(g) = log(sum over q' of exp(b s(q', g))) / b, best_K(g) the mean of the K largest of the
s(q', g), and mean(g) that of all. So a correction is an *offset* of each item: it costs a search
nothing, and a vector index holds it as one more feature. `dis` applies that of the inverted softmax
to the queries whose best item is a hub, and leaves the others' scores as they are.

`invgc` moves the vectors of the gallery instead, away from their nearest k of a bank of training
queries and from those of a bank of training items:

    g' = norm(mean over both banks of norm(g - r / k sum over the nearest b of s(g, b) b))

Sources: inverted softmax, Smith et al. 2017; dis, QB-Norm (Bogolin et al., CVPR 2022); dual_is,
Wang et al., arXiv 2310.11612, here with one temperature for both sides; csls, Conneau et al. 2018;
nnn, Chowdhury et al., arXiv 2410.24114; dn, Zhou et al., arXiv 2302.11084; invgc, Jian &
Wang, arXiv 2310.13276, with LocalADJ as in its published code, here with one r for both banks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from diffgap.bridge.config import CORRECTIONS, ScoreConfig

BANK_BYTES = 64 * 2**20  # for the scores of a chunk of items against a bank

BankScores = Callable[[], Iterator[Tensor]]
"""Makes an iterator over (B, N) scores of the bank's queries against a gallery, in chunks."""


@dataclass(frozen=True)
class Offsets:
    """What a correction takes from the scores of a gallery's N items."""

    values: Tensor
    """(N,), in units of the score."""
    hubs: Tensor | None = None
    """(N,) whether an item is a hub, where only queries whose best item is one are corrected."""

    def corrected(self, scores: Tensor) -> Tensor:
        """(Q, N) corrected scores of Q queries against the whole gallery."""
        if self.hubs is None:
            return scores - self.values
        is_led_by_hub = self.hubs[scores.argmax(1)]
        return torch.where(is_led_by_hub[:, None], scores - self.values, scores)


def offsets(bank_scores: BankScores, score: ScoreConfig) -> Offsets:
    """The offsets of a gallery by `score.normalise`, from its scores against a bank."""
    kind, correction = score.normalise, CORRECTIONS[score.normalise]
    strength = score.normalise_strength or correction.strength or 0.0
    neighbours = score.normalise_neighbours or correction.neighbours or 0
    if kind == "dn":
        return Offsets(strength * _mean(bank_scores()))
    if kind == "nnn":
        return Offsets(strength * _largest(bank_scores(), neighbours).mean(0))
    if kind == "csls":
        return Offsets(_largest(bank_scores(), neighbours).mean(0) / 2)
    log_sum = _log_sum_exp(bank_scores(), strength)
    if kind == "dual_is":
        return Offsets(log_sum / (2 * strength))
    hubs = _hubs(bank_scores(), neighbours, len(log_sum)) if kind == "dis" else None
    return Offsets(log_sum / strength, hubs)


def convolved(gallery: Tensor, banks: Sequence[Tensor], score: ScoreConfig) -> Tensor:
    """(N, F) features of a gallery, moved away from their nearest of each (B, F) bank (`invgc`).

    Only directions move. Features of a score other than the cosine differ in length, which the
    formula, made for unit vectors, would take from the score.
    """
    correction, directions = CORRECTIONS["invgc"], F.normalize(gallery, dim=-1)
    strength = score.normalise_strength or correction.strength or 0.0
    pool = score.normalise_pool or correction.pool or 1.0
    moved = [_away(directions, F.normalize(bank, dim=-1), strength, pool) for bank in banks]
    lengths = gallery.norm(dim=-1, keepdim=True)
    return lengths * F.normalize(torch.stack(moved).mean(0), dim=-1)


def _away(items: Tensor, bank: Tensor, strength: float, pool: float) -> Tensor:
    """(N, F) unit vectors, moved away from the nearest of (B, F) unit vectors."""
    count, chunks = max(1, int(pool * len(bank))), []
    for chunk in items.split(max(1, BANK_BYTES // (8 * len(bank)))):
        scores = chunk @ bank.T
        nearest = scores.topk(count, dim=1)
        # The nearest of all items at once, gathered, would be many times the scores.
        weights = torch.zeros_like(scores).scatter_(1, nearest.indices, nearest.values)
        chunks.append(F.normalize(chunk - strength / count * (weights @ bank), dim=-1))
    return torch.cat(chunks)


def _mean(chunks: Iterator[Tensor]) -> Tensor:
    """(N,) mean over the bank."""
    total, count = torch.zeros(()), 0
    for scores in chunks:
        total = total.to(scores.device) + scores.sum(0)
        count += len(scores)
    return total / count


def _largest(chunks: Iterator[Tensor], count: int) -> Tensor:
    """(K, N) largest scores of each item over the bank; K is `count`, or the bank's size."""
    largest: Tensor | None = None
    for scores in chunks:
        rows = scores if largest is None else torch.cat([largest, scores])
        largest = rows.topk(min(count, len(rows)), dim=0).values
    assert largest is not None, "a bank has a query"
    return largest


def _log_sum_exp(chunks: Iterator[Tensor], strength: float) -> Tensor:
    """(N,) log of the sum over the bank of exp(strength * score)."""
    total: Tensor | None = None
    for scores in chunks:
        chunk = (strength * scores).logsumexp(0)
        total = chunk if total is None else torch.logaddexp(total, chunk)
    assert total is not None, "a bank has a query"
    return total


def _hubs(chunks: Iterator[Tensor], neighbours: int, items: int) -> Tensor:
    """(N,) whether an item is among the K best of any query of the bank."""
    hubs: Tensor | None = None
    for scores in chunks:
        if hubs is None:
            hubs = torch.zeros(items, dtype=torch.bool, device=scores.device)
        hubs[scores.topk(min(neighbours, items), dim=1).indices.unique()] = True
    assert hubs is not None, "a bank has a query"
    return hubs
