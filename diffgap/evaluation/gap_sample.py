"""A few pairs of embeddings before and after a bridge, in the plane: enough to draw the gap."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from diffgap.evaluation.evaluate import Clouds
from diffgap.ledger.artifacts import EXPLAINED
from diffgap.store.store import Pairs

SAMPLE = 300
"""Pairs at most: more cannot be told apart in a drawing."""


def gap_sample(pairs: Pairs, after: Clouds | None) -> pa.Table:
    """One row a pair, of at most 300 chosen by a fixed seed, in the store's order.

    Args:
        pairs: as the encoders put them.
        after: what `bridged` makes of them.

    Returns:
        before_x_1, before_x_2, before_a_1, before_a_2: coordinates of x and a on the first two
            principal components of both clouds together, as the encoders put them.
        before_cosine: of the pair.
        after_...: the same of what the bridge makes of them, on components of their own; absent
            where it moves nothing.
    """
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(pairs.x))[:SAMPLE])
    clouds = {"before": (pairs.x[chosen], pairs.a[pairs.owner[chosen]])}
    if after is not None:
        x, a = (cloud.numpy()[chosen] for cloud in after)
        clouds["after"] = x, a
    columns: dict[str, np.ndarray] = {}
    explained = {}
    for when, found in clouds.items():
        x_ND, a_ND = (cloud.astype(np.float64) for cloud in found)
        points, explained[when] = principal(np.concatenate([x_ND, a_ND]))
        for side, part in zip("xa", np.split(points, 2), strict=True):
            columns |= {f"{when}_{side}_{i}": part[:, i - 1] for i in (1, 2)}
        columns[f"{when}_cosine"] = (x_ND * a_ND).sum(1)
    return pa.table(columns).replace_schema_metadata({EXPLAINED: json.dumps(explained)})


def principal(points: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The first two principal components of (N, D) points, D at least 2.

    Returns:
        (N, 2) coordinates, each component's sign such that its largest loading is positive; and
        the shares of the variance that they hold.
    """
    centred = points - points.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[[0, 1], np.abs(axes[:2]).argmax(1)])[:, None]
    total = max(float((singular**2).sum()), 1e-300)  # all points may be one
    return centred @ axes.T, [float(value**2) / total for value in singular[:2]]
