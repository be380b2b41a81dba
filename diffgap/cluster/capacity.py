"""Capacity of a cluster: how many trials it has room for, while nodes join and leave it.

A local Ray has what it has. A cluster that was joined may grow: nodes join by themselves, or an
autoscaler starts them; others die, or are busy with somebody else's work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from diffgap.cluster.placement import Placement, place_trials, worker_bundle
from diffgap.compat.ray_cluster import local_gpus, pending_groups
from diffgap.errors import UserError
from diffgap.io.cpus import usable_cpus
from diffgap.spec import Resources

POLL_S = 2.0  # interval at which the cluster's nodes are counted

PATIENCE_MIN = 1.0  # minutes to wait for room for one trial: nodes may be joining the cluster
FIRST_NOTICE_S, NOTICE_S = 10.0, 60.0  # after which people hear of waiting trials, and how often


def local_problem(resources: Resources) -> str | None:
    """Why not even one trial fits a local Ray, which is not started; None where one does."""
    node = {"CPU": float(usable_cpus())}
    if resources.workers * resources.gpus_per_worker > 1:  # one fits wherever there is a GPU
        node["GPU"] = float(local_gpus())
    try:
        place_trials(resources, [node])
    except UserError as error:
        return str(error)
    return None


@dataclass
class ClusterCapacity:
    """The share of the cluster that one sweep may use."""

    resources: Resources  # of one trial
    limit: int | None  # the most trials at once, however many fit
    joined: bool  # whether the cluster existed before this command, and may change under it
    notify: Callable[[str], None]  # prints a line for people
    patience: float | None = None  # minutes to wait for a cluster that is to grow, and for its GPUs
    placement: Placement = field(init=False)  # resources of each trial; set by `wait_for_room`
    _trials: int = field(default=0, init=False)
    _counted_at: float = field(default=0.0, init=False)
    _requested: int = field(default=0, init=False)  # trials that an autoscaler was asked to fit
    _pending_since: dict[str, float] = field(default_factory=dict, init=False)  # by placement group
    _notified_at: float = field(default=0.0, init=False)
    _gpus_expected: bool = field(default=False, init=False)

    def wait_for_room(self) -> None:
        """Waits until there is room for one trial; UserError once patience is at its end."""
        start = time.monotonic()
        while True:
            waited = time.monotonic() - start
            self._gpus_expected = waited < 60 * (self.patience or 0)
            try:
                self.placement = self._place()
            except UserError:
                if not self.joined or waited > 60 * (self.patience or PATIENCE_MIN):
                    raise
                self._wait(waited)
            else:
                # From now on trials that use GPUs keep doing so, though a node with them be lost.
                self._gpus_expected = self.placement.gpus > 0
                self._trials = self.placement.concurrent
                return

    def trials(self) -> int:
        """How many trials may be in flight at once, now."""
        if self.joined and time.monotonic() - self._counted_at > POLL_S:
            self._counted_at = time.monotonic()
            try:
                self._trials = self._place().concurrent
            except UserError:  # nodes are lost; running trials wait for new ones
                self._trials = 0
        return self._trials

    def request(self, trials: int) -> None:
        """Asks an autoscaler, where there is one, for room for so many trials."""
        trials = min(trials, self.limit or trials)
        if trials == self._requested or not self.joined:
            return
        from ray.autoscaler.sdk import request_resources

        self._requested = trials
        request_resources(bundles=[self._bundle()] * self.resources.workers * trials)

    def report_waiting(self, running: int) -> None:
        """Says, once a minute at most, which trials wait for nodes while `running` others train."""
        now = time.monotonic()
        self._pending_since = {g: self._pending_since.get(g, now) for g in pending_groups()}
        late = [since for since in self._pending_since.values() if now - since > FIRST_NOTICE_S]
        idle = not running and self._trials == 0
        if (late or idle) and now - self._notified_at > NOTICE_S:
            self._notified_at = now
            self.notify(self._notice(max(1, len(late)), now - min(late, default=now)))

    def close(self) -> None:
        """Withdraws what was requested of an autoscaler, which would keep its nodes otherwise."""
        self.request(0)

    def _wait(self, waited: float) -> None:
        """Requests room for one trial, says so now and then, and pauses."""
        self.request(1)
        now = time.monotonic()
        if not self._notified_at or now - self._notified_at > NOTICE_S / 2:
            self._notified_at = now
            self.notify(self._notice(1, waited))
        time.sleep(POLL_S)

    def _notice(self, trials: int, waited: float) -> str:
        """Which resources trials wait for, and what the cluster has."""
        import ray

        total, free = ray.cluster_resources(), ray.available_resources()
        bundle = " + ".join(f"{amount:g} {kind}" for kind, amount in self._bundle().items())
        who, each = ("a trial needs", "") if trials == 1 else (f"{trials} trials need", " each")
        return (
            f"Waiting for room: {who} {self.resources.workers} x ({bundle}){each}; the cluster has "
            f"{total.get('CPU', 0):g} CPU ({free.get('CPU', 0):g} free), "
            f"{total.get('GPU', 0):g} GPU ({free.get('GPU', 0):g} free). "
            f"Waited {waited:.0f} s so far; Ctrl-C stops."
        )

    def _place(self) -> Placement:
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return place_trials(self.resources, nodes, self.limit, gpus_expected=self._gpus_expected)

    def _bundle(self) -> dict[str, float]:
        """Resources of one worker."""
        import ray

        has_gpus = self._gpus_expected or ray.cluster_resources().get("GPU")
        gpus = self.resources.gpus_per_worker if has_gpus else 0.0
        return worker_bundle(self.resources.cpus_per_worker, gpus)
