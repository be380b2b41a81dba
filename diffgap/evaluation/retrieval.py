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

from diffgap.evaluation.metrics import METRICS

ScoreChunk = Callable[[int, int], Tensor]
"""(start, stop) of queries -> their (stop - start, G) scores against the whole gallery."""

ScoreTile = Callable[[int, int, int], Tensor]
"""(row of x, row of a, size) -> (size, size) scores from there on."""

AP_CUTOFF = 10

NOWHERE = 1 << 40
"""Rank of what is not there."""

BLOCK = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Scores that are compared at once; on a CPU few enough that their memory is used again."""


@dataclass(frozen=True)
class QueryRanks:
    """Ranks of Q queries on the CPU, in the columns that `MetricInfo` takes."""

    rank: Tensor
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
        parts.append(_rank(scores, right).cpu())
    return _with_one_answer(torch.cat(parts))


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
        ranks = torch.cat([_rank(scores, right[:, [i]])[:, None] for i in range(widest)], 1)
        ranks = ranks.masked_fill(~there, NOWHERE)
        best.append(ranks.amin(1).cpu())
        ap10.append(_average_precision(ranks, count).cpu())
    return QueryRanks(torch.cat(best), torch.cat(ap10))


def ranks_of_pairs(score: ScoreTile, pairs: int, tile: int) -> tuple[QueryRanks, QueryRanks]:
    """Ranks of x's queries and of a's where pair i is row i of both, from one pass over the scores.

    The right scores are taken first, from the tiles on the diagonal; then each tile counts for its
    rows and for its columns. All tiles are of one size, the last overlapping the one before it, for
    products of one shape make equal scores of equal vectors: ties stay ties.

    Args:
        score: scores of a tile.
        pairs: N.
        tile: rows and columns of a tile.

    Raises:
        ValueError: where a score is NaN.
    """
    tile = min(tile, pairs)
    places = [(begin, min(begin, pairs - tile)) for begin in range(0, pairs, tile)]
    right = torch.cat([score(at, at, tile).diagonal()[begin - at :] for begin, at in places])
    above_less_below = right.new_zeros(2, pairs)
    for row, x_at in places:
        for column, a_at in places:
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
        column: Tensor = getattr(ranks, metric.column)
        values = torch.from_numpy(metric.of_ranks(column.numpy())).double()
        average = values.mean() if metric.average == "mean" else values.quantile(0.5)
        metrics[name] = 100 * average.item() if metric.unit == "%" else average.item()
    return metrics


def _checked(scores: Tensor) -> Tensor:
    if scores.sum().isnan() and (bad := int(scores.isnan().sum())):  # a sum is read far faster
        raise ValueError(f"{bad} of {scores.numel()} scores are NaN; the bridge is not usable")
    return scores


def _rank(scores: Tensor, right: Tensor) -> Tensor:
    """Ranks of (Q, 1) right scores, each one of its row's (Q, G)."""
    gallery = scores.shape[1]
    rows = max(1, BLOCK[scores.device.type] // gallery)
    blocks = zip(scores.split(rows), right.split(rows), strict=True)
    return _ranks(torch.cat([(part - own).sign_().sum(1) for part, own in blocks]), gallery)


def _ranks(above_less_below: Tensor, gallery: int) -> Tensor:
    """1 + those above + half of the equal others, rounded up, from a sum of signs.

    Of G scores, those above less those below, plus G, are twice those above plus all that are
    equal. Float32 counts to 2^24 exactly, further than galleries go.
    """
    return 1 + (above_less_below.long() + gallery) // 2


def _with_one_answer(best: Tensor) -> QueryRanks:
    return QueryRanks(best, torch.where(best <= AP_CUTOFF, 1.0 / best, 0.0))


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
