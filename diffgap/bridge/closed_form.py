"""Closed forms: linear maps and rotations that are solved on the training pairs, not trained.

The rows that a reviewer asks for first. All of them are solved in float64 on the CPU, so that a
trial has the same matrices wherever it runs.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffgap.bridge import bst
from diffgap.bridge.base import Bridge, unit
from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.siblings import Centred

Matrix = NDArray[np.float64]


class Procrustes(Centred):
    """The rotation of centred x onto centred a of least squared error (Schönemann 1966)."""

    rotation: Tensor

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.register_buffer("rotation", torch.eye(config.dimension))

    def fit(self, x: Tensor, a: Tensor, owner: Tensor) -> None:
        from scipy.linalg import orthogonal_procrustes

        super().fit(x, a, owner)
        x_centred, a_centred = _centred_pairs(x, a, owner)
        rotation, _ = orthogonal_procrustes(x_centred, a_centred)
        self.rotation = torch.from_numpy(rotation).to(self.rotation)

    def space(self, vectors: Tensor, side: int) -> Tensor:
        centred = vectors - self.means[side]
        return unit(centred @ self.rotation if side == bst.X_TO_A else centred)


class CCA(Centred):
    """Canonical correlations (Hotelling 1936) of shrunk covariances.

    Both sides go to the canonical directions, each weighted by its correlation: directions in
    which the training pairs do not agree have no say. Covariances are shrunk towards a multiple of
    the identity of the same trace, without which D directions overfit.
    """

    projections: Tensor

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        identity = torch.eye(config.dimension)
        self.register_buffer("projections", torch.stack([identity, identity]))

    def fit(self, x: Tensor, a: Tensor, owner: Tensor) -> None:
        super().fit(x, a, owner)
        x_centred, a_centred = _centred_pairs(x, a, owner)
        projections = canonical_projections(x_centred, a_centred, self.config.options["shrinkage"])
        self.projections = torch.from_numpy(np.stack(projections)).to(self.projections)

    def space(self, vectors: Tensor, side: int) -> Tensor:
        return unit((vectors - self.means[side]) @ self.projections[side])


class Ridge(Bridge):
    """Ridge regression in both directions (Hoerl and Kennard 1970), with intercepts.

    Carried vectors lie in the target's own space, as DiffGAP's do, and are scored as its are.
    """

    weights: Tensor
    intercepts: Tensor

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.register_buffer("weights", torch.zeros(2, config.dimension, config.dimension))
        self.register_buffer("intercepts", torch.zeros(2, config.dimension))

    @property
    def directions(self) -> tuple[int, ...]:
        return (bst.X_TO_A, bst.A_TO_X)

    def fit(self, x: Tensor, a: Tensor, owner: Tensor) -> None:
        sides = _double(x), _double(a)[owner.cpu().numpy()]
        for direction in self.directions:
            source, target = sides[direction], sides[1 - direction]
            weights, intercept = ridge(source, target, self.config.options["penalty"])
            self.weights[direction] = torch.from_numpy(weights)
            self.intercepts[direction] = torch.from_numpy(intercept)

    def carry(self, source: Tensor, direction: int, score: ScoreConfig) -> Tensor:
        return unit(source @ self.weights[direction] + self.intercepts[direction])


class ReAlign(Centred):
    """ReAlign (arXiv 2602.07026): x takes over the mean and the spread of a, without pairs.

    ``m_a + sqrt(T_a / T_x) (x - m_x)``, with T the trace of a covariance; then unit length, a shift
    to a's centroid for what unit length has moved, and unit length again. Ours: x is what moves.
    """

    ratio: Tensor
    drift: Tensor

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        self.register_buffer("ratio", torch.ones(()))
        self.register_buffer("drift", torch.zeros(config.dimension))

    def fit(self, x: Tensor, a: Tensor, owner: Tensor) -> None:
        super().fit(x, a, owner)
        traces = [(side - side.mean(0)).square().sum(-1).mean() for side in (x, a)]
        self.ratio = (traces[1] / traces[0]).sqrt().to(self.ratio)
        self.drift = self.means[1] - self._spread(x).mean(0)

    def space(self, vectors: Tensor, side: int) -> Tensor:
        return vectors if side == bst.A_TO_X else unit(self._spread(vectors) + self.drift)

    def _spread(self, x: Tensor) -> Tensor:
        return unit(self.means[1] + self.ratio * (x - self.means[0]))


def ridge(source: Matrix, target: Matrix, penalty: float) -> tuple[Matrix, Matrix]:
    """The (D, E) weights and (E,) intercept of least ``|target - source W - c|^2 + penalty |W|^2``.

    source is (P, D), target (P, E).
    """
    from scipy.linalg import solve

    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    gram = centred.T @ centred + penalty * np.eye(source.shape[1])
    weights = solve(gram, centred.T @ (target - target_mean), assume_a="pos")
    return weights, target_mean - source_mean @ weights


def canonical_projections(x: Matrix, a: Matrix, shrinkage: float) -> tuple[Matrix, Matrix]:
    """The (D, D) projections of centred (P, D) pairs onto weighted canonical directions.

    The correlations are the singular values of ``C_xx^-1/2 C_xa C_aa^-1/2``; each direction is
    weighted by its own.
    """
    x_whitener, a_whitener = _whitener(x, shrinkage), _whitener(a, shrinkage)
    left, correlations, right = np.linalg.svd(x_whitener @ (x.T @ a / len(x)) @ a_whitener)
    return x_whitener @ left * correlations, a_whitener @ right.T * correlations


def _whitener(centred: Matrix, shrinkage: float) -> Matrix:
    """The (D, D) inverse square root of the shrunk covariance of (P, D) rows."""
    dimension = centred.shape[1]
    covariance = centred.T @ centred / len(centred)
    ridge = np.trace(covariance) / dimension * np.eye(dimension)
    values, vectors = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * ridge)
    return vectors / np.sqrt(values) @ vectors.T


def _centred_pairs(x: Tensor, a: Tensor, owner: Tensor) -> tuple[Matrix, Matrix]:
    """The (M, D) rows of both sides, pair by pair, less each side's mean."""
    x_rows, a_rows = _double(x), _double(a)
    return x_rows - x_rows.mean(0), (a_rows - a_rows.mean(0))[owner.cpu().numpy()]


def _double(vectors: Tensor) -> Matrix:
    rows: Matrix = vectors.cpu().double().numpy()
    return rows
