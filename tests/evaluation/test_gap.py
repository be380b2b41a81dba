"""Gap metrics against closed forms."""

import math

import pytest
import torch
from torch.nn import functional as F

from diffgap.evaluation.gap import frechet, gap_metrics, separability, uniformity


def cloud(count=400, dimension=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64)


def test_a_cloud_has_no_gap_to_itself():
    points = F.normalize(cloud(), dim=-1)
    found = gap_metrics(points, points)
    assert found["mean_distance"] == 0
    assert found["paired_cosine"] == pytest.approx(1)
    assert found["alignment"] == pytest.approx(0)
    assert found["frechet"] == pytest.approx(0, abs=1e-9)
    assert found["separability"] == 50


def test_frechet_of_gaussians_with_known_covariances():
    x = cloud(count=4000)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T  # covariance 1
    shift = torch.arange(8, dtype=torch.float64)
    scale = torch.linspace(0.5, 2, 8, dtype=torch.float64)
    expected = shift.square().sum() + (scale - 1).square().sum()
    assert frechet(x, x * scale + shift) == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_matches_the_matrix_square_root():
    from scipy.linalg import sqrtm

    x, y = cloud(seed=1), cloud(seed=2) * torch.linspace(0.3, 2, 8) + 0.2
    s1, s2 = x.T.cov(), y.T.cov()
    root = sqrtm((s1 @ s2).numpy()).real
    expected = (x.mean(0) - y.mean(0)).square().sum() + (s1 + s2).trace() - 2 * root.trace()
    assert frechet(x, y) == pytest.approx(expected.item(), rel=1e-6)


def test_fewer_points_than_dimensions_are_no_trouble():
    x, y = F.normalize(cloud(6, 32), dim=-1), F.normalize(cloud(6, 32, seed=1), dim=-1)
    assert all(abs(value) < 200 for value in gap_metrics(x, y).values())
    assert len(gap_metrics(x[:1], y[:1])) == 7


def test_uniformity_is_the_mean_over_distinct_pairs():
    points = F.normalize(cloud(30), dim=-1)
    points[7] = points[3]  # a distance of 0 counts as any other
    potentials = [
        math.exp(-2 * float((points[i] - points[j]).square().sum()))
        for i in range(30)
        for j in range(i)
    ]
    expected = math.log(sum(potentials) / len(potentials))
    assert uniformity(points) == pytest.approx(expected, abs=1e-12)


def test_uniformity_of_two_opposite_points():
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert uniformity(points) == pytest.approx(-8)  # exp(-2 * |u - v|^2), the distance being 2


def test_modalities_apart_are_told_apart_and_mixed_ones_are_not():
    x, y = cloud(seed=1), cloud(seed=2)
    assert separability(x + 4, y - 4) == 100
    assert 30 < separability(x, y) < 70
