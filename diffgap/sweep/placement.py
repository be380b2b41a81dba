"""How trials are laid on the cluster that Ray is connected to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from diffgap.errors import UserError
from diffgap.spec import Resources


@dataclass(frozen=True)
class Placement:
    """How trials are laid on a cluster."""

    workers: int
    cpus: float
    """CPUs of one worker."""
    gpus: float
    """GPUs of one worker; 0 where the cluster has none."""
    concurrent: int
    """Trials that fit at once, with all their workers."""

    @property
    def scaling(self) -> dict[str, Any]:
        """Arguments of Ray Train's ScalingConfig."""
        per_worker = {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})
        return {
            "num_workers": self.workers,
            "use_gpu": self.gpus > 0,
            "resources_per_worker": per_worker,
        }

    def __str__(self) -> str:
        device = f"{self.gpus:g} GPU" if self.gpus else f"{self.cpus:g} CPU"
        each = f"{self.workers} worker{'s' if self.workers > 1 else ''} x {device}"
        return f"{self.concurrent} trials at once, each {each}"


def place(resources: Resources) -> Placement:
    """Lays trials out on the cluster that Ray is connected to.

    Raises:
        UserError: where not even one trial fits.
    """
    import ray

    held = ray.cluster_resources()
    cpus, gpus = held.get("CPU", 0.0), held.get("GPU", 0.0)
    wanted_gpus = resources.gpus_per_worker if gpus else 0.0
    fits = _fits(cpus, resources.cpus_per_worker * resources.workers)
    if wanted_gpus:
        fits = min(fits, _fits(gpus, wanted_gpus * resources.workers))
    if fits == 0:
        raise UserError(
            f"resources.workers: {resources.workers} x {resources.cpus_per_worker:g} CPU and "
            f"{wanted_gpus:g} GPU do not fit the cluster's {cpus:g} CPUs and {gpus:g} GPUs; "
            "lower workers or cpus_per_worker, or add nodes"
        )
    return Placement(resources.workers, resources.cpus_per_worker, wanted_gpus, fits)


def _fits(held: float, wanted: float) -> int:
    return math.floor(held / wanted + 1e-9)
