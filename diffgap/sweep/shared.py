"""Trials of a sweep that other sweeps in the same output run at this moment.

Each is waited for until nobody runs it any more. Then its ledger says whether the other sweep has
brought it to an end, or has left it: by dying, by being stopped, or for a pause.
"""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from collections.abc import Callable

import psutil

from diffgap.ledger.ledger import Ledger, TrialRecord
from diffgap.ledger.locks import SweepLock, described
from diffgap.sweep.plan import PlannedTrial

GRACE_S = 15.0
"""How long a dead sweep's worker may take to end before its trial is taken over."""


class SharedTrials:
    """The trials that this sweep waits for."""

    def __init__(self, ledger: Ledger, lock: SweepLock, notify: Callable[[str], None]) -> None:
        self._ledger, self._lock, self._notify = ledger, lock, notify
        self._waiting: dict[str, PlannedTrial] = {}
        self._free_since: dict[str, float] = {}
        self._unannounced: list[PlannedTrial] = []
        self._looked_at = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, planned: PlannedTrial) -> None:
        self._waiting[planned.signature] = planned
        self._unannounced.append(planned)

    def clear(self) -> None:
        """Waits for no trial any more."""
        self._waiting.clear()
        self._unannounced.clear()

    def claim_free(self) -> list[PlannedTrial]:
        """Returns the trials that are finished, and claims and returns those that nobody runs."""
        if not self._waiting or time.monotonic() - self._looked_at < self._lock.look_s:
            return []
        self._looked_at = time.monotonic()
        self._announce()
        free = list(filter(self._claim, self._waiting.values()))
        for planned in free:
            del self._waiting[planned.signature]
        return free

    def _claim(self, planned: PlannedTrial) -> bool:
        record = self._ledger.trial(planned.signature)
        if record.finished:  # for good, though the other sweep keeps it until its pack ends
            return True
        if not self._lock.claim(record):
            return False
        # A killed sweep's lock is free at once, and its worker may still be writing a checkpoint.
        since = self._free_since.setdefault(planned.signature, time.monotonic())
        is_abandoned = not record.ended and _worker_lives(record)
        return not is_abandoned or time.monotonic() - since > GRACE_S

    def _announce(self) -> None:
        labels = defaultdict(list)
        for planned in self._unannounced:
            holder = self._lock.holder(self._ledger.trial(planned.signature))
            labels[described(holder)].append(planned.label)
        for sweep, names in labels.items():
            self._notify(f"Waiting for what {sweep} runs: {'; '.join(names)}")
        self._unannounced.clear()


def _worker_lives(record: TrialRecord) -> bool:
    """Whether the process on this machine that reported a trial's progress last still runs."""
    progress = record.progress or {}
    is_here = progress.get("host") == socket.gethostname()
    return is_here and psutil.pid_exists(progress.get("pid", -1))
