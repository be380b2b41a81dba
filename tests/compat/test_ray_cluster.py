"""Ray's private interfaces, as they are in the installed version."""

import time

import pytest

from diffgap.cluster.connect import cluster
from diffgap.compat.ray_cluster import remove_leaked_groups


@pytest.mark.slow
def test_what_a_killed_actor_holds_is_given_back():
    """Ray itself would keep its placement group for as long as the sweep lives."""
    import ray
    from ray.util.placement_group import placement_group, placement_group_table

    class Holder:
        def hold(self):
            group = placement_group([{"CPU": 1}])
            ray.get(group.ready())
            return group.id.hex()

    with cluster(None):
        killed, alive = (ray.remote(num_cpus=0)(Holder).remote() for _ in range(2))
        lost, kept = ray.get([killed.hold.remote(), alive.hold.remote()])
        assert remove_leaked_groups() == 0
        ray.kill(killed)
        until = time.monotonic() + 20
        while not remove_leaked_groups():
            assert time.monotonic() < until
            time.sleep(0.2)
        table = placement_group_table()
        assert (table[lost]["state"], table[kept]["state"]) == ("REMOVED", "CREATED")
