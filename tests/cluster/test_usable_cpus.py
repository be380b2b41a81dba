"""A local Ray has the CPUs that its process may use, and not those of the machine."""

import os
import subprocess
import sys

import pytest

PROGRAM = """\
import ray
from diffgap.cluster.connect import cluster
with cluster(None):
    print(ray.cluster_resources()["CPU"])
"""


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is only one CPU to use")
def test_a_process_that_may_use_one_cpu_has_a_ray_of_one(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    one = str(min(os.sched_getaffinity(0)))
    output = subprocess.run(
        ["taskset", "-c", one, sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True,
        check=True,
    ).stdout  # fmt: skip
    assert output == "1.0\n"
