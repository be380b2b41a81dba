"""Bidirectional Split Training: which pair of a batch trains which direction.

Direction 0 is ``x->a``: the target is audio, the condition its text or video. Direction 1 is
``a->x``. The paper splits training between the two; how exactly is not known, so the split is an
axis of the sweep.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

X_TO_A, A_TO_X = 0, 1
DIRECTIONS = ("x->a", "a->x")

MODES = ("split", "alternate", "joint")


def directions_trained(enabled: bool) -> tuple[int, ...]:
    """The directions that a bridge learns; without BST only x->a."""
    return (X_TO_A, A_TO_X) if enabled else (X_TO_A,)


def one_way(rows: Tensor, direction: int) -> Tensor:
    """One direction for all of (B, D) rows: (B,) int64, on their device."""
    return torch.full((len(rows),), direction, device=rows.device)


def assign(
    batch: int, step: int, enabled: bool, mode: str, fraction: float
) -> tuple[Tensor, Tensor]:
    """Assigns the pairs of a batch to the directions.

    Args:
        batch: B, the number of pairs.
        step: the optimiser step, counted from 0.
        enabled: without BST every pair trains x->a.
        mode: ``split`` trains the first ``fraction`` of the batch as x->a and the rest as a->x;
            ``alternate`` gives whole batches to the directions in turn, ``fraction`` of them to
            x->a; ``joint`` trains every pair in both directions, twice the examples a step.
        fraction: share of x->a, in (0, 1).

    Returns:
        The pair of each example and its direction, both int64 of (B,), or (2B,) for ``joint``.
    """
    pairs = torch.arange(batch)
    if not enabled:
        return pairs, torch.full((batch,), X_TO_A)
    if mode == "split":
        return pairs, (pairs >= round(batch * fraction)).long()
    if mode == "alternate":
        # x->a has had ceil(step * fraction) steps: spread evenly, without a random draw.
        turn = math.ceil((step + 1) * fraction) > math.ceil(step * fraction)
        return pairs, torch.full((batch,), X_TO_A if turn else A_TO_X)
    assert mode == "joint", mode
    return pairs.repeat(2), torch.arange(2).repeat_interleave(batch)
