"""Lock of a running sweep, and its heartbeat for whoever watches it.

OUTPUT/running/NAME.lock      locked by the sweep's process for as long as it lives
OUTPUT/running/NAME.json      who runs it and how it goes; left behind by a process that was killed
OUTPUT/running/NAME.cancel    a request to stop it
OUTPUT/trials/SIGNATURE/.lock locked by the sweep that runs this trial

An object store knows no locks; there the heartbeat is a lease: see `diffgap.ledger.leases`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from diffgap.errors import UserError
from diffgap.io.atomic import write_json
from diffgap.io.paths import StoragePath
from diffgap.ledger.ledger import TrialRecord, read_json

HEARTBEAT_S = 2.0

ACQUIRE_S = 0.2  # longer than anybody holds a lock only to see whether it is free


class SweepLock:
    """One process's lock on a sweep, a context; UserError where another process has it."""

    def __init__(self, output: StoragePath, name: str) -> None:
        self.name = name
        self.directory: StoragePath = output.absolute() / "running"
        self._lock_path = Path(str(self.directory)) / f"{name}.lock"
        self._heartbeat_path = self.directory / f"{name}.json"
        self._cancel_path = self.directory / f"{name}.cancel"
        self.is_settled = False  # once nothing is left that the next command would have to deliver
        self._locked_files = ExitStack()
        self._claimed: set[Path] = set()
        self._start = time.time()
        self._heartbeat_at = 0.0

    @property
    def was_interrupted(self) -> bool:
        """Whether an earlier process died, or left something to do."""
        return self._heartbeat_path.is_file()

    @property
    def cancelled(self) -> bool:
        """Whether somebody has requested that the sweep stop."""
        return self._cancel_path.exists()

    def __enter__(self) -> SweepLock:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._acquire(self._lock_path):
            raise UserError(f"sweep {self.name!r} is already running{owner(self.last_heartbeat())}")
        self._cancel_path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_settled:
            self._heartbeat_path.unlink(missing_ok=True)
        self._cancel_path.unlink(missing_ok=True)
        self._locked_files.close()

    def claim(self, record: TrialRecord) -> bool:
        """Locks a trial for this sweep; False where another sweep runs it."""
        record.path.mkdir(parents=True, exist_ok=True)
        path = Path(str(record.path))
        if path not in self._claimed and self._acquire(path / ".lock"):
            self._claimed.add(path)
        return path in self._claimed

    def heartbeat(self, counts: dict[str, int], force: bool = False) -> None:
        """Writes how many trials are in each state, every few seconds at most."""
        if not force and time.time() - self._heartbeat_at < HEARTBEAT_S:
            return
        self._heartbeat_at = time.time()
        with suppress(OSError):  # a full disk must not stop a sweep that could continue
            write_json(self._heartbeat_path, {**self._process(), "counts": counts})

    def last_heartbeat(self) -> dict[str, Any] | None:
        """Host, pid, times and counts, as the sweep's process wrote them last."""
        return read_json(self._heartbeat_path)

    def is_alive(self) -> bool:
        """Whether a process runs the sweep, on this machine or another that shares the output."""
        if not self._lock_path.exists():
            return False
        with self._lock_path.open() as file:
            # Shared, so that two commands that look at once do not take each other for the sweep.
            return not _lock(file, fcntl.LOCK_SH)

    def cancel(self) -> None:
        """Requests that the sweep's process stop."""
        self._cancel_path.touch()

    def _process(self) -> dict[str, Any]:
        """This process, and the time."""
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "began": self._start,
            "time": time.time(),
        }

    def _acquire(self, path: Path) -> bool:
        """Locks a file until the end of the context; False where another process has locked it."""
        file = path.open("a")
        deadline = time.monotonic() + ACQUIRE_S
        while not _lock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                file.close()
                return False
            time.sleep(ACQUIRE_S / 20)
        self._locked_files.enter_context(file)
        return True


def _lock(file: IO[str], kind: int) -> bool:
    """Locks an open file; False where another process has locked it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def owner(heartbeat: dict[str, Any] | None) -> str:
    """Who runs a sweep, as the end of a message."""
    who = f", by process {heartbeat['pid']} on {heartbeat['host']}" if heartbeat else ""
    return f"{who}; watch it with: diffgap status"
