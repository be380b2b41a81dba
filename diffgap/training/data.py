"""Training pairs on the device, and the batch of every step.

A step's batch and randomness follow from (seed, step) alone: a resumed trial needs no saved
generator, and every data-parallel worker draws the same batch.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from diffgap.store.store import Pairs


class PairTable:
    """The training split on the device: N clips with M texts or videos, P pairs a step."""

    def __init__(self, pairs: Pairs, batch_size: int, seed: int, device: torch.device) -> None:
        self.x = torch.from_numpy(pairs.x).to(device)
        self.a = torch.from_numpy(pairs.a).to(device)
        self.owner = torch.from_numpy(pairs.owner).to(device)
        self.batch_size, self.seed = batch_size, seed
        self.generator = torch.Generator(device)
        self._orders: dict[int, Tensor] = {}

    def of_seed(self, seed: int) -> Self:
        """A table for another trial's seed, which shares the embeddings."""
        table = copy.copy(self)
        table.seed, table.generator, table._orders = seed, torch.Generator(self.x.device), {}
        return table

    def generator_at(self, step: int) -> torch.Generator:
        """The generator of a step's noise, the same however the step is reached."""
        self.generator.manual_seed(_mix(self.seed, 2 * step))  # odd streams are the orders'
        return self.generator

    def rows(self, step: int) -> Tensor:
        """The (P,) rows of x of a step: shuffled passes over the data, one after another."""
        count = len(self.x)
        first, last = step * self.batch_size, (step + 1) * self.batch_size - 1
        # A batch may span several passes: no row is dropped, and a batch may exceed the data.
        passes = [self._order(number) for number in range(first // count, last // count + 1)]
        start = first % count
        return torch.cat(passes)[start : start + self.batch_size]

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """x (P, D), a (P, D) and clip (P,) of a step."""
        rows = self.rows(step)
        clip = self.owner[rows]
        return self.x[rows], self.a[clip], clip

    def _order(self, number: int) -> Tensor:
        """The shuffled rows of a pass."""
        if number not in self._orders:
            self._orders.pop(number - 2, None)  # steps ascend: only the last pass is still needed
            # On the CPU: a GPU's generator would shuffle in another order.
            generator = torch.Generator().manual_seed(_mix(self.seed, 2 * number + 1))
            order = torch.randperm(len(self.x), generator=generator)
            self._orders[number] = order.to(self.x.device)
        return self._orders[number]


def _mix(seed: int, stream: int) -> int:
    """A 63-bit generator seed from a trial's seed and a stream number.

    SplitMix64's mixing (Steele et al. 2014, figure 17), so that seeds that differ by 1 have
    unrelated streams.
    """
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + stream + 1) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1
