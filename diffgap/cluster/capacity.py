"""How many trials a cluster has room for, as it grows and shrinks under a sweep.

A local Ray is as it is. A cluster that was joined may grow: nodes come by, an autoscaler starts
some, others die or are full of somebody else's work. Whoever waits is told what for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from diffgap.cluster.placement import Placement, lay_out, pending_groups
from diffgap.errors import UserError
from diffgap.spec import Resources

LOOK_S = 2.0
"""Between two looks at the cluster."""

PATIENCE_MIN = 1.0
"""How long a cluster is waited for that is too small for one trial: nodes may be joining it."""

FIRST_SAY_S, SAY_S = 10.0, 60.0
"""After which a wait is told, and told again."""


@dataclass
class ClusterCapacity:
    """What one sweep may use of the cluster that Ray is connected to.

    Args:
        resources: what a trial asks for.
        limit: the most trials at once, however many fit.
        joined: whether the cluster is somebody's, and not this command's own.
        say: tells people what is waited for.
        patience: for a cluster that is to grow: minutes to wait for it, and for GPUs if trials ask
            for them; None for one that has what it has.
    """

    resources: Resources
    limit: int | None
    joined: bool
    say: Callable[[str], None]
    patience: float | None = None
    placement: Placement = field(init=False)
    """How trials lie on the cluster; from `wait_for_room` on."""
    _looked: float = field(default=0.0, init=False)
    _asked: int = field(default=0, init=False)
    _pending: dict[str, float] = field(default_factory=dict, init=False)
    _said: float = field(default=0.0, init=False)
    _trials: int = field(default=0, init=False)
    _gpus_to_come: bool = field(default=False, init=False)

    def wait_for_room(self) -> None:
        """Waits until there is room for one trial.

        Raises:
            UserError: where not one trial fits, nor will.
        """
        began = time.monotonic()
        while True:
            waited = time.monotonic() - began
            self._gpus_to_come = waited < 60 * (self.patience or 0)
            try:
                self.placement = self._placement()
            except UserError:
                if not self.joined or waited > 60 * (self.patience or PATIENCE_MIN):
                    raise
                self._wait(waited)
            else:
                self._gpus_to_come = self.placement.gpus > 0  # these do not turn into CPUs
                self._trials = self.placement.concurrent
                return

    def trials(self) -> int:
        """How many trials may be in flight at once, now."""
        if self.joined and time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            try:
                self._trials = self._placement().concurrent
            except UserError:  # nodes are gone; running trials wait for others
                self._trials = 0
        return self._trials

    def request(self, trials: int) -> None:
        """Asks an autoscaler, where there is one, for room for so many trials."""
        trials = min(trials, self.limit or trials)
        if trials == self._asked or not self.joined:
            return
        from ray.autoscaler.sdk import request_resources

        self._asked = trials
        request_resources(bundles=[self._bundle()] * self.resources.workers * trials)

    def report_waiting(self, running: int) -> None:
        """Says what trials wait for whose workers have no place yet."""
        now = time.monotonic()
        groups = pending_groups()
        self._pending = {group: self._pending.get(group, now) for group in groups}
        late = [since for since in self._pending.values() if now - since > FIRST_SAY_S]
        idle = not running and self._trials == 0
        if (late or idle) and now - self._said > SAY_S:
            self._said = now
            waited = now - min(late, default=now)
            self.say(self._line(max(1, len(late)), waited))

    def _wait(self, waited: float) -> None:
        """Asks for room for one trial, says so now and then, and waits a little."""
        self.request(1)
        now = time.monotonic()
        if not self._said or now - self._said > SAY_S / 2:
            self._said = now
            self.say(self._line(1, waited))
        time.sleep(LOOK_S)

    def _line(self, trials: int, waited: float) -> str:
        import ray

        held, free = ray.cluster_resources(), ray.available_resources()
        asked = " + ".join(f"{v:g} {k}" for k, v in self._bundle().items())
        kinds = ("CPU", "GPU")
        has = ", ".join(f"{held.get(k, 0):g} {k} ({free.get(k, 0):g} free)" for k in kinds)
        which = "a trial" if trials == 1 else f"{trials} trials"
        each = "" if trials == 1 else " each"
        return (
            f"Waiting for room: {which} asked for {self.resources.workers} x ({asked}){each}; "
            f"the cluster has {has}. Waited {waited:.0f} s so far; Ctrl-C ends it."
        )

    def _placement(self) -> Placement:
        import ray

        nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        return lay_out(self.resources, nodes, self.limit, gpus_to_come=self._gpus_to_come)

    def _bundle(self) -> dict[str, float]:
        """What one worker takes."""
        import ray

        gpus = self._gpus_to_come or ray.cluster_resources().get("GPU")
        wanted = self.resources.gpus_per_worker if gpus else 0.0
        return {"CPU": self.resources.cpus_per_worker} | ({"GPU": wanted} if wanted else {})

    def close(self) -> None:
        """Takes back what was asked of an autoscaler."""
        if self._asked:
            from ray.autoscaler.sdk import request_resources

            request_resources(bundles=[])
