"""Metrics of the modality gap: how far apart two clouds of paired embeddings lie, and how."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from diffgap.compat.torch_optim import LBFGS
from diffgap.evaluation.frechet import frechet

UNIFORMITY_POINTS = 2000
"""Points of each modality for uniformity, whose cost is quadratic in them."""

HELD_OUT = 5
"""Every fifth pair tests the classifier of the modality."""


def gap_metrics(x: Tensor, y: Tensor) -> dict[str, float]:
    """All gap metrics of (N, D) paired unit vectors.

    Returns:
        mean_distance: distance of the modality means (Liang et al. 2022).
        paired_cosine: mean cosine of the pairs.
        alignment: mean squared distance of the pairs (Wang & Isola 2020, alpha = 2).
        uniformity_x, uniformity_y: log mean Gaussian potential (the same, t = 2).
        separability: percent of held-out points whose modality a linear classifier predicts.
        frechet: Frechet distance of the two clouds as Gaussians.
    """
    x, y = x.double(), y.double()  # near clouds differ in the last digits of a float32
    return {
        "mean_distance": (x.mean(0) - y.mean(0)).norm().item(),
        "paired_cosine": (x * y).sum(-1).mean().item(),
        "alignment": (x - y).square().sum(-1).mean().item(),
        "uniformity_x": uniformity(x),
        "uniformity_y": uniformity(y),
        "separability": separability(x, y),
        "frechet": frechet(x, y),
    }


def uniformity(points: Tensor, t: float = 2.0) -> float:
    """``log mean exp(-t |u - v|^2)`` over pairs of (N, D) points (Wang & Isola 2020, eq. 2).

    0 where all points are one; lower is more uniform. Large N is thinned evenly.
    """
    thinned = points[:: 1 + len(points) // UNIFORMITY_POINTS]
    if len(thinned) < 2:
        return 0.0
    lengths = thinned.square().sum(1)
    squared = torch.addmm(lengths[:, None] + lengths, thinned, thinned.T, alpha=-2)
    # Rounding can make a distance negative; a point is no pair with itself.
    exponents = squared.mul_(-t).clamp_(max=0).fill_diagonal_(-torch.inf)
    pairs = len(thinned) * (len(thinned) - 1)
    return exponents.flatten().logsumexp(0).item() - math.log(pairs)


def separability(x: Tensor, y: Tensor) -> float:
    """Held-out accuracy, in percent, of ridge-regularised logistic regression of the modality.

    50 is chance. A pair is held out or trained on as a whole.
    """
    is_test = torch.arange(len(x)) % HELD_OUT == HELD_OUT - 1
    if not is_test.any():
        return 50.0
    weights = _logistic_regression(*_labelled(x[~is_test], y[~is_test]))
    points, labels = _labelled(x[is_test], y[is_test])
    return 100 * ((points @ weights > 0) == labels.bool()).double().mean().item()


def _labelled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Points of both modalities with a constant 1 for the bias, and 0 for x and 1 for y."""
    points = torch.cat([x, y])
    labels = torch.cat([x.new_zeros(len(x)), y.new_ones(len(y))])
    return torch.cat([points, points.new_ones(len(points), 1)], dim=1), labels


def _logistic_regression(points: Tensor, labels: Tensor, ridge: float = 1e-3) -> Tensor:
    """(D + 1,) weights, the bias last, by L-BFGS."""
    weights = torch.zeros(points.shape[1], dtype=points.dtype, requires_grad=True)
    optimizer = LBFGS(weights, max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(points @ weights, labels)
        loss = loss + ridge * weights[:-1].square().sum()  # the bias is free
        loss.backward()
        return loss

    with torch.enable_grad():  # evaluation runs in inference mode
        optimizer.step(closure)
    return weights.detach()
