"""Frechet distances against closed forms, other implementations and finite differences."""

import pytest
import torch

from diffgap.evaluation.frechet import frechet, frechet_influences, frechet_of_moments


def points(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def covariance(dimension, seed):
    root = points(dimension, dimension, seed=seed)
    return root @ root.T / dimension


def test_gaussians_that_share_their_axes():
    scales, others = torch.linspace(0.5, 2, 6), torch.linspace(3, 0.1, 6)
    shift = torch.arange(6.0)
    expected = shift.square().sum() + (scales - others).square().sum()
    axes, _ = torch.linalg.qr(points(6, 6))
    first, second = (axes @ torch.diag(s.double().square()) @ axes.T for s in (scales, others))
    found = frechet_of_moments(shift, first, torch.zeros(6), second)
    assert found == pytest.approx(expected.item(), rel=1e-6)


def test_gaussians_with_axes_of_their_own_are_as_the_matrix_square_root_has_it():
    from scipy.linalg import sqrtm

    first, second = covariance(12, 1), covariance(12, 2)
    root = sqrtm((first @ second).numpy()).real
    expected = 12 * 0.25 + (first + second).trace() - 2 * root.trace()
    found = frechet_of_moments(torch.full((12,), 0.5), first, torch.zeros(12), second)
    assert found == pytest.approx(expected.item(), rel=1e-9)


def test_lines_in_space_have_a_closed_form():
    """For ``S1 = a a^T`` and ``S2 = b b^T`` the trace of the root is ``|a . b|``."""
    a, b = points(30, seed=1), points(30, seed=2)
    expected = a.square().sum() + b.square().sum() - 2 * (a @ b).abs()
    found = frechet_of_moments(torch.zeros(30), a.outer(a), torch.zeros(30), b.outer(b))
    assert found == pytest.approx(expected.item(), rel=1e-6)
    pair = torch.stack([a, -a]) / 2**0.5  # two points with that very covariance
    other = torch.stack([b, -b]) / 2**0.5
    assert frechet(pair, other) == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("count", [2, 20, 500])
def test_points_and_their_moments_agree_with_fewer_points_than_dimensions_or_more(count):
    x, y = points(count, 40, seed=1), 0.3 + 1.5 * points(count, 40, seed=2)
    moments = [part for side in (x, y) for part in (side.mean(0), side.T.cov())]
    assert frechet(x, y) == pytest.approx(frechet_of_moments(*moments), rel=1e-6)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)


def test_a_far_mean_costs_no_digits():
    x, y = points(200, 16, seed=1), 1.2 * points(200, 16, seed=2)
    assert frechet(x + 1e4, y + 1e4) == pytest.approx(frechet(x, y), rel=1e-6)


def test_it_is_what_torchmetrics_computes():
    image = pytest.importorskip("torchmetrics.image.fid", reason="needs the extra `dev`")

    class Flat(torch.nn.Module):
        num_features = 12

        def forward(self, pictures):
            return pictures.flatten(1)

    x, y = points(300, 12, seed=1), 0.2 + points(300, 12, seed=2) @ covariance(12, 3)
    metric = image.FrechetInceptionDistance(Flat()).set_dtype(torch.float64)
    metric.update(x.view(300, 3, 2, 2), real=True)
    metric.update(y.view(300, 3, 2, 2), real=False)
    assert frechet(x, y) == pytest.approx(metric.compute().item(), rel=1e-6)


def weighted(x, y, weights):
    """The distance of clips that count as often as their weights, by the definition."""
    moments = []
    for side in (x, y):
        rows = ~side.isnan().any(2)
        each = weights[:, None].expand(rows.shape)[rows]
        mean = each @ side[rows] / each.sum()
        about = side[rows] - mean
        unbiased = each.sum() * (1 - 1 / len(each))  # N - 1 where all weigh 1
        moments += [mean, (about.T * each) @ about / unbiased]
    return frechet_of_moments(*moments)


@pytest.mark.parametrize(("clips", "dimension"), [(40, 6), (5, 30)])
def test_influences_are_derivatives(clips, dimension):
    x = 0.3 + 1.3 * points(clips, 3, dimension, seed=1)
    y = points(clips, 4, dimension, seed=2)
    x[0, 2], y[1, 1:] = torch.nan, torch.nan  # clips of their own lengths
    found = frechet_influences(x, y)
    assert found.value == pytest.approx(frechet(x[~x.isnan().any(2)], y[~y.isnan().any(2)]))
    for clip in range(clips):
        step = 1e-3 * torch.eye(clips, dtype=torch.float64)[clip]
        slope = (weighted(x, y, 1 + step) - weighted(x, y, 1 - step)) / 2e-3
        assert found.of_clips[clip].item() == pytest.approx(slope, abs=1e-3)
