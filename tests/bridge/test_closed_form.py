"""Closed forms agree with independent implementations, and do what they are for."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from torch.nn import functional as F

from diffgap.bridge.base import Bridge
from diffgap.bridge.bst import A_TO_X, X_TO_A
from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.bridge.scores import pair_features

CLIPS, TEXTS, D = 150, 400, 12
OPTIONS = {"ridge": {"penalty": 3.0}, "cca": {"shrinkage": 0.2}}
METHODS = ("realign", "procrustes", "ridge", "cca")


def pairs(seed=0):
    """Texts, clips, and the clip of each text: some have several texts, and some none."""
    generator = torch.Generator().manual_seed(seed)
    content = torch.randn(CLIPS, D, generator=generator)
    rotation, _ = torch.linalg.qr(torch.randn(D, D, generator=generator))
    owner = torch.randint(CLIPS - 5, (TEXTS,), generator=generator)
    noise = 0.5 * torch.randn(TEXTS, D, generator=generator)
    x = F.normalize((content[owner] + noise) @ rotation + 1.0, dim=-1)
    return x, F.normalize(content - 1.0, dim=-1), owner


def fitted(method):
    config = BridgeConfig(
        ("text", "audio"), D, 8, 1, False, False, method=method, options=OPTIONS.get(method, {}),
        score=ScoreConfig("bridge" if method == "ridge" else "cosine"),
    )  # fmt: skip
    bridge = make_bridge(config)
    bridge.fit(*pairs())
    return bridge.eval()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_procrustes_is_the_best_rotation():
    x, a, owner = (tensor.numpy().astype(float) for tensor in pairs())
    x, a = x - x.mean(0), a - a.mean(0)
    left, _, right = np.linalg.svd(x.T @ a[owner.astype(int)])
    bridge = fitted("procrustes")
    np.testing.assert_allclose(bridge.space(pairs()[0], 0), unit(x @ left @ right), atol=1e-5)
    np.testing.assert_allclose(bridge.space(pairs()[1], 1), unit(a), atol=1e-5)


@pytest.mark.parametrize("direction", [X_TO_A, A_TO_X])
def test_ridge_is_that_of_scikit_learn(direction):
    x, a, owner = pairs()
    sides = (x.numpy(), a[owner].numpy())
    reference = SklearnRidge(alpha=OPTIONS["ridge"]["penalty"])
    reference.fit(sides[direction].astype(float), sides[1 - direction].astype(float))
    source = (x, a)[direction]
    expected = unit(reference.predict(source.numpy().astype(float)))
    carried = fitted("ridge").carry(source, direction, ScoreConfig("bridge"))
    np.testing.assert_allclose(carried, expected, atol=1e-5)


def test_cca_solves_the_generalised_eigenproblem():
    from scipy.linalg import eigh

    x, a, owner = pairs()
    x_rows, a_rows = x.numpy().astype(float), a.numpy().astype(float)
    x_rows, a_rows = x_rows - x_rows.mean(0), a_rows - a_rows.mean(0)
    paired = a_rows[owner.numpy()]
    cross = x_rows.T @ paired / TEXTS

    def shrunk(rows):
        covariance = rows.T @ rows / TEXTS
        share = OPTIONS["cca"]["shrinkage"]
        return (1 - share) * covariance + share * np.trace(covariance) / D * np.eye(D)

    zeros = np.zeros((D, D))
    left = np.block([[zeros, cross], [cross.T, zeros]])
    right = np.block([[shrunk(x_rows), zeros], [zeros, shrunk(paired)]])
    values, vectors = eigh(left, right)
    values, vectors = values[::-1][:D], vectors[:, ::-1][:, :D] * np.sqrt(2)
    projections = vectors[:D] * values, vectors[D:] * values
    expected = unit(x_rows @ projections[0]) @ unit(a_rows @ projections[1]).T  # signs cancel
    bridge = fitted("cca")
    scores = bridge.space(x, 0) @ bridge.space(a, 1).T
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_realign_gives_x_the_mean_and_the_spread_of_a():
    x, a, _ = (tensor.numpy().astype(float) for tensor in pairs())
    traces = [np.trace(np.cov(side.T, bias=True)) for side in (x, a)]
    moved = unit(a.mean(0) + np.sqrt(traces[1] / traces[0]) * (x - x.mean(0)))
    expected = unit(moved - moved.mean(0) + a.mean(0))
    bridge = fitted("realign")
    np.testing.assert_allclose(bridge.space(pairs()[0], 0), expected, atol=1e-5)
    assert bridge.space(pairs()[1], 1).equal(pairs()[1])


@pytest.mark.parametrize("method", METHODS)
def test_what_was_solved_comes_back_the_same(tmp_path, method):
    bridge, (x, a, _) = fitted(method), pairs(seed=1)
    bridge.save_pretrained(tmp_path)
    again = Bridge.from_pretrained(tmp_path)
    for side, vectors in enumerate((x, a)):
        assert again.space(vectors, side).equal(bridge.space(vectors, side))
    features = pair_features(bridge, x, a, bridge.config.score)
    assert pair_features(again, x, a, bridge.config.score).x.equal(features.x)


@pytest.mark.parametrize("method", METHODS[1:])
def test_what_reads_pairs_finds_more_of_them(method):
    x, a, owner = pairs(seed=0)
    bridge = fitted(method)

    def recall(features):
        return (features.x @ features.a.T).argmax(1).eq(owner).float().mean()

    solved = pair_features(bridge, x, a, bridge.config.score)
    baseline = (x @ a.T).argmax(1).eq(owner).float().mean()
    assert recall(solved) > baseline + 0.1
