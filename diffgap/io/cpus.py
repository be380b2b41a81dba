"""CPUs that this process may use, which are often fewer than its machine has.

Slurm's ``--cpus-per-task``, ``taskset`` and ``docker --cpuset-cpus`` narrow the affinity. Limits in
Kubernetes and ``docker --cpus`` set a quota of a control group: so much CPU time in each period.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROCESS = Path("/proc/self")


def usable_cpus() -> int:
    """How many CPUs this process may use, at least 1; the fraction of a quota is dropped."""
    knows_affinity = hasattr(os, "sched_getaffinity")  # macOS does not
    cpus = len(os.sched_getaffinity(0)) if knows_affinity else os.cpu_count() or 1
    return max(1, int(min([cpus, *cpu_quotas()])))


def limit_threads() -> None:
    """Lets torch use no more threads here than this process may use CPUs.

    It minds the affinity by itself, and no quota: threads beyond that only wait for each other.
    """
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), usable_cpus()))


def cpu_quotas(process: Path = PROCESS) -> Iterator[float]:
    """The quotas, in CPUs, of a process's control groups and the groups that these are in."""
    try:
        mounts = (process / "mountinfo").read_text().splitlines()
        groups = (process / "cgroup").read_text().splitlines()
    except OSError:  # not Linux, or a sandbox that hides it
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in mounts:
            if root := _directory_of(path, mount, "cgroup" if controllers else "cgroup2"):
                yield from _quotas_up(*root)


def _directory_of(path: str, mount: str, kind: str) -> tuple[Path, Path] | None:
    """The directory of a control group below a mount of its hierarchy, and the mount's own."""
    fields, _, system = mount.partition(" - ")
    root, point = fields.split()[3:5]
    name, _, options = system.split()[:3]
    if name != kind or (kind == "cgroup" and "cpu" not in options.split(",")):
        return None
    group = PurePosixPath(path)
    # A container may see its group as the mount's root, and its path as the host names it.
    inside = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
    return Path(point) / inside, Path(point)


def _quotas_up(directory: Path, top: Path) -> Iterator[float]:
    """The quotas of a control group, and of those above it as far as they are visible."""
    for group in (directory, *directory.parents):
        try:
            quota = _read_quota(group)
        except (OSError, ValueError):  # the root of a hierarchy has none
            quota = None
        if quota:
            yield quota
        if group == top:
            return


def _read_quota(group: Path) -> float | None:
    """A control group's quota in CPUs, by version 2 or 1 of its files; None where it has none."""
    if (group / "cpu.max").is_file():
        quota, period = (group / "cpu.max").read_text().split()
    else:
        quota, period = (
            (group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
        )
    return None if quota in ("max", "-1") else int(quota) / int(period)
