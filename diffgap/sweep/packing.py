"""Packing of trials: which of them share one Ray Train job (`resources.pack`)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable

from diffgap.cluster.capacity import ClusterCapacity
from diffgap.spec import Resources
from diffgap.sweep.plan import PlannedTrial
from diffgap.training.shape import shape_of

MAX_PACK = 64
"""Trials of one pack, unless `resources.pack` is a number."""


class Packer:
    """Hands out packs, the costly trials first; the trials of a pack share their shape.

    On CPUs packs become smaller towards the end, so that none is left to run alone for long
    (guided self-scheduling, Polychronopoulos & Kuck 1987). On GPUs, which train a pack at once,
    trials are spread evenly from the start.
    """

    def __init__(
        self, trials: Iterable[PlannedTrial], resources: Resources, capacity: ClusterCapacity
    ) -> None:
        self.resources, self.capacity = resources, capacity
        self._queues: dict[Hashable, list[PlannedTrial]] = {}
        self.add(trials)
        self._even_size = math.ceil(self.remaining / max(1, capacity.trials()))

    def add(self, trials: Iterable[PlannedTrial]) -> None:
        for planned in trials:
            self._queues.setdefault(shape_of(planned.trial), []).append(planned)

    @property
    def remaining(self) -> int:
        """Trials that no pack has."""
        return sum(map(len, self._queues.values()))

    @property
    def packs(self) -> int:
        """Packs that the remaining trials would make at the present size."""
        size = self.size
        return sum(math.ceil(len(queue) / size) for queue in self._queues.values())

    def next(self) -> list[PlannedTrial]:
        """The next pack; empty at the end."""
        if not self._queues:
            return []
        shape, queue = next(iter(self._queues.items()))
        pack = queue[: self.size]
        del queue[: len(pack)]
        if not queue:
            del self._queues[shape]
        return pack

    @property
    def size(self) -> int:
        """How many trials the next pack has at the most."""
        pack, capacity = self.resources.pack, self.capacity
        if pack == "off":
            return 1
        if isinstance(pack, int):
            return pack
        if capacity.patience:
            return 1  # packs would keep trials from the nodes that are to join
        if capacity.placement.gpus and self.resources.pack_mode != "in_turn":
            return min(MAX_PACK, max(1, self._even_size))
        slots = max(1, capacity.trials()) + capacity.joined  # one for a node that may join
        # About half of an even share, so that later packs even out; all of it on a single slot.
        return min(MAX_PACK, max(1, math.ceil(self.remaining / (2 * slots - 1))))
