"""The artifact behind the gap's drawing, against numpy and slow loops."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffgap.bridge import bst
from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.evaluation.evaluate import bridged_clouds
from diffgap.evaluation.gap import gap_metrics
from diffgap.evaluation.gap_sample import SAMPLE, gap_sample
from diffgap.store.store import Pairs

DIMENSION = 16


def vectors(count, seed):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, DIMENSION, generator=generator) + 1.5 * seed
    return F.normalize(drawn, dim=-1).numpy()


def paired(clips, captions):
    owner = np.repeat(np.arange(clips), captions)
    ids = tuple(f"clip {i}" for i in range(clips))
    return Pairs(ids, vectors(clips * captions, 1), vectors(clips, 2), owner)


def bridge_of(method):
    torch.manual_seed(0)
    on = method in ("diffgap", "deterministic")
    config = BridgeConfig(
        ("text", "audio"), DIMENSION, width=32, blocks=1, cdm=method == "diffgap", bst=on,
        method=method,
    )  # fmt: skip
    return make_bridge(config).eval()


def sample_of(bridge, pairs):
    return gap_sample(pairs, bridged_clouds(bridge, pairs))


def points(table, when):
    """(2, N, 2): the coordinates of x and of a."""
    return np.stack(
        [np.stack([table[f"{when}_{side}_{i}"].to_numpy() for i in (1, 2)], 1) for side in "xa"]
    )


def slow_plane(x, a):
    """(2, N, 2) coordinates by the covariance's eigenvectors, signs open."""
    both = np.concatenate([x, a]).astype(float)
    both -= both.mean(0)
    values, axes = np.linalg.eigh(both.T @ both)
    explained = values[::-1][:2] / values.sum()
    return np.stack(np.split(both @ axes[:, ::-1][:, :2], 2)), explained


def test_coordinates_are_those_of_both_clouds_principal_components():
    pairs = paired(40, 2)
    table = sample_of(bridge_of("diffgap"), pairs)
    expected, explained = slow_plane(pairs.x, pairs.a[pairs.owner])
    found = points(table, "before")
    signs = np.sign((found * expected).sum((0, 1)))
    np.testing.assert_allclose(found, expected * signs, atol=1e-9)
    said = json.loads(table.schema.metadata[b"explained"])["before"]
    np.testing.assert_allclose(said, explained, rtol=1e-9)


def test_after_is_x_carried_over_in_a_plane_of_its_own():
    pairs, bridge = paired(30, 1), bridge_of("diffgap")
    table = sample_of(bridge, pairs)
    with torch.inference_mode():
        x = bridge.carry(torch.from_numpy(pairs.x), bst.X_TO_A, ScoreConfig("bridge")).numpy()
    expected, _ = slow_plane(x, pairs.a)
    found = points(table, "after")
    signs = np.sign((found * expected).sum((0, 1)))
    np.testing.assert_allclose(found, expected * signs, atol=1e-5)
    cosines = [float(np.dot(x[i], pairs.a[i])) for i in range(30)]
    np.testing.assert_allclose(table["after_cosine"].to_numpy(), cosines, atol=1e-5)


def test_cosines_are_each_pair_s_own():
    pairs = paired(20, 3)
    table = sample_of(bridge_of("none"), pairs)
    expected = [float(np.dot(pairs.x[i], pairs.a[pairs.owner[i]])) for i in range(60)]
    np.testing.assert_allclose(table["before_cosine"].to_numpy(), expected, atol=1e-6)
    whole = gap_metrics(torch.from_numpy(pairs.x), torch.from_numpy(pairs.a[pairs.owner]))
    assert np.mean(expected) == pytest.approx(whole["paired_cosine"], abs=1e-6)


def test_frozen_embeddings_have_no_after_and_centred_ones_have():
    pairs = paired(10, 1)
    assert not any(n.startswith("after") for n in sample_of(bridge_of("none"), pairs).column_names)
    center = bridge_of("center")
    center.fit(*map(torch.from_numpy, (pairs.x, pairs.a, pairs.owner)))
    assert "after_cosine" in sample_of(center, pairs).column_names


def test_many_pairs_are_thinned_the_same_way_every_time():
    pairs = paired(SAMPLE, 2)
    table = sample_of(bridge_of("none"), pairs)
    assert len(table) == SAMPLE
    assert table.equals(sample_of(bridge_of("diffgap"), pairs).select(table.column_names))
    cosines = (pairs.x * pairs.a[pairs.owner]).sum(1)
    places = [int(np.abs(cosines - c).argmin()) for c in table["before_cosine"].to_numpy()]
    assert places == sorted(set(places))  # in the store's order, each once


def test_a_single_pair_has_a_plane_too():
    table = sample_of(bridge_of("diffgap"), paired(1, 1))
    assert np.isfinite(points(table, "after")).all()
