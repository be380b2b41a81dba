"""How trials are laid on the cluster that Ray is connected to, and what they leave behind there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
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
    """Trials in flight at once, with all their workers."""

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
        return f"{self.concurrent} trial{'s' if self.concurrent > 1 else ''} at once, each {each}"


def lay_out(
    resources: Resources,
    nodes: Iterable[Mapping[str, float]],
    limit: int | None = None,
    gpus_to_come: bool = False,
) -> Placement:
    """Lays trials out on a cluster: a worker lies on one node, a trial on any number.

    Args:
        resources: what a trial asks for.
        nodes: what each node has.
        limit: the most trials at once, however many fit.
        gpus_to_come: nodes with GPUs can be started, though there may be none now.

    Raises:
        UserError: where not even one trial fits.
    """
    nodes = list(nodes)
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    wanted_gpus = resources.gpus_per_worker if gpus or gpus_to_come else 0.0
    workers = sum(_workers_on(node, resources.cpus_per_worker, wanted_gpus) for node in nodes)
    fits = workers // resources.workers
    if fits == 0:
        raise UserError(
            f"resources.workers: {resources.workers} x {resources.cpus_per_worker:g} CPU and "
            f"{wanted_gpus:g} GPU do not fit the cluster's {len(nodes)} nodes with {cpus:g} CPUs "
            f"and {gpus:g} GPUs; lower workers or cpus_per_worker, or add nodes"
        )
    concurrent = min(fits, limit or fits)
    return Placement(resources.workers, resources.cpus_per_worker, wanted_gpus, concurrent)


def _workers_on(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    fits = _fits(node.get("CPU", 0.0), cpus)
    return min(fits, _fits(node.get("GPU", 0.0), gpus)) if gpus else fits


def _fits(held: float, wanted: float) -> int:
    return math.floor(held / wanted + 1e-9)


def free_forsaken_groups() -> int:
    """Gives back what trials hold whose driver was killed; returns how many placement groups.

    Ray keeps the group of an actor that died for as long as the job lives, and the next trial
    would wait for it for ever (ray#54305). What tells them apart is in the group's record alone.
    """
    import ray
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    freed = 0
    for group in _own_groups():
        by_actor = any(byte != 0xFF for byte in group.creator_actor_id)
        gone = group.state == PlacementGroupTableData.REMOVED
        if by_actor and group.creator_actor_dead and not gone:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
            freed += 1
    return freed


def pending_groups() -> list[str]:
    """The ids of this sweep's placement groups that have no place in the cluster yet."""
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    waiting = (PlacementGroupTableData.PENDING, PlacementGroupTableData.RESCHEDULING)
    return [group.placement_group_id.hex() for group in _own_groups() if group.state in waiting]


def _own_groups() -> Iterator[Any]:
    """The records of the placement groups of this process's job."""
    import ray
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    own_job = ray.get_runtime_context().get_job_id()
    for packed in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(packed)
        if group.creator_job_id.hex() == own_job:
            yield group
