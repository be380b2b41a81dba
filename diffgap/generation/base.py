"""Interface of a generator, and running one over any number of embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How a generator runs its diffusion backwards."""

    steps: int
    guidance: float
    """Scale of classifier-free guidance; 1 is off."""


class Generator(Protocol):
    """A frozen generator; a clip must not depend on what else is in its batch."""

    name: str
    dimension: int
    """Of the embeddings it takes."""
    tokens: int | None
    """How many embeddings in a row make a clip; None where one does."""
    rate: int
    """Sample rate of its clips, in Hz."""
    seconds: float
    """Length of its clips."""
    weights_hash: str
    defaults: Sampling
    batch: int
    """Clips generated at once."""

    def generate(
        self, conditions: np.ndarray, seeds: Sequence[int], sampling: Sampling
    ) -> np.ndarray:
        """Clips, each from its own embedding and its own seed.

        Args:
            conditions: (B, D) float32 unit vectors, or (B, T, D) where there are `tokens`.
            seeds: B of them, each deciding its clip's noise.
            sampling: steps and guidance.

        Returns:
            (B, samples) float32 in [-1, 1] at `rate`.
        """


def generate_in_batches(
    generator: Generator,
    conditions: np.ndarray,
    seeds: Sequence[int],
    sampling: Sampling,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """(N, samples) clips, from (N, D) or (N, T, D) unit vectors and N seeds.

    One embedding of a whole clip is repeated for a generator that takes T in a row. `progress` is
    called with the clips generated so far and in all.
    """
    if generator.tokens and conditions.ndim == 2:
        conditions = np.repeat(conditions[:, None], generator.tokens, axis=1)
    total = len(conditions)
    batches = []
    for start in range(0, total, generator.batch):
        stop = min(start + generator.batch, total)
        batches.append(generator.generate(conditions[start:stop], seeds[start:stop], sampling))
        if progress:
            progress(stop, total)
    return np.concatenate(batches)
