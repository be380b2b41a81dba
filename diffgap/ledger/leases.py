"""Lease of a running sweep, where nothing can be locked: on an object store.

OUTPUT/running/NAME.json is written anew every few seconds for as long as the sweep lives, with the
trials that it has claimed. A lease that is no longer renewed is free, at once where its process
ran on this machine and is dead.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from diffgap.errors import UserError
from diffgap.io.atomic import write_json
from diffgap.io.paths import RemotePath, StoragePath
from diffgap.ledger.ledger import TrialRecord, read_json
from diffgap.ledger.locks import SweepLock, described, owner

RENEW_S = 5.0  # interval of renewals
LEASE_S = 20.0  # age at which a lease that was not renewed has expired
SETTLE_S = 1.0  # after which, of two processes that took a lease at once, the later one has it


class LeaseLock(SweepLock):
    """One process's lease of a sweep whose output is on an object store; use it as a context."""

    directory: RemotePath
    look_s = RENEW_S  # each look reads every lease

    def __init__(
        self, output: RemotePath, name: str, notify: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(output, name)
        self._notify = notify
        self._token = uuid.uuid4().hex
        self._closing = threading.Event()
        self._writing = threading.Lock()
        self._counts: dict[str, int] = {}
        self._claimed: set[str] = set()

    def __enter__(self) -> LeaseLock:
        if self._is_renewed():
            raise UserError(self._running())
        self._was_interrupted = self.last_heartbeat() is not None
        self._renew()
        # An object store has no "create if absent": write, wait, and see whose lease it is.
        time.sleep(SETTLE_S)
        lease = self.last_heartbeat()
        if not lease or lease.get("token") != self._token:
            raise UserError(f"sweep {self.name!r} was started elsewhere just now{owner(lease)}")
        self._cancel_path.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._cancel_path.unlink(missing_ok=True)
        if self.is_settled:
            self._heartbeat_path.unlink(missing_ok=True)
        else:
            write_json(self._heartbeat_path, {**self._lease(), "over": True})

    @property
    def was_interrupted(self) -> bool:
        return self._was_interrupted

    def claim(self, record: TrialRecord) -> bool:
        """Claims a trial for this sweep, until its release; False where another sweep runs it."""
        signature = record.path.name
        if signature in self._claimed:
            return True
        if self.holder(record):
            return False
        self._claimed.add(signature)
        self._renew()
        # Of two that claim at once, at least the later sees the other. Whoever does steps back.
        if self.holder(record):
            self.release(record)
        return signature in self._claimed

    def has_claimed(self, record: TrialRecord) -> bool:
        return record.path.name in self._claimed

    def release(self, record: TrialRecord) -> None:
        if record.path.name in self._claimed:
            self._claimed.remove(record.path.name)
            with suppress(OSError):  # the next renewal tells it
                self._renew()

    def holder(self, record: TrialRecord) -> dict[str, Any] | None:
        """The sweep, host and pid of the valid lease, but for this one, that has a trial."""
        for path in self.directory.glob("*.json"):
            lease = read_json(path) if path != self._heartbeat_path else None
            if lease and _is_valid(lease) and record.path.name in lease.get("claims", ()):
                return {"sweep": path.stem, **lease}
        return None

    def heartbeat(self, counts: dict[str, int], force: bool = False) -> None:
        """Keeps how many trials are in each state for the next renewal."""
        self._counts = counts

    def is_alive(self) -> bool:
        """Whether a process runs the sweep, as far as the machines' clocks agree."""
        lease = self.last_heartbeat()
        return lease is not None and _is_valid(lease)

    def _is_renewed(self) -> bool:
        """Whether another process renews the lease; waits to see it, for clocks may differ."""
        lease = self.last_heartbeat()
        if lease is None or _is_over(lease):
            return False
        if self._notify:
            self._notify(
                f"Sweep {self.name} was started by process {lease['pid']} on {lease['host']} and "
                f"did not end: checking for {LEASE_S:.0f} s whether it is still running ..."
            )
        deadline = time.monotonic() + LEASE_S
        while time.monotonic() < deadline:
            time.sleep(SETTLE_S)
            current = self.last_heartbeat()
            if current is None or _is_over(current):
                return False
            if current["time"] != lease["time"]:
                return True
        return False

    def _keep_renewing(self) -> None:
        while not self._closing.wait(RENEW_S):
            try:
                self._renew()
            except OSError:  # the store may be away for a while
                continue

    def _renew(self) -> None:
        with self._writing:  # or the thread could write a lease from before a claim after it
            write_json(self._heartbeat_path, self._lease())

    def _lease(self) -> dict[str, Any]:
        return {
            **self._process(),
            "processes": _pid_namespace(),
            "token": self._token,
            "claims": sorted(self._claimed),
            "counts": self._counts,
        }


def sweep_lock(
    output: StoragePath, name: str, notify: Callable[[str], None] | None = None
) -> SweepLock:
    """The lock of a sweep, of the kind that its output allows; `notify` announces a long wait."""
    if isinstance(output, RemotePath):
        return LeaseLock(output, name, notify)
    return SweepLock(output, name)


@contextmanager
def claimed(
    output: StoragePath, name: str, record: TrialRecord, notify: Callable[[str], None]
) -> Iterator[None]:
    """Runs one trial as a sweep of this name; UserError where another process has one of them."""
    with sweep_lock(output, name, notify) as lock:
        lock.is_settled = not lock.was_interrupted  # what a sweep left to do is still to be done
        if not lock.claim(record):
            who = described(lock.holder(record))
            raise UserError(f"trial {record.path.name} is run by {who} at this moment; wait for it")
        yield


def _is_valid(lease: dict[str, Any]) -> bool:
    return not _is_over(lease) and time.time() - lease["time"] < LEASE_S


def _is_over(lease: dict[str, Any]) -> bool:
    """Whether a lease's process is known to be dead."""
    if lease.get("over"):
        return True
    namespace = _pid_namespace()
    is_here = namespace is not None and lease.get("processes") == namespace
    return is_here and not psutil.pid_exists(lease["pid"])  # elsewhere its pid means nothing


def _pid_namespace() -> str | None:
    """Where this process's id is valid: a machine since its boot, or a container; if known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None
