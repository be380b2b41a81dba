"""Guard of a local Ray, which ends its processes once the one that started it is gone.

`python -m diffgap.cluster.guard MARK` kills every process with MARK in its environment once its
standard input ends: a pipe that closes however its parent died, SIGKILL included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress

import psutil

VARIABLE = "DIFFGAP_RAY"  # the environment variable that marks the processes of one local Ray
ROUNDS, PAUSE_S = 20, 0.1  # rounds of looking for processes: a dying Ray may still start some


class RayGuard:
    """Marks the processes that start within the block, and ends them after it."""

    def __enter__(self) -> RayGuard:
        environment = dict(os.environ)
        environment.pop(VARIABLE, None)  # or else the guard of an outer Ray would kill this one
        self.mark = os.environ[VARIABLE] = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-m", "diffgap.cluster.guard", self.mark],
            stdin=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # a signal to the sweep's process group is not for the guard
        )
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(VARIABLE, None)
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


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
    sys.stdin.read()
    end_marked(sys.argv[1])
