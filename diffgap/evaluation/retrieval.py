"""Retrieval metrics, from scores of which no more than a chunk is ever in memory.

Scores come a chunk of queries at a time, so that a gallery of 20,000 needs no 20,000 x 20,000
matrix. Ranks count from 1. A rival with the same score as the right answer counts half (rounded
up), so that a constant score gets the middle rank and not the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffgap.evaluation.metrics import METRICS, MetricInfo

ScoreChunk = Callable[[int, int], Tensor]
"""(start, stop) of queries -> their (stop - start, G) scores against the whole gallery."""

ScoreTile = Callable[[int, int, int], Tensor]
"""(first row of x, first row of a, size) -> their (size, size) scores."""

AP_CUTOFF = 10

NOWHERE = 1 << 40
"""Rank of padding: of a caption that a clip does not have."""

BLOCK = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Scores compared at once; on a CPU few enough for the allocator to reuse their memory."""


@dataclass(frozen=True)
class QueryRanks:
    """Ranks of Q queries on the CPU, in the columns that `MetricInfo` takes."""

    rank: Tensor
    """(Q,) int64: rank of the best relevant item."""
    ap10: Tensor
    """(Q,) float32: average precision within the first ten."""

    def values(self, metric: MetricInfo) -> np.ndarray:
        """(Q,) values of a metric; shares, where it is in percent."""
        return metric.of_ranks({"rank": self.rank, "ap10": self.ap10}[metric.column].numpy())


def ranks_of_owner(score: ScoreChunk, owner: Tensor, chunk: int) -> QueryRanks:
    """Ranks of queries with one right answer each: of captions (or videos) that seek their clip.

    `owner` (Q,) int64 is the clip of each query; `chunk` of them are scored at once. ValueError
    where a score is NaN.
    """
    parts = []
    for start in range(0, len(owner), chunk):
        stop = min(start + chunk, len(owner))
        scores = _checked(score(start, stop))
        right = scores.gather(1, owner[start:stop, None])
        parts.append(_rank(scores, right).cpu())
    return _with_one_answer(torch.cat(parts))


def ranks_of_captions(score: ScoreChunk, owner: Tensor, clips: int, chunk: int) -> QueryRanks:
    """Ranks of clips that seek any of their captions: the best one's counts.

    AP@10 is LAION-CLAP's: over a clip's captions, the mean of the precision at each one's rank,
    0 for a caption beyond the first ten. `owner` (M,) int64 is the clip of each caption; `chunk`
    clips are scored at once. ValueError where a score is NaN, or a clip has no caption.
    """
    order, starts = _grouped(owner, clips)
    counts = starts.diff()
    slots = torch.arange(int(counts.max()), device=owner.device)  # C, the most that a clip has
    best, ap10 = [], []
    for start in range(0, clips, chunk):
        stop = min(start + chunk, clips)
        scores = _checked(score(start, stop))
        count = counts[start:stop]
        exists = slots < count[:, None]
        captions = order[(starts[start:stop, None] + slots).clamp(max=len(order) - 1)]
        right = scores.gather(1, captions).masked_fill(~exists, -torch.inf)
        # one caption after the other, for a (Q, C, G) comparison would not fit
        ranks = torch.stack([_rank(scores, column[:, None]) for column in right.T], dim=1)
        ranks = ranks.masked_fill(~exists, NOWHERE)
        best.append(ranks.amin(1).cpu())
        ap10.append(_average_precision(ranks, count).cpu())
    return QueryRanks(torch.cat(best), torch.cat(ap10))


def ranks_of_pairs(score: ScoreTile, pairs: int, tile: int) -> tuple[QueryRanks, QueryRanks]:
    """Ranks of x's queries and of a's where pair i is row i of both, from one pass over the scores.

    ValueError where a score is NaN.
    """
    tile = min(tile, pairs)
    # The last tile overlaps the one before it, so that all have one size: products of one shape
    # give equal scores for equal vectors, and ties stay ties.
    corners = [(begin, min(begin, pairs - tile)) for begin in range(0, pairs, tile)]
    # The right scores are on the diagonal; each tile then counts for its rows and its columns.
    right = torch.cat([score(at, at, tile).diagonal()[begin - at :] for begin, at in corners])
    above_less_below = right.new_zeros(2, pairs)
    for row, x_at in corners:
        for column, a_at in corners:
            scores = _checked(score(x_at, a_at, tile)[row - x_at :, column - a_at :])
            rows, columns = slice(row, x_at + tile), slice(column, a_at + tile)
            above_less_below[0, rows] += (scores - right[rows, None]).sign_().sum(1)
            above_less_below[1, columns] += (scores - right[columns]).sign_().sum(0)
    of_x, of_a = _ranks(above_less_below, pairs).cpu()
    return _with_one_answer(of_x), _with_one_answer(of_a)


def summary(ranks: QueryRanks) -> dict[str, float]:
    """Every metric of the registry by its name: in percent, or the median rank."""
    metrics = {}
    for name, metric in METRICS.items():
        values = torch.from_numpy(ranks.values(metric)).double()
        average = values.mean() if metric.average == "mean" else values.quantile(0.5)
        metrics[name] = 100 * average.item() if metric.unit == "%" else average.item()
    return metrics


def _checked(scores: Tensor) -> Tensor:
    # A NaN makes the sum one, and a sum is far cheaper than a mask of all scores.
    if scores.sum().isnan() and (bad := int(scores.isnan().sum())):
        raise ValueError(f"{bad} of {scores.numel()} scores are NaN; the bridge is not usable")
    return scores


def _rank(scores: Tensor, right: Tensor) -> Tensor:
    """(Q,) ranks of (Q, 1) right scores, each within its row of (Q, G)."""
    gallery = scores.shape[1]
    rows = max(1, BLOCK[scores.device.type] // gallery)
    above_less_below = []
    for block, answer in zip(scores.split(rows), right.split(rows), strict=True):
        above_less_below.append((block - answer).sign_().sum(1))
    return _ranks(torch.cat(above_less_below), gallery)


def _ranks(above_less_below: Tensor, gallery: int) -> Tensor:
    """1 + those above + half of the equal others, rounded up, from a sum of signs."""
    # Of G scores, above - below + G = 2 above + equal, the right one among the equal.
    # Float32 counts exactly to 2^24, further than galleries go.
    return 1 + (above_less_below.long() + gallery) // 2


def _with_one_answer(rank: Tensor) -> QueryRanks:
    """With one right answer, AP is the precision at its rank."""
    return QueryRanks(rank, torch.where(rank <= AP_CUTOFF, 1.0 / rank, 0.0))


def _grouped(owner: Tensor, clips: int) -> tuple[Tensor, Tensor]:
    """Captions in the order of their clips (M,), and the first of each clip's in it (N + 1,)."""
    counts = torch.bincount(owner, minlength=clips)
    if without := int((counts == 0).sum()):
        raise ValueError(f"{without} of {clips} clips have no caption to find")
    return owner.argsort(stable=True), torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _average_precision(ranks: Tensor, count: Tensor) -> Tensor:
    """AP@10 of (Q, C) ranks, of which the first `count` (Q,) of a row exist; the rest are last."""
    ordered = ranks.sort(1).values
    hits = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)  # up to each rank
    precision = torch.where(ordered <= AP_CUTOFF, hits / ordered, 0.0)
    return (precision.sum(1) / count).float()
