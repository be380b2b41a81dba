"""Ray's private interfaces to its own processes and to placement groups.

`stop_monitor` and `dead_core_processes` can go once `ray.shutdown` no longer waits for a local
autoscaler and Ray reports by itself that its processes died, neither of which 2.60 does; the rest
once Ray frees the placement groups of dead actors (ray#54305).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CORE_PROCESSES = ("raylet", "gcs_server")
"""Processes that no Ray can run without."""


def stop_monitor() -> None:
    """Kills the autoscaler of this process's local Ray.

    It ignores SIGTERM, so that `ray.shutdown` would wait a second for it.
    """
    from ray._private.worker import _global_node

    _global_node.kill_monitor(check_alive=False)


def dead_core_processes() -> list[str]:
    """Which core processes of this process's local Ray have died."""
    from ray._private.worker import _global_node

    return [kind for kind, _ in _global_node.dead_processes() if kind in CORE_PROCESSES]


@dataclass(frozen=True)
class PlacementGroupState:
    """A placement group of this process's job."""

    group_id: bytes
    is_pending: bool
    """Whether the cluster has no room for it yet."""
    is_leaked: bool
    """Whether the actor that created it is dead, and its resources are still reserved."""


def placement_groups() -> Iterator[PlacementGroupState]:
    """The placement groups of this process's job.

    The public `placement_group_table` does not say whether a group's creator is dead.
    """
    import ray
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    job_id = ray.get_runtime_context().get_job_id()
    waiting = (PlacementGroupTableData.PENDING, PlacementGroupTableData.RESCHEDULING)
    for serialized in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(serialized)
        if group.creator_job_id.hex() == job_id:
            yield PlacementGroupState(
                group.placement_group_id,
                is_pending=group.state in waiting,
                is_leaked=_creator_is_dead(group)
                and group.state != PlacementGroupTableData.REMOVED,
            )


def _creator_is_dead(group: Any) -> bool:
    created_by_actor = set(group.creator_actor_id) - {0xFF}  # all 0xFF: by no actor
    return bool(created_by_actor and group.creator_actor_dead)


def remove_group(group_id: bytes) -> None:
    """Frees the resources that a placement group has reserved."""
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(ray.PlacementGroupID(group_id)))
