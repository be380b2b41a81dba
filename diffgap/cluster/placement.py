"""Placement of trials on the nodes of a cluster."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from diffgap.errors import UserError
from diffgap.spec import Resources


@dataclass(frozen=True)
class Placement:
    """Resources of each trial on a cluster, and how many run at once."""

    workers: int
    cpus: float  # CPUs of one worker
    gpus: float  # GPUs of one worker; 0 where the cluster has none
    concurrent: int  # trials in flight at once, with all their workers

    @property
    def scaling(self) -> dict[str, Any]:
        """Arguments of Ray Train's ScalingConfig."""
        return {
            "num_workers": self.workers,
            "use_gpu": self.gpus > 0,
            "resources_per_worker": worker_bundle(self.cpus, self.gpus),
        }

    def __str__(self) -> str:
        device = f"{self.gpus:g} GPU" if self.gpus else f"{self.cpus:g} CPU"
        each = f"{self.workers} worker{'s' if self.workers > 1 else ''} x {device}"
        return f"{self.concurrent} trial{'s' if self.concurrent > 1 else ''} at once, each {each}"


def worker_bundle(cpus: float, gpus: float) -> dict[str, float]:
    """What one worker reserves, by Ray's names."""
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def place_trials(
    resources: Resources,
    nodes: Iterable[Mapping[str, float]],
    limit: int | None = None,
    gpus_expected: bool = False,
) -> Placement:
    """Places trials on a cluster: a worker fits on one node, a trial may span several.

    Without GPUs on its nodes, a cluster with `gpus_expected` can start some that have them.

    Raises:
        UserError: where not even one trial fits.
    """
    nodes = list(nodes)
    total: Counter[str] = Counter()
    for node in nodes:
        total.update(node)
    gpus_per_worker = resources.gpus_per_worker if total["GPU"] or gpus_expected else 0.0
    bundle = worker_bundle(resources.cpus_per_worker, gpus_per_worker)
    # Counted node by node: half a worker on each of two nodes is no worker.
    workers = sum(_workers_on(node, bundle) for node in nodes)
    trials = workers // resources.workers
    if trials == 0:
        raise UserError(
            f"resources.workers: {resources.workers} x {resources.cpus_per_worker:g} CPU and "
            f"{gpus_per_worker:g} GPU do not fit the cluster's {len(nodes)} nodes with "
            f"{total['CPU']:g} CPUs and {total['GPU']:g} GPUs; lower workers or "
            "cpus_per_worker, or add nodes"
        )
    return Placement(
        resources.workers, resources.cpus_per_worker, gpus_per_worker, min(trials, limit or trials)
    )


def _workers_on(node: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    # Ten workers of 0.1 GPU fit on one, whatever binary fractions say.
    ratios = [node.get(kind, 0.0) / amount + 1e-9 for kind, amount in bundle.items()]
    return math.floor(min(ratios))
