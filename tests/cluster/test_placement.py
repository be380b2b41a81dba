"""Trials are laid on nodes, not on sums of what nodes have."""

import pytest

from diffgap.cluster.placement import place_trials
from diffgap.errors import UserError
from diffgap.spec import Resources

TWO_GPUS = {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("wanted", "nodes", "concurrent"),
    [
        ({}, [{"CPU": 2.0}], 2),
        ({"workers": 2}, [{"CPU": 3.0}], 1),
        ({"workers": 2}, [TWO_GPUS] * 3, 3),
        ({"workers": 3}, [TWO_GPUS] * 3, 2),
        ({"gpus_per_worker": 0.5}, [TWO_GPUS], 4),
        ({"cpus_per_worker": 3.0}, [{"CPU": 2.0}, {"CPU": 4.0}], 1),
        ({"cpus_per_worker": 3.0}, [{"CPU": 5.0}] * 2, 2),
        ({}, [{"CPU": 64.0}, {"CPU": 1.0, "GPU": 4.0}], 1),
    ],
)
def test_as_many_as_fit_with_all_their_workers(wanted, nodes, concurrent):
    assert place_trials(Resources(**wanted), nodes).concurrent == concurrent


def test_a_limit_and_too_small_a_cluster():
    assert place_trials(Resources(), [{"CPU": 8.0}], limit=3).concurrent == 3
    with pytest.raises(UserError, match="do not fit the cluster's 2 nodes with 4 CPUs"):
        place_trials(Resources(cpus_per_worker=3.0), [{"CPU": 2.0}] * 2)
