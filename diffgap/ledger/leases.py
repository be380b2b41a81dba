"""That a sweep is running, where nothing can be locked: on an object store.

Its note, OUTPUT/running/NAME.json, is a lease: written anew every few seconds for as long as the
sweep lives, with the trials that it has taken. A lease that is not renewed is anybody's, and
at once where its process was of this machine and is gone.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffgap.errors import UserError
from diffgap.io.atomic import write_json
from diffgap.io.paths import RemotePath, StoragePath
from diffgap.ledger.ledger import TrialRecord
from diffgap.ledger.locks import SweepLock, owner

RENEW_S = 5.0
"""Between two renewals."""

LEASE_S = 20.0
"""A lease that has not been renewed for so long is given up."""

SETTLE_S = 1.0
"""After which, of two that took a lease at once, the later one has it."""


class LeaseLock(SweepLock):
    """One process's hold on a sweep whose output is on an object store; use it as a context.

    Raises:
        UserError: on entering, where another process runs the sweep.
    """

    place: RemotePath

    def __init__(
        self, output: RemotePath, name: str, say: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(output, name)
        self._say = say
        self._token = uuid.uuid4().hex
        self._over = threading.Event()
        self._counts: dict[str, int] = {}
        self._names: set[str] = set()

    def __enter__(self) -> LeaseLock:
        if self._is_renewed():
            raise UserError(f"sweep {self.name!r} is being run already{owner(self.note())}")
        self._found_note = self.note() is not None
        self._renew()
        time.sleep(SETTLE_S)
        if (self.note() or {}).get("token") != self._token:
            raise UserError(f"sweep {self.name!r} was begun elsewhere just now{owner(self.note())}")
        self._cancel_path.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._cancel_path.unlink(missing_ok=True)
        if self.is_settled:
            self._note_path.unlink(missing_ok=True)
        else:
            write_json(self._note_path, {**self._facts(), "over": True})

    @property
    def was_interrupted(self) -> bool:
        return self._found_note

    def claim(self, record: TrialRecord) -> bool:
        """Takes hold of a trial; False where another sweep runs it."""
        signature = record.path.name
        if signature not in self._names:
            if any(signature in note.get("claims", ()) for note in self._others()):
                return False
            self._names.add(signature)
            self._renew()
        return True

    def heartbeat(self, counts: dict[str, int], force: bool = False) -> None:
        """Notes how the sweep goes, with the next renewal."""
        self._counts = counts

    def is_alive(self) -> bool:
        """Whether a process holds the sweep, as far as clocks agree."""
        return _is_fresh(self.note())

    def _others(self) -> list[dict[str, Any]]:
        """The notes of other sweeps that run."""
        paths = [path for path in self.place.glob("*.json") if path != self._note_path]
        notes = [json.loads(path.read_text()) for path in paths]
        return [note for note in notes if _is_fresh(note)]

    def _is_renewed(self) -> bool:
        """Whether somebody renews the sweep's lease; waits to see it, for clocks may differ."""
        first = self.note()
        if first is None or _is_over(first):
            return False
        if self._say:
            self._say(
                f"Sweep {self.name} was begun by process {first['pid']} on {first['host']}, and "
                f"not ended: watching for {LEASE_S:.0f} s whether that still runs ..."
            )
        until = time.monotonic() + LEASE_S
        while time.monotonic() < until:
            time.sleep(SETTLE_S)
            note = self.note()
            if note is None or _is_over(note):
                return False
            if note["time"] != first["time"]:
                return True
        return False

    def _keep(self) -> None:
        while not self._over.wait(RENEW_S):
            try:
                self._renew()
            except OSError:  # the store may be away for a while
                continue

    def _renew(self) -> None:
        write_json(self._note_path, self._facts())

    def _facts(self) -> dict[str, Any]:
        claims = sorted(self._names)
        mine = {**self.who(), "processes": _processes()}
        return {**mine, "token": self._token, "claims": claims, "counts": self._counts}


def sweep_lock(
    output: StoragePath, name: str, say: Callable[[str], None] | None = None
) -> SweepLock:
    """A sweep's hold, of the kind that its output allows; `say` tells people what is waited for."""
    if isinstance(output, RemotePath):
        return LeaseLock(output, name, say)
    return SweepLock(output, name)


def _is_fresh(note: dict[str, Any] | None) -> bool:
    return note is not None and not _is_over(note) and time.time() - note["time"] < LEASE_S


def _is_over(note: dict[str, Any]) -> bool:
    """Whether a note's process is known not to run any more."""
    if note.get("over"):
        return True
    here = _processes()
    return here is not None and note.get("processes") == here and not _runs(note["pid"])


def _processes() -> str | None:
    """Among which processes this one's id means something: a machine since its start, a container.

    None where the system has no word for it.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True
