"""Sample of a split's pairs before and after a bridge, in the plane: enough to draw the gap."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from diffgap.evaluation.evaluate import Clouds
from diffgap.ledger.artifacts import EXPLAINED
from diffgap.store.store import Pairs

SAMPLE = 300
"""Pairs at most: more cannot be told apart in a figure."""


def gap_sample(pairs: Pairs, after: Clouds | None) -> pa.Table:
    """One row a pair, of at most 300 chosen by a fixed seed, in the store's order; `after` has the
    `bridged_clouds` of the frozen pairs.

    Returns:
        before_x_1, before_x_2, before_a_1, before_a_2: coordinates of the frozen x and a on the
            first two principal components of both clouds together.
        before_cosine: of the pair.
        after_...: the same of the bridged clouds, on components of their own; absent where the
            bridge moves nothing.
    """
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(pairs.x))[:SAMPLE])
    clouds = {"before": (pairs.x[chosen], pairs.a[pairs.owner[chosen]])}
    if after is not None:
        clouds["after"] = after[0].numpy()[chosen], after[1].numpy()[chosen]
    columns: dict[str, np.ndarray] = {}
    explained = {}
    for when, (x, a) in clouds.items():
        x_ND, a_ND = x.astype(np.float64), a.astype(np.float64)
        points, explained[when] = principal(np.concatenate([x_ND, a_ND]))
        for side, cloud in zip("xa", np.split(points, 2), strict=True):
            columns[f"{when}_{side}_1"], columns[f"{when}_{side}_2"] = cloud.T
        columns[f"{when}_cosine"] = (x_ND * a_ND).sum(1)  # of unit vectors
    return pa.table(columns).replace_schema_metadata({EXPLAINED: json.dumps(explained)})


def principal(points: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The first two principal components of (N, D) points, D at least 2.

    Returns:
        (N, 2) coordinates, and the share of the variance that each component holds.
    """
    centred = points - points.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    # An SVD leaves signs open: the largest loading is positive, so that figures do not flip.
    axes = axes[:2] * np.sign(axes[[0, 1], np.abs(axes[:2]).argmax(1)])[:, None]
    total = max(float((singular**2).sum()), 1e-300)  # 0 where all points are one
    return centred @ axes.T, [float(value**2) / total for value in singular[:2]]
