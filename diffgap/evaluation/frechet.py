"""Frechet distances between clouds of features taken as Gaussians.

``|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))`` (Dowson & Landau 1982). With ``S = F^T F`` the
eigenvalues of ``S1 S2`` are the squared singular values of ``F1 F2^T``, and the last trace is their
sum, a nuclear norm. So no root is taken of a matrix that need not be symmetric, nothing has to be
regularised, and singular covariances are as good as others. All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Influences:
    """A Frechet distance, and what each clip does to it."""

    distance: float
    of_clips: Tensor
    """(N,): the derivative by the clip's weight, in a sum of weights that stays N."""


def frechet(x: Tensor, y: Tensor) -> float:
    """The distance of (N, D) and (M, D) points, their covariances over N - 1 and M - 1."""
    r_x, r_y = (torch.linalg.qr(_centred(points), mode="r").R for points in (x, y))
    return _distance(x.double().mean(0) - y.double().mean(0), r_x, r_y)


def frechet_of_moments(
    mean_x: Tensor, covariance_x: Tensor, mean_y: Tensor, covariance_y: Tensor
) -> float:
    """The distance of two Gaussians given by (D,) means and (D, D) covariances."""
    roots = (_root(covariance.double()) for covariance in (covariance_x, covariance_y))
    return _distance(mean_x.double() - mean_y.double(), *roots)


def frechet_influences(x: Tensor, y: Tensor) -> Influences:
    """The distance of the points of N clips, and the influence of each clip.

    A clip is all its points on both sides. With ``A B^T = U diag(s) V^T`` for the centred points A
    and B, the derivative of the nuclear norm by the weight of a row of A is ``sum_k s_k U_k^2 / 2``
    in that row, and for B the same of V: no inverse, and singular covariances are no trouble.

    Args:
        x: (N, F, D), where rows of NaN stand for points that a clip does not have.
        y: (N, G, D), the same.
    """
    there = [~side.isnan().any(2) for side in (x, y)]
    points = [side[rows].double() for side, rows in zip((x, y), there, strict=True)]
    centred = [_centred(side) for side in points]
    (q_x, r_x), (q_y, r_y) = (torch.linalg.qr(side) for side in centred)
    u, s, vt = torch.linalg.svd(r_x @ r_y.T, full_matrices=False)
    gap = points[0].mean(0) - points[1].mean(0)
    of_clips = torch.zeros(len(x), dtype=torch.float64)
    roots = (q_x @ u, q_y @ vt.T)
    for side, about, rows, away, root in zip(
        points, centred, there, (gap, -gap), roots, strict=True
    ):
        of_rows = 2 * (side @ away) / len(side) + about.square().sum(1) - root.square() @ s
        of_clips.index_add_(0, rows.nonzero()[:, 0], of_rows - of_rows.mean())
    return Influences(_sum(gap, r_x, r_y, s), of_clips)


def _centred(points: Tensor) -> Tensor:
    """(N, D) points about their mean over the root of N - 1: their square is the covariance."""
    points = points.double()
    return (points - points.mean(0)) / max(1, len(points) - 1) ** 0.5


def _root(covariance: Tensor) -> Tensor:
    """(D, D): its square ``F^T F`` is the covariance; eigenvalues below 0 count as 0."""
    values, vectors = torch.linalg.eigh(covariance)
    return values.clamp_min(0).sqrt()[:, None] * vectors.T


def _distance(gap: Tensor, factor_x: Tensor, factor_y: Tensor) -> float:
    """From the means' difference (D,) and factors (K, D) and (L, D) of the covariances."""
    return _sum(gap, factor_x, factor_y, torch.linalg.svdvals(factor_x @ factor_y.T))


def _sum(gap: Tensor, factor_x: Tensor, factor_y: Tensor, singular: Tensor) -> float:
    spread = factor_x.square().sum() + factor_y.square().sum() - 2 * singular.sum()
    return max(0.0, (gap.square().sum() + spread).item())
