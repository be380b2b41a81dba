"""Lock of a running sweep, and its heartbeat for whoever watches it.

OUTPUT/running/NAME.lock      locked by the sweep's process for as long as it lives
OUTPUT/running/NAME.json      who runs it and how it goes; left behind by a process that was killed
OUTPUT/running/NAME.cancel    a request to stop it
OUTPUT/trials/SIGNATURE/.lock locked by the sweep that runs this trial, whose name is in it

An object store knows no locks; there the heartbeat is a lease: see `diffgap.ledger.leases`.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
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

    look_s = 1.0
    """Pause between two looks whether trials of other sweeps have become free."""

    def __init__(self, output: StoragePath, name: str) -> None:
        self.name = name
        self.directory: StoragePath = output.absolute() / "running"
        self._lock_path = Path(str(self.directory)) / f"{name}.lock"
        self._heartbeat_path = self.directory / f"{name}.json"
        self._cancel_path = self.directory / f"{name}.cancel"
        self.is_settled = False  # once nothing is left that the next command would have to deliver
        self._lock_file: IO[str] | None = None
        self._claims: dict[str, IO[str]] = {}
        """The locked files of trials, by signature."""
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
        self._lock_file = _acquire(self._lock_path, ACQUIRE_S)
        if not self._lock_file:
            raise UserError(self._running())
        self._cancel_path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_settled:
            self._heartbeat_path.unlink(missing_ok=True)
        self._cancel_path.unlink(missing_ok=True)
        for file in (*self._claims.values(), self._lock_file):
            if file:
                file.close()

    def claim(self, record: TrialRecord) -> bool:
        """Locks a trial for this sweep, until its release; False where another sweep runs it."""
        signature = record.path.name
        if signature not in self._claims and (file := _acquire(_trial_lock(record))):
            self._claims[signature] = file
            with suppress(OSError):  # a full disk: the lock holds, only its owner stays unnamed
                file.truncate(0)
                # Past the buffer, which a full disk would leave for `close` to fail on.
                os.write(
                    file.fileno(), json.dumps({"sweep": self.name, **self._process()}).encode()
                )
        return signature in self._claims

    def has_claimed(self, record: TrialRecord) -> bool:
        """Whether a trial is this sweep's at the moment."""
        return record.path.name in self._claims

    def release(self, record: TrialRecord) -> None:
        """Lets other sweeps claim a trial."""
        if file := self._claims.pop(record.path.name, None):
            file.close()

    def holder(self, record: TrialRecord) -> dict[str, Any] | None:
        """The sweep, host and pid that claimed a trial last, if that is known."""
        try:
            return read_json(_trial_lock(record))
        except ValueError:  # between its lock and its name, or of an earlier version
            return None

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

    def problem(self) -> str | None:
        """Why the sweep cannot be run now: another process does; None where none does."""
        return self._running() if self.is_alive() else None

    def _running(self) -> str:
        return f"sweep {self.name!r} is already running{owner(self.last_heartbeat())}"

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


def _trial_lock(record: TrialRecord) -> Path:
    return Path(str(record.path)) / ".lock"


def _acquire(path: Path, patience: float = 0.0) -> IO[str] | None:
    """Locks a file, which stays locked until it is closed; None where another process has it."""
    deadline = time.monotonic() + patience
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        if _lock(file, fcntl.LOCK_EX):
            if _is_at(file, path):
                return file
        elif time.monotonic() > deadline:
            file.close()
            return None
        else:
            time.sleep(patience / 20)
        file.close()


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file still has its name: `--fresh` removes a trial's directory whole."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[str], kind: int) -> bool:
    """Locks an open file; False where another process has locked it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def described(holder: dict[str, Any] | None) -> str:
    """Who has claimed a trial, for people."""
    if not holder:
        return "another sweep"
    return f"sweep {holder['sweep']} (process {holder['pid']} on {holder['host']})"


def owner(heartbeat: dict[str, Any] | None) -> str:
    """Who runs a sweep, as the end of a message."""
    who = f", by process {heartbeat['pid']} on {heartbeat['host']}" if heartbeat else ""
    return f"{who}; watch it with: diffgap status"
