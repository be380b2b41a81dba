"""A local Ray's end."""

import subprocess
import sys

import psutil
import ray

from diffgap.cluster.connect import cluster


def rays():
    """Ray's own processes below this one."""
    names = {"raylet", "gcs_server"}
    return {p.pid for p in psutil.Process().children(recursive=True) if p.name() in names}


def test_a_ray_ends_with_its_block_and_takes_nobody_along(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with cluster(None) as joined:
        assert not joined
        first = rays()
        assert len(first) == 2
    assert not rays()
    waits = [sys.executable, "-c", "input()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE) as bystander:
        with cluster(None):
            second = rays()
            assert len(second) == 2
            assert not first & second
            assert ray.is_initialized()
        assert bystander.poll() is None
        bystander.communicate(b"\n")
    assert bystander.returncode == 0
