"""Guards, which end what a process has started once that process is gone, however it died.

`python -m diffgap.cluster.guard MARK` waits until its standard input ends, a pipe that closes even
if its parent is killed. It then kills every process that has MARK in its environment; where MARK is
the folder of a local Ray, it removes the folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from diffgap.errors import UserError

VARIABLE = "DIFFGAP_RAY"
"""Environment variable by which the processes of a block are marked."""

ROUNDS, PAUSE_S = 20, 0.1  # rounds of looking for processes: a dying Ray may still start some
KEEP = b"keep"  # to the guard: leave the folder, for Ray's logs say why it died

PREFIX = "dg-ray-"
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""The longest path that the system allows a socket (ray#7724)."""
SOCKET = "r/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1"
"""The longest path of a socket in a local Ray's folder."""
BELOW_BYTES = len(f"/{PREFIX}12345678/{SOCKET}")
"""What is added to the path of the folder's parent until it is that of the socket."""

SHORT_PARENTS = ("/tmp", "/var/tmp", "/dev/shm")
"""Parents for when TMPDIR is too long a path, as those of Slurm's jobs are."""


class ProcessGuard:
    """Marks the processes that start within the block, and ends them after it."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __enter__(self) -> Self:
        environment = dict(os.environ)
        environment.pop(VARIABLE, None)  # or else the guard of an outer block would kill this one
        os.environ[VARIABLE] = self.mark
        self._process = subprocess.Popen(
            [sys.executable, "-m", "diffgap.cluster.guard", self.mark],
            stdin=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # a signal to the command's process group is not for the guard
        )
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(VARIABLE, None)
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


class RayGuard(ProcessGuard):
    """Guard of a local Ray, whose mark is a private folder for Ray's files.

    Raises:
        UserError: where there is no place for the folder.
    """

    def __init__(self) -> None:
        super().__init__(tempfile.mkdtemp(prefix=PREFIX, dir=_parent()))

    @property
    def temp_dir(self) -> str:
        """Where Ray puts its sockets, logs and spilled objects.

        Within the folder, which is private: what Ray makes it opens to everybody.
        """
        return f"{self.mark}/r"

    @property
    def logs(self) -> str:
        return f"{self.temp_dir}/session_latest/logs"

    def keep_folder(self) -> None:
        """Leaves the folder, and Ray's logs in it, where they are."""
        assert self._process.stdin
        self._process.stdin.write(KEEP)
        self._process.stdin.flush()


def local_folder() -> str | None:
    """The private folder of the local Ray to which this process belongs; None in a cluster."""
    return os.environ.get(VARIABLE)


def _parent() -> Path:
    """Where a local Ray's folder lies: in RAY_TMPDIR, else in TMPDIR or a shorter path."""
    chosen = os.environ.get("RAY_TMPDIR")
    parents = [chosen] if chosen else [tempfile.gettempdir(), *SHORT_PARENTS]
    for parent in parents:
        path = Path(parent).absolute()
        is_short = len(os.fsencode(path)) + BELOW_BYTES <= SOCKET_BYTES
        if is_short and os.access(path, os.W_OK | os.X_OK):
            return path
    raise UserError(
        f"{'RAY_TMPDIR' if chosen else 'TMPDIR'}: {parents[0]} cannot hold Ray's sockets; a folder "
        f"of at most {SOCKET_BYTES - BELOW_BYTES} bytes is needed that can be written; "
        "set RAY_TMPDIR to one, such as /tmp"
    )


def end_marked(mark: str) -> None:
    """Kills the marked processes except this one, until none is left."""
    for _ in range(ROUNDS):
        processes = [process for process in psutil.process_iter() if _is_marked(process, mark)]
        if not processes:
            return
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=1)
        time.sleep(PAUSE_S)


def _is_marked(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error, OSError):
        return process.pid != os.getpid() and process.environ().get(VARIABLE) == mark
    return False


if __name__ == "__main__":
    _, mark = sys.argv
    is_kept = sys.stdin.buffer.read() == KEEP
    end_marked(mark)
    if not is_kept and Path(mark).name.startswith(PREFIX):
        shutil.rmtree(mark, ignore_errors=True)
