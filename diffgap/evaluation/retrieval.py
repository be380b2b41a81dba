"""Retrieval metrics from scores that are never all there at once.

Scores come a chunk of queries at a time, so that a gallery of 20,000 needs no 20,000 x 20,000
matrix. Ranks count from 1. A rival with the same score as the right answer counts half (rounded
up), so that a constant score earns the middle rank and not the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ScoreChunk = Callable[[int, int], Tensor]
"""(start, stop) of queries -> their (stop - start, G) scores against the whole gallery."""

CUTOFFS = (1, 5, 10)
AP_CUTOFF = 10

NOWHERE = 1 << 40
"""Rank of what is not there."""


@dataclass(frozen=True)
class QueryRanks:
    """What each of Q queries found, on the CPU."""

    best: Tensor
    """(Q,) int64: rank of the best relevant item."""
    ap10: Tensor
    """(Q,) float32: average precision within the first ten."""


def ranks_of_owner(score: ScoreChunk, owner: Tensor, chunk: int) -> QueryRanks:
    """Ranks of queries with one right answer each: captions (or videos) looking for their clip.

    Args:
        score: scores of queries against N clips.
        owner: (Q,) int64, the clip of each query.
        chunk: queries scored at once.

    Raises:
        ValueError: where a score is NaN.
    """
    parts = []
    for start in range(0, len(owner), chunk):
        stop = min(start + chunk, len(owner))
        scores = _checked(score(start, stop))
        right = scores.gather(1, owner[start:stop, None])
        parts.append(_rank(scores, right, others_equal=1).cpu())
    best = torch.cat(parts)
    return QueryRanks(best, torch.where(best <= AP_CUTOFF, 1.0 / best, 0.0))


def ranks_of_captions(score: ScoreChunk, owner: Tensor, clips: int, chunk: int) -> QueryRanks:
    """Ranks of clips looking for any of their captions: the best one's counts.

    AP@10 is LAION-CLAP's: over the captions found among the first ten, the mean of the share of
    right answers up to each; a caption that is not there adds 0.

    Args:
        score: scores of the N clips against M captions.
        owner: (M,) int64, the clip of each caption.
        clips: N.
        chunk: clips scored at once.

    Raises:
        ValueError: where a score is NaN, or a clip has no caption.
    """
    order, starts = _grouped(owner, clips)
    widest = int(starts.diff().max())
    best, ap10 = [], []
    for start in range(0, clips, chunk):
        stop = min(start + chunk, clips)
        scores = _checked(score(start, stop))
        first, count = starts[start:stop], starts[start + 1 : stop + 1] - starts[start:stop]
        slot = torch.arange(widest, device=scores.device)
        there = slot < count[:, None]
        own = order[(first[:, None] + slot).clamp(max=len(order) - 1)]
        right = scores.gather(1, own).masked_fill(~there, -torch.inf)
        ranks = torch.stack(
            [_rank(scores, right[:, [i]], others_equal=1) for i in range(widest)], 1
        )
        ranks = ranks.masked_fill(~there, NOWHERE)
        best.append(ranks.amin(1).cpu())
        ap10.append(_average_precision(ranks, count).cpu())
    return QueryRanks(torch.cat(best), torch.cat(ap10))


def summary(ranks: QueryRanks) -> dict[str, float]:
    """R1, R5, R10 and mAP10 in percent, and MedR, the median rank."""
    found = {f"R{k}": 100 * (ranks.best <= k).double().mean().item() for k in CUTOFFS}
    found["MedR"] = ranks.best.double().quantile(0.5).item()
    found["mAP10"] = 100 * ranks.ap10.double().mean().item()
    return found


def _checked(scores: Tensor) -> Tensor:
    if bad := int(scores.isnan().sum()):
        raise ValueError(f"{bad} of {scores.numel()} scores are NaN; the bridge is not usable")
    return scores


def _rank(scores: Tensor, right: Tensor, others_equal: int) -> Tensor:
    """Rank of (Q, 1) right scores among (Q, G): 1 + those above + half of the equal others."""
    above = (scores > right).sum(1)
    equal = (scores == right).sum(1) - others_equal
    return 1 + above + (equal.clamp_min(0) + 1) // 2


def _grouped(owner: Tensor, clips: int) -> tuple[Tensor, Tensor]:
    """Captions ordered by clip, and where each clip's begin: (M,) and (N + 1,)."""
    counts = torch.bincount(owner, minlength=clips)
    if without := int((counts == 0).sum()):
        raise ValueError(f"{without} of {clips} clips have no caption to be found")
    return owner.argsort(stable=True), torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _average_precision(ranks: Tensor, count: Tensor) -> Tensor:
    """AP@10 of (Q, C) ranks, of which the first `count` (Q,) of a row exist; the rest are last."""
    ordered = ranks.sort(1).values
    found = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
    precision = torch.where(ordered <= AP_CUTOFF, found / ordered, 0.0)
    return (precision.sum(1) / count).float()
