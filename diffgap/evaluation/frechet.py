"""Frechet distances between clouds of features taken as Gaussians.

``|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))`` (Dowson & Landau 1982). With ``S = F^T F`` the
eigenvalues of ``S1 S2`` are the squared singular values of ``F1 F2^T``, and the last trace is their
sum, a nuclear norm. So no root is taken of a matrix that need not be symmetric, nothing has to be
regularised, and covariances may be singular. All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrechetInfluences:
    """A Frechet distance, and the influence of each clip on it."""

    value: float
    of_clips: Tensor
    """(N,): the derivative by the clip's weight, in a sum of weights that stays N."""


def frechet(x: Tensor, y: Tensor) -> float:
    """The distance of (N, D) and (M, D) points, their covariances over N - 1 and M - 1."""
    # R has at most D rows, however many points there are, and R^T R = A^T A.
    factor_x = torch.linalg.qr(_centred(x), mode="r").R
    factor_y = torch.linalg.qr(_centred(y), mode="r").R
    return _distance(x.double().mean(0) - y.double().mean(0), factor_x, factor_y)


def frechet_of_moments(
    mean_x: Tensor, covariance_x: Tensor, mean_y: Tensor, covariance_y: Tensor
) -> float:
    """The distance of two Gaussians given by (D,) means and (D, D) covariances."""
    root_x, root_y = _root(covariance_x.double()), _root(covariance_y.double())
    return _distance(mean_x.double() - mean_y.double(), root_x, root_y)


def frechet_influences(x: Tensor, y: Tensor) -> FrechetInfluences:
    """The distance of the points of N clips, and the influence of each clip.

    A clip is all its points on both sides. With ``A B^T = U diag(s) V^T`` for the centred points A
    and B, the derivative of the nuclear norm by the weight of a row of A is ``sum_k s_k U_k^2 / 2``
    in that row, and for B the same of V: no inverse is needed, and covariances may be singular.

    Args:
        x: (N, F, D), where rows of NaN stand for points that a clip does not have.
        y: (N, G, D), the same.
    """
    clips_x, points_x = _points(x)
    clips_y, points_y = _points(y)
    centred_x, centred_y = _centred(points_x), _centred(points_y)
    q_x, r_x = torch.linalg.qr(centred_x)
    q_y, r_y = torch.linalg.qr(centred_y)
    # The SVD of A B^T, which is large, from that of R_A R_B^T, which is (D, D).
    u, s, vt = torch.linalg.svd(r_x @ r_y.T, full_matrices=False)
    gap = points_x.mean(0) - points_y.mean(0)
    of_clips = torch.zeros(len(x), dtype=torch.float64)
    side_x = clips_x, points_x, centred_x, gap, q_x @ u
    side_y = clips_y, points_y, centred_y, -gap, q_y @ vt.T
    for clips, points, centred, direction, singular in (side_x, side_y):
        of_mean = 2 * (points @ direction) / len(points)
        of_points = of_mean + centred.square().sum(1) - singular.square() @ s
        # Less their mean: the weights' sum is held at N.
        of_clips.index_add_(0, clips, of_points - of_points.mean())
    return FrechetInfluences(_sum(gap, r_x, r_y, s), of_clips)


def _points(clips: Tensor) -> tuple[Tensor, Tensor]:
    """(K,) clip of each point, and the (K, D) points of (N, F, D) clips without those of NaN."""
    present = ~clips.isnan().any(2)
    return present.nonzero()[:, 0], clips[present].double()


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
