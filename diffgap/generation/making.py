"""Runs a generator over any number of embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from diffgap.generation import Generator, Sampling


def make(
    generator: Generator,
    conditions: np.ndarray,
    seeds: Sequence[int],
    sampling: Sampling,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """(N, samples) clips, made in batches.

    Args:
        generator: what makes them.
        conditions: (N, D) unit vectors, or (N, T, D); an embedding of a clip is repeated where the
            generator takes T in a row.
        seeds: N of them.
        sampling: how.
        progress: called with clips done and in all.
    """
    if generator.tokens and conditions.ndim == 2:
        conditions = np.repeat(conditions[:, None], generator.tokens, axis=1)
    parts = []
    for start in range(0, len(conditions), generator.batch):
        rows = slice(start, start + generator.batch)
        parts.append(generator.generate(conditions[rows], seeds[rows], sampling))
        if progress:
            progress(min(start + generator.batch, len(conditions)), len(conditions))
    return np.concatenate(parts)
