"""Deals trials out into packs: those that share one Ray Train job (`resources.pack`)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable

from diffgap.cluster.capacity import ClusterCapacity
from diffgap.spec import Resources
from diffgap.sweep.plan import PlannedTrial
from diffgap.training.shape import shape_of

MOST = 64
"""Trials of one pack, unless a number is asked for."""


class Packer:
    """Hands out packs, the costly trials first; the trials of a pack share their shape.

    On CPUs packs become smaller towards the end, so that none is left to run alone for long
    (guided self-scheduling, Polychronopoulos & Kuck 1987). On GPUs, which train a pack at once,
    trials are spread evenly from the start. A cluster that is to grow gets them one by one.

    Args:
        trials: in the order in which they are to run.
        resources: what a trial asks for, and how large packs are.
        room: how many packs run at once.
    """

    def __init__(
        self, trials: Iterable[PlannedTrial], resources: Resources, capacity: ClusterCapacity
    ) -> None:
        self.resources, self.capacity = resources, capacity
        self._queues: dict[Hashable, list[PlannedTrial]] = {}
        for planned in trials:
            self._queues.setdefault(shape_of(planned.trial), []).append(planned)
        self._even = math.ceil(self.left / max(1, capacity.trials()))

    @property
    def left(self) -> int:
        """Trials that no pack has."""
        return sum(map(len, self._queues.values()))

    @property
    def packs(self) -> int:
        """Packs that they would make as things are."""
        size = self.size
        return sum(math.ceil(len(queue) / size) for queue in self._queues.values())

    def next(self) -> list[PlannedTrial]:
        """The next pack; empty where all trials are dealt out."""
        if not self._queues:
            return []
        shape, queue = next(iter(self._queues.items()))
        size = self.size
        pack, rest = queue[:size], queue[size:]
        if rest:
            self._queues[shape] = rest
        else:
            del self._queues[shape]
        return pack

    @property
    def size(self) -> int:
        """How many trials the next pack has at the most."""
        asked = self.resources.pack
        if asked == "off":
            return 1
        if isinstance(asked, int):
            return asked
        if self.capacity.patience:
            return 1
        if self.capacity.placement.gpus and self.resources.pack_mode != "in_turn":
            return min(MOST, max(1, self._even))
        slots = max(1, self.capacity.trials()) + self.capacity.joined  # a node may come by
        return min(MOST, max(1, math.ceil(self.left / (2 * slots - 1))))
