"""How many CPUs a process may use: by its affinity, and by the quotas of its control groups."""

import os
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from diffgap.io.cpus import cpu_quotas, usable_cpus

COUNT = "from diffgap.io.cpus import usable_cpus; print(usable_cpus())"


def test_an_affinity_counts_and_not_the_machine():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cpus() <= len(before)


@pytest.fixture
def half_a_cpu():
    """A real control group with half a CPU, where this machine lets us make one."""
    name = f"diffgap-{uuid.uuid4().hex[:8]}"
    places = [(Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us", "50000"),
              (Path("/sys/fs/cgroup"), "cpu.max", "50000 100000")]  # fmt: skip
    for place, file, quota in places:
        with suppress(OSError):
            (place / name).mkdir()
            try:
                (place / name / file).write_text(quota)
                yield place / name / "cgroup.procs"
            finally:
                (place / name).rmdir()
            return
    pytest.skip("no control group can be made here")


def test_a_quota_of_a_real_control_group_counts(half_a_cpu):
    """A process in it, which asks for its quotas; they add up to less than one CPU."""
    program = f"{COUNT}; from diffgap.io.cpus import cpu_quotas; print(min(cpu_quotas()))"
    output = subprocess.run(
        ["bash", "-c", f"echo $$ > {half_a_cpu} && exec {sys.executable} -c '{program}'"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert output.split() == ["1", "0.5"]


def as_seen(place, cgroup, mounts, files):
    """A process's view: what the kernel shows in /proc/self, and the files of its groups."""
    process = place / "proc"
    process.mkdir()
    (process / "cgroup").write_text(cgroup)
    (process / "mountinfo").write_text(
        "".join(
            f"30 24 0:27 {root} {place}{point} rw,nosuid - {system}\n"
            for root, point, system in mounts
        )
    )
    for name, content in files.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return sorted(cpu_quotas(process))


V2 = ("/", "/cg", "cgroup2 cgroup2 rw,nsdelegate")


@pytest.mark.parametrize(
    ("cgroup", "mounts", "files", "quotas"),
    [
        # Kubernetes and systemd: the limit may stand on a group above, and the tightest counts.
        ("0::/pod/box\n", [V2], {"cg/pod/cpu.max": "150000 100000\n",
         "cg/pod/box/cpu.max": "max 100000\n"}, [1.5]),
        ("0::/pod/box\n", [V2], {"cg/pod/cpu.max": "400000 100000\n",
         "cg/pod/box/cpu.max": "200000 100000\n"}, [2.0, 4.0]),
        # Docker with version 1: the group is the mount's root, under the host's path.
        ("4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
         [("/docker/abc", "/cpu", "cgroup cgroup rw,cpu,cpuacct")],
         {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, [3.0]),
        # The same with a mount of the whole hierarchy, without a quota, and another controller's.
        ("4:cpu:/a\n3:cpuset:/b\n", [("/", "/cpu", "cgroup cgroup rw,cpu"),
         ("/", "/cpuset", "cgroup cgroup rw,cpuset")],
         {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, []),
        ("", [], {}, []),
    ],
)  # fmt: skip
def test_quotas_of_both_versions_are_read(tmp_path, cgroup, mounts, files, quotas):
    assert as_seen(tmp_path, cgroup, mounts, files) == quotas


def test_without_proc_there_is_no_quota(tmp_path):
    assert list(cpu_quotas(tmp_path)) == []
