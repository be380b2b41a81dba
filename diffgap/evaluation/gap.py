"""The modality gap, measured: how far apart two clouds of paired embeddings lie, and how."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from diffgap.compat.torch_optim import LBFGS
from diffgap.evaluation.frechet import frechet

UNIFORMITY_POINTS = 2000
"""Points of each modality that uniformity is taken over: it is quadratic in them."""

HELD_OUT = 5
"""Every fifth pair tests the classifier that tells the modalities apart."""


def gap_metrics(x: Tensor, y: Tensor) -> dict[str, float]:
    """All gap metrics of (N, D) paired unit vectors.

    Returns:
        mean_distance: distance of the modality means (Liang et al. 2022).
        paired_cosine: mean cosine of the pairs.
        alignment: mean squared distance of the pairs (Wang & Isola 2020, alpha = 2).
        uniformity_x, uniformity_y: log mean Gaussian potential (the same, t = 2).
        separability: percent of held-out points whose modality a linear classifier tells.
        frechet: Frechet distance of the two clouds as Gaussians.
    """
    x, y = x.double(), y.double()
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
    exponents = squared.mul_(-t).clamp_(max=0).fill_diagonal_(-torch.inf)
    pairs = len(thinned) * (len(thinned) - 1)
    return exponents.flatten().logsumexp(0).item() - math.log(pairs)


def separability(x: Tensor, y: Tensor) -> float:
    """Held-out accuracy, in percent, of ridge-regularised logistic regression of the modality.

    50 is chance. A pair is held out or trained on as a whole.
    """
    held = torch.arange(len(x)) % HELD_OUT == HELD_OUT - 1
    if held.sum() == 0:
        return 50.0
    train = torch.cat([x[~held], y[~held]])
    labels = torch.cat([torch.zeros(len(x[~held])), torch.ones(len(y[~held]))]).double()
    weights = _logistic_regression(train, labels)
    test = _with_bias(torch.cat([x[held], y[held]]))
    truth = torch.cat([torch.zeros(int(held.sum())), torch.ones(int(held.sum()))]).bool()
    return 100 * ((test @ weights > 0) == truth).double().mean().item()


def _logistic_regression(points: Tensor, labels: Tensor, ridge: float = 1e-3) -> Tensor:
    """(D + 1,) weights, the bias last, by L-BFGS."""
    points = _with_bias(points)
    weights = torch.zeros(points.shape[1], dtype=points.dtype, requires_grad=True)
    optimizer = LBFGS(weights, max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(points @ weights, labels)
        loss = loss + ridge * weights[:-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach()


def _with_bias(points: Tensor) -> Tensor:
    return torch.cat([points, points.new_ones(len(points), 1)], dim=1)
