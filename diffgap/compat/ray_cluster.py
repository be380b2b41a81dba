"""Ray's private interfaces to its own processes and to placement groups.

`stop_monitor` and `dead_core_processes` can go once `ray.shutdown` no longer waits for a local
autoscaler and Ray reports by itself that its processes died, neither of which 2.60 does;
`loopback_only` once `ray.init` takes an address to listen on, as `ray start` does; `local_gpus`
once Ray says in public what it would find; the rest once it frees the placement groups of dead
actors (ray#54305).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CORE_PROCESSES = ("raylet", "gcs_server")  # processes that no Ray can run without


@contextmanager
def loopback_only() -> Iterator[None]:
    """Within the block a Ray that starts listens on loopback alone, and so do its workers' groups.

    Ray has a switch for that, for macOS. It is an environment variable, which the processes that it
    starts read; in this one it is read by the import of Ray, which may have been before.
    """
    from ray._private import ray_constants

    interface = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    variables = {
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
    }
    before = {name: os.environ.get(name) for name in variables}
    switch = ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(variables)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = switch
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def stop_monitor() -> None:
    """Kills this process's local autoscaler, for whose end `ray.shutdown` waits a second."""
    from ray._private.worker import _global_node

    _global_node.kill_monitor(check_alive=False)


def dead_core_processes() -> list[str]:
    """Which core processes of this process's local Ray have died."""
    from ray._private.worker import _global_node

    return [kind for kind, _ in _global_node.dead_processes() if kind in CORE_PROCESSES]


def local_gpus() -> int:
    """How many GPUs a local Ray would have, without starting it."""
    from ray._private.accelerators import get_accelerator_manager_for_resource

    manager = get_accelerator_manager_for_resource("GPU")
    if manager is None:
        return 0
    visible = manager.get_current_process_visible_accelerator_ids()
    gpus = manager.get_current_node_num_accelerators()
    return gpus if visible is None else min(gpus, len(visible))


def remove_leaked_groups() -> int:
    """Frees what trials reserve whose driver was killed; returns how many placement groups.

    Ray keeps the group of a dead actor for as long as its job runs, so that the next trial would
    wait for it forever. The public `placement_group_table` does not say who is dead.
    """
    import ray
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    count = 0
    for group in _placement_groups():
        created_by_actor = set(group.creator_actor_id) - {0xFF}  # all 0xFF: by no actor
        is_removed = group.state == PlacementGroupTableData.REMOVED
        if created_by_actor and group.creator_actor_dead and not is_removed:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
            count += 1
    return count


def pending_groups() -> list[str]:
    """The ids of this job's placement groups for which the cluster has no room yet."""
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    pending = (PlacementGroupTableData.PENDING, PlacementGroupTableData.RESCHEDULING)
    return [g.placement_group_id.hex() for g in _placement_groups() if g.state in pending]


def _placement_groups() -> Iterator[Any]:
    """Ray's records of the placement groups of this process's job."""
    import ray
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    job_id = ray.get_runtime_context().get_job_id()
    for serialized in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(serialized)
        if group.creator_job_id.hex() == job_id:
            yield group
