"""That a sweep is running: a lock so that it runs once, and notes for whoever watches it.

OUTPUT/running/NAME.lock      locked by the sweep's process, as long as it lives
OUTPUT/running/NAME.json      who runs it, and how it goes; left behind by one that was killed
OUTPUT/running/NAME.cancel    somebody wants it to end
OUTPUT/trials/SIGNATURE/.lock locked by the sweep that runs this trial

On an object store, which knows no locks, the note is a lease: see `diffgap.ledger.leases`.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from diffgap.errors import UserError
from diffgap.io.atomic import write_json
from diffgap.io.paths import StoragePath
from diffgap.ledger.ledger import TrialRecord

HEARTBEAT_S = 2.0
"""Between two notes of how a sweep goes."""

ASKING_S = 0.2
"""Longer than anybody holds a lock only to ask whether it is free."""


class SweepLock:
    """One process's hold on a sweep; use it as a context.

    Raises:
        UserError: on entering, where another process runs the sweep.
    """

    def __init__(self, output: StoragePath, name: str) -> None:
        self.name = name
        self.place: StoragePath = output.absolute() / "running"
        self.is_settled = False
        """Whether nothing is left to be told or tidied up; else the next command looks after it."""
        self._held = ExitStack()
        self._claimed: set[Path] = set()
        self._noted = 0.0
        self._began = time.time()

    @property
    def was_interrupted(self) -> bool:
        """Whether an earlier process left without tidying up."""
        return self._note_path.is_file()

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked for the sweep to end."""
        return self._cancel_path.exists()

    def __enter__(self) -> SweepLock:
        self.place.mkdir(parents=True, exist_ok=True)
        if not self._hold(self._lock_path):
            raise UserError(f"sweep {self.name!r} is being run already{owner(self.note())}")
        self._cancel_path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_settled:
            self._note_path.unlink(missing_ok=True)
        self._cancel_path.unlink(missing_ok=True)
        self._held.close()

    def claim(self, record: TrialRecord) -> bool:
        """Takes hold of a trial; False where another sweep runs it."""
        record.path.mkdir(parents=True, exist_ok=True)
        path = Path(str(record.path))
        if path not in self._claimed and self._hold(path / ".lock"):
            self._claimed.add(path)
        return path in self._claimed

    def heartbeat(self, counts: dict[str, int], force: bool = False) -> None:
        """Notes how the sweep goes, every few seconds."""
        if not force and time.time() - self._noted < HEARTBEAT_S:
            return
        self._noted = time.time()
        with suppress(OSError):  # a full disk must not end a sweep that could go on
            write_json(self._note_path, {**self.who(), "counts": counts})

    def who(self) -> dict[str, Any]:
        """This process, and the time."""
        facts = {"host": socket.gethostname(), "pid": os.getpid(), "began": self._began}
        return {**facts, "time": time.time()}

    def note(self) -> dict[str, Any] | None:
        """The last note of how the sweep goes."""
        try:
            note: dict[str, Any] = json.loads(self._note_path.read_text())
        except FileNotFoundError:
            return None
        return note

    def is_alive(self) -> bool:
        """Whether a process holds the sweep, on this machine or another that shares the place."""
        path = self._lock_path
        if not path.exists():
            return False
        with path.open() as file:
            return not _lock(file, fcntl.LOCK_SH)  # shared: whoever else asks is no sweep

    def cancel(self) -> None:
        """Asks the sweep's process to end it."""
        self._cancel_path.touch()

    @property
    def _lock_path(self) -> Path:
        return Path(str(self.place)) / f"{self.name}.lock"

    @property
    def _note_path(self) -> StoragePath:
        return self.place / f"{self.name}.json"

    @property
    def _cancel_path(self) -> StoragePath:
        return self.place / f"{self.name}.cancel"

    def _hold(self, path: Path) -> bool:
        file = path.open("a")
        until = time.monotonic() + ASKING_S
        while not _lock(file, fcntl.LOCK_EX):
            if time.monotonic() > until:
                file.close()
                return False
            time.sleep(ASKING_S / 20)
        self._held.enter_context(file)
        return True


def _lock(file: IO[str], kind: int) -> bool:
    """Locks an open file for this process; False where another has it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def owner(note: dict[str, Any] | None) -> str:
    """Who runs a sweep, for people."""
    who = f", by process {note['pid']} on {note['host']}" if note else ""
    return f"{who}; watch it with: diffgap status"
