"""A local Ray's end."""

import subprocess
import sys

import psutil
import pytest
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


LISTENERS = """\
import ray  # before diffgap can say anything
from diffgap.cluster.connect import cluster
with cluster(None):
    import psutil
    for process in psutil.Process().children(recursive=True):
        for connection in process.net_connections():
            if connection.status == psutil.CONN_LISTEN:
                print(connection.laddr.ip)
"""


@pytest.mark.slow
def test_a_local_ray_listens_on_loopback_only(monkeypatch):
    """In a process of its own, which has imported Ray before: that is when Ray reads its switch."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    output = subprocess.run(
        [sys.executable, "-c", LISTENERS], capture_output=True, text=True, check=True
    ).stdout
    addresses = {line.removeprefix("::ffff:") for line in output.splitlines()}
    assert addresses == {"127.0.0.1"}


def test_a_ray_that_started_too_slowly_is_started_once_more(monkeypatch):
    """Ray's limit cannot be reached at will: the first start is real, and said to be too slow."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    start, starts = ray.init, []

    def slow_once(**options):
        starts.append(rays())
        start(**options)
        if len(starts) == 1:
            raise RuntimeError("The current node timed out during startup. This could happen ...")

    monkeypatch.setattr(ray, "init", slow_once)
    with cluster(None):
        assert starts == [set(), set()]  # nothing of the first was left when the second began
        assert len(rays()) == 2
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
    assert not rays()
